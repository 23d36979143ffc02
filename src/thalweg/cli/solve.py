"""``thalweg solve``: recover a matrix, a signal or a picture from a file of measurements."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.errors import INTERRUPTED, stop

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


def solve(
    family: Annotated[
        str,
        typer.Argument(metavar="FAMILY", help=f"One of {', '.join(FAMILIES)}."),
    ],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The data: CSV, NPY, NPZ or PNG; see below.")
    ],
    rank: Annotated[
        int | None,
        typer.Option(show_default=False, help="Of the answer; for completion and robust-pca."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            show_default=False,
            help="Where the answer goes: .csv for completion; .npz, .npy, .csv or .png.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="A solver of the family, with values in brackets if need be; "
            "`thalweg methods` lists them.",
        ),
    ] = None,
    tol: Annotated[
        float | None, typer.Option(show_default=False, help="Stop at this relative residual.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(show_default=False, help="Stop after so many iterations in all.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(show_default=False, help="Stop after so many seconds in all.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="completion: names of the three columns, as in userId,movieId,rating.",
        ),
    ] = None,
    ridge: Annotated[
        float, typer.Option(help="completion: weight of the factors' size, for noisy data.")
    ] = 0.0,
    predict: Annotated[
        Path | None,
        typer.Option(show_default=False, help="completion: CSV file of the pairs to predict."),
    ] = None,
    hold_out: Annotated[
        float, typer.Option(help="completion: share of the entries kept back to judge by.")
    ] = 0.0,
    alpha: Annotated[
        float, typer.Option(help="robust-pca: largest share of gross entries in a row or column.")
    ] = 0.1,
    key: Annotated[
        str | None, typer.Option(show_default=False, help="robust-pca: the array of an NPZ file.")
    ] = None,
    amplitude: Annotated[
        bool, typer.Option("--amplitude", help="phase-retrieval: y are roots of intensities.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option(
            show_default=False,
            help="Where the page and the saved point go. Default: solve-FAMILY-FILE.",
        ),
    ] = None,
    save_every: Annotated[
        float, typer.Option(help="Seconds between two savings of the best point.")
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write the page as one file (about 5 MB).")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was found as JSON, and nothing else.")
    ] = False,
) -> None:
    """Recover a matrix, a signal or a picture from a file, and write one page about it.

    \b
    Examples:
      thalweg solve completion ratings.csv --rank 8 --hold-out 0.1 --ridge 5 --out predictions.csv
      thalweg solve completion ratings.csv --rank 8 --predict pairs.csv --out predictions.csv
      thalweg solve robust-pca frames.npy --rank 5 --out parts.npz
      thalweg solve phase-retrieval measurements.npz --out signal.npy
      thalweg solve deconvolution measurements.npz --out parts.npz

    \b
    Files:
      completion       a header, then one line an entry: user,item,value; ids of any kind
      robust-pca       a matrix (NPY, NPZ, CSV) or a picture (PNG)
      phase-retrieval  NPZ with y, and A (m x n) or masks (L x n, L x height x width)
      deconvolution    NPZ with y, A, and K (length of the kernel) or B

    The best point is saved every few seconds: after a kill the same command goes on from it.

    Exit codes: 0 done, 2 bad input, 3 the method diverged, 130 interrupted.
    """
    from thalweg.cli.streams import as_strict_json, stdout_kept_clean

    given = {k: v for k, v in locals().items() if k in _OPTIONS}
    folder = directory or Path(f"solve-{family}-{file.stem}")
    with stdout_kept_clean(as_json) as (shown, progress), _told():
        task = _task(family, file, given)
        pairs = _pairs(task, out, predict)
        found = _Run(task, family, folder, progress, {**given, "pairs": pairs}).run()
        code = found.pop("exit_code")
        print(as_strict_json(found) if as_json else _sentences(found), file=shown)
    raise typer.Exit(code)


_OPTIONS = (
    "rank", "out", "method", "tol", "max_steps", "max_seconds", "columns", "ridge", "predict",
    "hold_out", "alpha", "key", "amplitude", "save_every", "seed", "single_file",
)  # fmt: skip
_OF_FAMILY = {
    "columns": ("completion", None), "ridge": ("completion", 0.0), "predict": ("completion", None),
    "hold_out": ("completion", 0.0), "alpha": ("robust-pca", 0.1), "key": ("robust-pca", None),
    "amplitude": ("phase-retrieval", False),
}  # fmt: skip


def _task(family: str, file: Path, given: Mapping[str, Any]) -> Task:
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


def _pairs(task: Task, out: Path | None, predict: Path | None) -> tuple[Tensor, Tensor] | None:
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


class _Run:
    """One run of a solver: from where it was, to its page."""

    def __init__(
        self, task: Task, family: str, folder: Path, progress: Any, given: Mapping[str, Any]
    ) -> None:
        from thalweg.compare.entrants import entrants
        from thalweg.solve.resume import identity, read

        self.task, self.family, self.folder, self.given = task, family, folder, given
        self.progress = progress
        asked = given["method"] or task.solver.__name__

        def this_file(seed: int) -> Any:
            return task.problem

        this_file.__name__ = self.title = folder.name.removeprefix(f"solve-{family}-")
        _, (self.contender,) = entrants(this_file, [asked])
        folder.mkdir(parents=True, exist_ok=True)
        from thalweg.compare.solving import tensors_of

        tensors = {str(i): t for i, t in enumerate(tensors_of(task.problem))}
        self.of = identity(tensors, {"family": family, **task.options})
        self.path = folder / "point.safetensors"
        self.before = read(self.path, self.of)

    def run(self) -> dict[str, Any]:
        import torch

        from thalweg.compare.signatures import parameters_of
        from thalweg.core import Reason
        from thalweg.solve.resume import Keeper, joined

        known, before = parameters_of(self.contender.target), self.before
        arguments = dict(self.contender.fixed)
        line = _Line(self.progress, before.steps if before else 0)
        keeper = Keeper(
            self.path, self.of, self.task.take_apart, every=self.given["save_every"],
            before=before, also=line,
        )  # fmt: skip
        given = {name: self.given[name] for name in ("tol", "max_steps", "max_seconds")}
        if before is not None:
            typer.echo(
                f"goes on from iteration {before.steps:,}, saved in {self.path}", file=self.progress
            )
            arguments["start"] = self.task.put_together(before.point)
            default = known["max_steps"].default if "max_steps" in known else None
            steps = given["max_steps"] if given["max_steps"] is not None else default
            given["max_steps"] = None if steps is None else max(0, steps - before.steps)
            if given["max_seconds"] is not None:
                given["max_seconds"] = max(1e-3, given["max_seconds"] - before.seconds)
        arguments |= {name: value for name, value in given.items() if value is not None}
        if "generator" in known:
            arguments["generator"] = torch.Generator().manual_seed(self.given["seed"])
        for name in arguments:
            if name not in known:
                raise ValueError(f"{self.contender.name} has no {name}")
        result = self.contender.target(self.task.problem, callback=keeper, **arguments)
        line.end()
        keeper.write(result.trace)  # whatever happens to the files below, the point is not lost
        found = self._found(result, joined(before, result.trace))
        self._page(found, result.x, joined(before, result.trace))
        if result.reason not in (Reason.INTERRUPTED, Reason.MAX_STEPS, Reason.MAX_SECONDS):
            self.path.unlink(missing_ok=True)  # there is nothing left to go on with
        return found

    def _found(self, result: Any, trace: Mapping[str, list[float]]) -> dict[str, Any]:
        import datetime

        import torch

        import thalweg
        from thalweg.core import Reason

        task, problem = self.task, self.task.problem
        residual = float(problem.residual(result.x).max())
        numbers: dict[str, float] = {"relative residual": residual}
        if getattr(problem, "truth", None) is not None:
            numbers["relative error"] = float(problem.error(result.x).max())
        numbers |= self._write(result.x)
        _, spectrum = task.spectrum(result.x)
        numbers["largest of the spectrum"] = float(spectrum[0])
        numbers["smallest of the spectrum"] = float(spectrum[-1])
        answer = f"{self.contender.name} reached a relative residual of {residual:.2g}"
        if "RMSE on what was held out" in numbers:
            answer += (
                f"; on {len(task.held_out[2]):,} entries held out its RMSE is "  # type: ignore[index]
                f"{numbers['RMSE on what was held out']:.4g}, against "
                f"{numbers['RMSE of the mean']:.4g} of the mean"
            )
        code = {Reason.INTERRUPTED: INTERRUPTED, Reason.NONFINITE: 3}.get(result.reason, 0)
        return {
            "title": f"{self.family}: {self.title}",
            "question": FAMILIES[self.family],
            "answer": f"{answer}.",
            "family": self.family,
            "problem": task.said,
            "method": self.contender.name,
            "converged": result.converged,
            "cut_short": not result.converged and result.reason is not Reason.STALLED,
            "reason": str(result.reason),
            "steps": int(trace["step"][-1]),
            "seconds": float(trace["seconds"][-1]),
            "resumed": self.before.steps if self.before else 0,
            "numbers": numbers,
            "spectrum": [float(v) for v in spectrum[:100]],
            "out": str(self.given["out"]) if self.given["out"] else None,
            "report": str(self.folder / "index.html"),
            "command": _command(),
            "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": {"thalweg": thalweg.__version__, "torch": str(torch.__version__)},
            "exit_code": code,
        }

    def _write(self, x: Any) -> dict[str, float]:
        """Write the answer; of a completion also what was held out is judged."""
        from thalweg.solve.files import write_array, write_predictions

        task, out = self.task, self.given["out"]
        if task.triples is None:
            if out is not None:
                write_array(out, task.answer(x))
            return {}
        judged: dict[str, float] = {}
        if task.held_out is not None:
            rows, cols, values = task.held_out
            predicted = _entries(x, rows, cols)
            mean = task.problem.values.mean()
            judged["RMSE on what was held out"] = float((predicted - values).square().mean().sqrt())
            judged["RMSE of the mean"] = float((mean - values).square().mean().sqrt())
        if out is not None:
            rows, cols = self.given["pairs"]
            write_predictions(out, task.triples, rows, cols, _entries(x, rows, cols))
        return judged

    def _page(self, found: Mapping[str, Any], x: Any, trace: Mapping[str, list[float]]) -> None:
        from thalweg.solve import page

        page.write(
            found,
            self.folder,
            trace=dict(trace),
            spectrum=self.task.spectrum(x),
            images=self.task.images(x),
            single_file=self.given["single_file"],
        )


def _entries(x: Any, rows: Any, cols: Any) -> Any:
    """Entries of :math:`U V^T`."""
    return (x.U[rows] * x.V[cols]).sum(-1)


class _Line:
    """Shows how a run gets on: one line that changes in a terminal, one every 5 s elsewhere."""

    def __init__(self, stream: Any, before: int) -> None:
        import time

        self.stream, self.before, self.now = stream, before, time.monotonic
        self.live = stream.isatty()
        self.shown = self.now()

    def __call__(self, result: Any) -> None:
        if self.now() - self.shown < (0.1 if self.live else 5.0):
            return
        self.shown = self.now()
        columns = result.trace.columns
        residual = columns.get("residual") or columns["value"]
        name = "residual" if "residual" in columns else "value"
        step = self.before + int(columns["step"][-1])
        words = f"iteration {step:,}: {name} {residual[-1]:.3e}"
        print(f"\r{words:<60}" if self.live else words, end="" if self.live else "\n",
              file=self.stream, flush=True)  # fmt: skip

    def end(self) -> None:
        if self.live:
            print(f"\r{'':<60}\r", end="", file=self.stream, flush=True)


def _sentences(found: Mapping[str, Any]) -> str:
    lines = [
        found["answer"],
        f"{found['reason'][:1].upper()}{found['reason'][1:]} ({found['steps']:,} iterations, "
        f"{found['seconds']:.3g} s).",
    ]
    if found["out"]:
        lines.append(f"Answer: {found['out']}")
    return "\n".join([*lines, f"Page: {found['report']}"])


def _command() -> str:
    import shlex
    import sys

    return shlex.join(["thalweg", *sys.argv[1:]])


@contextmanager
def _told() -> Iterator[None]:
    """Bad input and what cannot be written become a sentence; warnings a line each."""
    from thalweg.compare.errors import BadInput

    def tell(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        typer.echo(f"thalweg: warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = tell
        try:
            yield
        except BadInput as error:
            raise stop(str(error), error.traceback) from None
        except (ValueError, TypeError) as error:
            raise stop(str(error)) from None
        except OSError as error:
            where = f" {str(error.filename)!r}" if error.filename else ""
            raise stop(f"cannot write{where}: {error.strerror or error}") from None
        except KeyboardInterrupt:
            typer.echo("thalweg: interrupted before the first iteration", err=True)
            raise typer.Exit(INTERRUPTED) from None
