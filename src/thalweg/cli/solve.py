"""``thalweg solve``: recover a matrix, a signal or a picture from a file of measurements."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from thalweg.cli.errors import INTERRUPTED, stop
from thalweg.cli.solve_arguments import FAMILIES, OPTIONS, pairs_of, task_of


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
    from thalweg.cli.solving import Solving
    from thalweg.cli.streams import as_strict_json, stdout_kept_clean

    given = {k: v for k, v in locals().items() if k in OPTIONS}
    folder = directory or Path(f"solve-{family}-{file.stem}")
    with stdout_kept_clean(as_json) as (shown, progress), _told():
        task = task_of(family, file, given)
        pairs = pairs_of(task, out, predict)
        found = Solving(task, family, folder, progress, {**given, "pairs": pairs}).run()
        code = found.pop("exit_code")
        print(as_strict_json(found) if as_json else _sentences(found), file=shown)
    raise typer.Exit(code)


def _sentences(found: Mapping[str, Any]) -> str:
    lines = [
        found["answer"],
        f"{found['reason'][:1].upper()}{found['reason'][1:]} ({found['steps']:,} iterations, "
        f"{found['seconds']:.3g} s).",
    ]
    if found["out"]:
        lines.append(f"Answer: {found['out']}")
    return "\n".join([*lines, f"Page: {found['report']}"])


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
