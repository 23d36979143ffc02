"""``thalweg inspect``: what kind of point a problem's model is at."""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.errors import INTERRUPTED, stop, told_in_one_sentence

if TYPE_CHECKING:
    from thalweg.core import Training
    from thalweg.inspect import Inspection


def inspect(
    problem: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEM",
            help="A built-in name, path.py[:name] or package.module:name.",
        ),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            show_default=False,
            help="Parameters to inspect: .safetensors, or a state dict saved by torch. "
            "Default: the model as PROBLEM builds it.",
        ),
    ] = None,
    budget: Annotated[
        int, typer.Option(help="Hessian-vector products in all; 40 % go to the certificate.")
    ] = 600,
    gradient_tolerance: Annotated[
        float | None,
        typer.Option(
            "--eps", show_default=False, help="Gradients up to this are zero. Default: 1e-4."
        ),
    ] = None,
    curvature_tolerance: Annotated[
        float | None,
        typer.Option(
            "--beta",
            show_default=False,
            help="Curvatures down to minus this are not negative. Default: estimated.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", show_default=False, help="Folder of the page. Default: inspect-PROBLEM."
        ),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write the page as one file (about 5 MB).")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON, and nothing else.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the problem, and of everything random.")] = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not show how it gets on (on stderr).")
    ] = False,
) -> None:
    """Say what kind of point a model is at, and write one page about it.

    A certificate of the point (saddle, minimum, or undecided, and what that rests on), the spectrum
    of the Hessian, its trace, sharpness, slices of the loss, and the layers one by one.

    \b
    Examples:
      thalweg inspect digits-mlp
      thalweg inspect my_problem.py --checkpoint model.pt
      thalweg inspect my_problem.py --checkpoint model.safetensors --budget 2000 --beta 0.01

    Checkpoints are read as tensors only; a file with pickled objects is refused.

    Exit codes: 0 done, 2 bad input, 130 interrupted.
    """
    from thalweg.cli.measurements import shown
    from thalweg.cli.streams import as_strict_json, stdout_kept_clean

    folder = out or Path(f"inspect-{_file_name(problem)}")
    if folder.exists() and not folder.is_dir():
        raise stop(f"--out must be a folder, got {str(folder)!r}, which is a file")
    with told_in_one_sentence(), stdout_kept_clean(as_json) as (out_stream, _):
        training, name = _training(problem, checkpoint, seed)
        with (
            _interruption_told(),
            shown(sys.stderr, quiet) as progress,
            _warnings_told(progress.tell),
        ):
            found = _inspected(
                training,
                name=name,
                budget=budget,
                gradient_tolerance=gradient_tolerance,
                curvature_tolerance=curvature_tolerance,
                seed=seed,
                on_event=progress,
            )
        if as_json and out is None:
            print(as_strict_json(found.to_dict()), file=out_stream)
            return
        try:
            page = found.write(folder, single_file=single_file, command=_command())
        except OSError as error:
            raise stop(f"cannot write to {str(folder)!r}: {error.strerror or error}") from None
        print(as_strict_json(found.to_dict()) if as_json else _told(found, page), file=out_stream)


def _training(problem: str, checkpoint: Path | None, seed: int) -> tuple[Training, str]:
    """The training of `problem` at the parameters of `checkpoint`, and its name."""
    from thalweg.compare.errors import BadInput
    from thalweg.compare.problems import build, load
    from thalweg.core import check
    from thalweg.inspect import load_checkpoint

    try:
        check.number("seed", seed, ge=0, integer=True)
        loaded = load(problem, inspect_it=False)
        training = build(loaded, seed)
        if checkpoint is not None:
            load_checkpoint(training.model, checkpoint)
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(str(error)) from error
    return training, training.name if training.name not in ("training", "function") else loaded.name


def _inspected(training: Training, **how: Any) -> Inspection:
    """The inspection; bad input becomes one sentence, the user's own errors keep their frames."""
    from thalweg.compare.errors import BadInput, one_line, own_traceback
    from thalweg.inspect import inspect as measure

    try:
        return measure(training, **how)
    except Exception as error:
        if _from_users(error):
            told = f"the loss of {how['name']} raised {one_line(error)}"
            raise BadInput(told, own_traceback(error)) from error
        if isinstance(error, ValueError | TypeError):
            raise BadInput(_as_options(str(error))) from error
        raise


def _from_users(error: BaseException) -> bool:
    """Whether the user's code raised it: thalweg's own refusals come from thalweg's own lines."""
    frame, last = error.__traceback__, ""
    while frame is not None:
        last, frame = frame.tb_frame.f_globals.get("__name__", ""), frame.tb_next
    return last.partition(".")[0] != "thalweg"


def _as_options(message: str) -> str:
    """The arguments of `thalweg.inspect` under the names they have here."""
    names = {
        "gradient_tolerance": "--eps",
        "curvature_tolerance": "--beta",
        "budget": "--budget",
        "seed": "--seed",
    }
    first, space, rest = message.partition(" ")
    return names.get(first, first) + space + rest


@contextmanager
def _warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Warnings as one line each, when they come: before what they warn of is spent."""

    def warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        tell(f"thalweg: warning: {_as_options(str(message))}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = warn
        yield


@contextmanager
def _interruption_told() -> Iterator[None]:
    """An inspection that was stopped leaves nothing to go on from."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("thalweg: interrupted; nothing was written", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _told(found: Inspection, page: Path) -> str:
    """The last lines: the verdict, what to do, what it cost, where the page is."""
    products = sum(row.products for row in found.cost)
    passes = sum(row.passes for row in found.cost)
    seconds = sum(row.seconds for row in found.cost)
    lines = [f"{found.headline} {found.next_step}", str(found.certificate)]
    lines += [f"{name}: not measured: {why}" for name, why in found.skipped.items()]
    lines.append(f"Spent: {products:,} products, {passes:,} passes over the data, {seconds:.1f} s")
    return "\n".join([*lines, f"Page: {page}"])


def _command() -> str:
    """What was typed."""
    return shlex.join(["thalweg", *sys.argv[1:]])


def _file_name(problem: str) -> str:
    stem = re.sub(r"\.py(?=:|$)", "", problem.replace("\\", "/").rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-") or "problem"
