"""What ``thalweg solve`` can be given: a family's problem from a file, and its answer as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.solve.files import FileError, Triples, read_array, read_arrays, read_triples
from thalweg.solve.recovery import (
    Bilinear,
    BlindDeconvolution,
    CodedDiffraction,
    Lines,
    LowRank,
    LowRankPlusSparse,
    MatrixCompletion,
    PhaseRetrieval,
    RobustPCA,
    alternating_minimization,
    blind_wirtinger_flow,
    robust_pca,
    truncated_amplitude_flow,
)


@dataclass(frozen=True, eq=False)
class Task:
    """A problem from a file, with all that a run of it has to know.

    Parameters
    ----------
    problem
        What is solved.
    solver
        The method, if none is asked for.
    said
        The problem in words: ``943 x 1682 matrix, 90,000 entries, rank 8``.
    take_apart, put_together
        A point as tensors by name, and back: what a resumed run starts from.
    answer
        A point as the arrays a user wants.
    spectrum
        Name and numbers of the spectrum of the answer, largest first.
    images
        Name and matrix of everything that can be looked at; empty where the data are no pictures.
    triples, held_out
        Of a completion: the names, and positions and values of what was held out.
    """

    problem: Any
    solver: Callable[..., Any]
    said: str
    take_apart: Callable[[Any], Mapping[str, Tensor]]
    put_together: Callable[[Mapping[str, Tensor]], Any]
    answer: Callable[[Any], dict[str, Tensor]]
    spectrum: Callable[[Any], tuple[str, Tensor]]
    images: Callable[[Any], dict[str, Tensor]] = lambda x: {}
    triples: Triples | None = None
    held_out: tuple[Tensor, Tensor, Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def completion(
    path: Path, *, rank: int, ridge: float = 0.0, columns: list[str] | None = None,
    hold_out: float = 0.0, seed: int = 0,
) -> Task:  # fmt: skip
    """Fill in a matrix from a CSV file of its entries.

    Parameters
    ----------
    path
        The file: see `thalweg.solve.files.read_triples`.
    rank, ridge
        As in `MatrixCompletion`.
    columns
        The three columns by name.
    hold_out
        Share of the entries, in [0, 1), that is kept back to judge the answer by. Rows and columns
        never lose their last `rank` entries.
    seed
        Decides which.
    """
    check.number("hold_out", hold_out, ge=0, lt=1)
    triples = read_triples(path, columns)
    kept, out = _split(triples, hold_out, rank, seed)
    problem = MatrixCompletion(
        triples.rows[kept], triples.cols[kept], triples.values[kept], triples.shape, rank, ridge
    )
    said = f"{triples.shape[0]} x {triples.shape[1]} matrix, {len(kept):,} entries, rank {rank}"
    held_out = (triples.rows[out], triples.cols[out], triples.values[out]) if len(out) else None
    return Task(
        problem, alternating_minimization, said, lambda x: x._asdict(),
        lambda parts: LowRank(parts["U"], parts["V"]), lambda x: dict(x._asdict()),
        lambda x: ("singular values", _singular_values(x)), triples=triples, held_out=held_out,
        options={"rank": rank, "ridge": ridge, "hold_out": hold_out, "seed": seed},
    )  # fmt: skip


def decompose(path: Path, *, rank: int, alpha: float = 0.1, key: str | None = None) -> Task:
    """Split a matrix, or a picture, into a low-rank part and gross errors.

    Parameters
    ----------
    path, key
        The file: see `thalweg.solve.files.read_array`.
    rank, alpha
        As in `RobustPCA`.
    """
    Y = read_array(path, key)
    problem = RobustPCA(_floating(path, Y), rank, alpha)
    n1, n2 = problem.shape

    def both(x: Any) -> LowRankPlusSparse:
        return x if isinstance(x, LowRankPlusSparse) else problem.split(x)

    def answer(x: Any) -> dict[str, Tensor]:
        return {"low_rank": x.U @ x.V.mT, "sparse": both(x).S}

    return Task(
        problem, robust_pca, f"{n1} x {n2} matrix, rank {rank}, up to {100 * alpha:g} % gross",
        lambda x: {"U": x.U, "V": x.V}, lambda parts: LowRank(parts["U"], parts["V"]), answer,
        lambda x: ("singular values", _singular_values(LowRank(x.U, x.V))),
        images=lambda x: {"data": Y, **answer(x)} if min(n1, n2) >= 8 else {},
        options={"rank": rank, "alpha": alpha, "key": key},
    )  # fmt: skip


def retrieve(path: Path, *, amplitude: bool = False) -> Task:
    """Find a signal, or a photograph, from intensities without phases.

    Parameters
    ----------
    path
        An ``.npz`` file of the measurements ``y`` with either the matrix ``A`` of shape ``(m, n)``
        or ``masks`` of coded diffraction, ``(L, n)`` or ``(L, height, width)``; ``truth`` if known.
    amplitude
        The measurements are amplitudes, the roots of intensities.
    """
    arrays = read_arrays(path)
    _need(path, arrays, ["y"], ["A", "masks"])
    operator = CodedDiffraction(arrays["masks"]) if "masks" in arrays else Lines(arrays["A"])
    y = arrays["y"].to(operator.dtype.to_real())
    kind: Any = "amplitude" if amplitude else "intensity"
    problem = PhaseRetrieval(operator, y, kind, arrays.get("truth"))
    size = " x ".join(str(n) for n in operator.signal_shape)
    flat = len(operator.signal_shape) == 1

    def spectrum(x: Tensor) -> tuple[str, Tensor]:
        if flat:
            return "Fourier amplitudes", torch.fft.fft(x).abs().sort(descending=True).values
        return "singular values", torch.linalg.svdvals(x)

    return Task(
        problem, truncated_amplitude_flow, f"{size} unknowns, {y.numel():,} measurements",
        lambda x: {"x": x}, lambda parts: parts["x"], lambda x: {"signal": x}, spectrum,
        images=lambda x: {} if flat else {"amplitude": x.abs(), "phase": x.angle()},
        options={"amplitude": amplitude},
    )  # fmt: skip


def deconvolve(path: Path) -> Task:
    """Find a kernel and a signal from their convolution.

    Parameters
    ----------
    path
        An ``.npz`` file with ``y``, the Fourier transform of the convolution, ``A``, the rows
        :math:`a_j^T` of the signal's subspace, and either ``K``, the length of the kernel, or
        ``B``, the rows of the kernel's subspace; as in `BlindDeconvolution`.
    """
    arrays = read_arrays(path)
    _need(path, arrays, ["y"], ["A"], ["K", "B"])
    y, A = arrays["y"], arrays["A"]
    if "B" in arrays:
        problem = BlindDeconvolution(y, A, B=arrays["B"])
    else:
        problem = BlindDeconvolution(y, A, int(arrays["K"]))
    return Task(
        problem, blind_wirtinger_flow,
        f"kernel of {problem.width}, signal of {A.shape[-1]}, {len(y):,} measurements",
        lambda x: {"h": x.h, "x": x.x}, lambda parts: Bilinear(parts["h"], parts["x"]),
        lambda x: {"kernel": x.h[0], "signal": x.x[0]},
        lambda x: ("Fourier amplitudes", torch.fft.fft(x.h[0]).abs().sort(descending=True).values),
    )  # fmt: skip


def _split(triples: Triples, share: float, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the entries that are kept and held out."""
    m = len(triples.values)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    left = [torch.bincount(triples.rows).tolist(), torch.bincount(triples.cols).tolist()]
    pairs = list(zip(triples.rows.tolist(), triples.cols.tolist(), strict=True))
    out: list[int] = []
    for k in order.tolist():
        if len(out) >= round(share * m):
            break
        i, j = pairs[k]
        if min(left[0][i], left[1][j]) > rank:
            out.append(k)
            left[0][i] -= 1
            left[1][j] -= 1
    held = torch.zeros(m, dtype=torch.bool)
    held[out] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _singular_values(x: LowRank) -> Tensor:
    """Of :math:`U V^T`, from the triangular factors of both."""
    return torch.linalg.svdvals(torch.linalg.qr(x.U).R @ torch.linalg.qr(x.V).R.mT)


def _floating(path: Path, Y: Tensor) -> Tensor:
    if Y.ndim != 2 or Y.is_complex():
        raise FileError(f"{path} must hold a real matrix, got {Y.dtype} of {tuple(Y.shape)}")
    return Y


def _need(path: Path, arrays: Mapping[str, Tensor], *groups: list[str]) -> None:
    for names in groups:
        if not any(name in arrays for name in names):
            raise FileError(
                f"{path} must hold an array {' or '.join(map(repr, names))}, got "
                f"{', '.join(map(repr, arrays)) or 'none'}"
            )
