"""What ``thalweg solve`` was asked: a problem read from a file, and what to predict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg.solve.tasks import Task

FAMILIES = {
    "completion": "What are the missing entries?",
    "robust-pca": "Which part is of low rank, and which is gross error?",
    "phase-retrieval": "Which signal has these intensities?",
    "deconvolution": "Which kernel and which signal were convolved?",
}
"""What each finds out."""

OPTIONS = (
    "rank", "out", "method", "tol", "max_steps", "max_seconds", "columns", "ridge", "predict",
    "hold_out", "alpha", "key", "amplitude", "save_every", "seed", "single_file",
)  # fmt: skip
"""The options a run keeps, by their names in `thalweg.cli.solve.solve`."""

# Options of one family: which, and their defaults.
_OF_FAMILY = {
    "columns": ("completion", None), "ridge": ("completion", 0.0), "predict": ("completion", None),
    "hold_out": ("completion", 0.0), "alpha": ("robust-pca", 0.1), "key": ("robust-pca", None),
    "amplitude": ("phase-retrieval", False),
}  # fmt: skip


def task_of(family: str, file: Path, given: Mapping[str, Any]) -> Task:
    """The problem that was asked for."""
    from thalweg.core import check
    from thalweg.solve import tasks

    if family not in FAMILIES:
        raise ValueError(
            f"FAMILY must be one of {', '.join(FAMILIES)}, got {family!r}"
            f"{check.did_you_mean(family, FAMILIES)}"
        )
    for name, (owner, default) in _OF_FAMILY.items():
        if family != owner and given[name] != default:
            raise ValueError(f"--{name.replace('_', '-')} is for {owner}, not for {family}")
    low_rank = family in ("completion", "robust-pca")
    if low_rank and given["rank"] is None:
        raise ValueError(f"{family} needs --rank, the rank of the answer")
    if not low_rank and given["rank"] is not None:
        raise ValueError(f"--rank is for completion and robust-pca, not for {family}")
    if family == "completion":
        columns = given["columns"].split(",") if given["columns"] else None
        own = {k: given[k] for k in ("rank", "ridge", "hold_out", "seed")}
        return tasks.completion(file, columns=columns, **own)
    if family == "robust-pca":
        return tasks.decompose(file, rank=given["rank"], alpha=given["alpha"], key=given["key"])
    if family == "phase-retrieval":
        return tasks.retrieve(file, amplitude=given["amplitude"])
    return tasks.deconvolve(file)


def pairs_of(task: Task, out: Path | None, predict: Path | None) -> tuple[Tensor, Tensor] | None:
    """What is to be predicted; what is wrong with the files is told before hours are spent."""
    from thalweg.solve.files import read_pairs

    if out is not None and not out.parent.is_dir():
        raise ValueError(f"--out must be in a folder that exists, got {str(out)!r}")
    if task.triples is None:
        if out is not None and out.suffix.lower() not in (".npz", ".npy", ".csv", ".png"):
            raise ValueError(f"--out must end in .npz, .npy, .csv or .png, got {str(out)!r}")
        return None
    if predict is not None and out is None:
        raise ValueError("--predict needs --out, the CSV file of the predictions")
    if out is not None and out.suffix.lower() != ".csv":
        raise ValueError(f"--out of a completion must end in .csv, got {str(out)!r}")
    if predict is not None:
        return read_pairs(predict, task.triples)
    if task.held_out is not None:
        return task.held_out[:2]
    if out is not None:
        raise ValueError("--out needs pairs to predict: give --predict FILE, or --hold-out 0.1")
    return None
