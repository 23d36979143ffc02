"""``thalweg compare``: race methods on a problem."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thalweg.cli.errors import stop, told_in_one_sentence

if TYPE_CHECKING:
    from thalweg.compare import Race

TEMPLATE = Path(__file__).with_name("problem_template.py")


def compare(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROBLEM METHODS",
            show_default=False,
            help="PROBLEM: a built-in name, path.py[:name] or package.module:name; default "
            "digits-mlp. METHODS: names of the catalogue, with values in brackets if they are to "
            "be fixed, or module:name; default six optimizers, or all solvers of the problem. "
            "A first word that is a method is one, and the problem is the default.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="Length of one run: 300steps, 20epochs or 30s. Default: 420steps of training, "
            "500steps of a solver.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Tuning trials of each method.")] = 12,
    adaptive: Annotated[
        str | None,
        typer.Option(
            metavar="optuna",
            show_default=False,
            help="Place each trial after the first third by what the earlier ones have found "
            "(needs the package optuna). Default: points of a Sobol sequence, all fixed before "
            "anything runs.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds each tuned method is measured on.")] = 10,
    reference: Annotated[
        str | None,
        typer.Option(help="Compare all methods with this one only: fewer pairs, fewer seeds."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            help="Differences below this are called the same. Default: 0.01 for losses (1 %), "
            "0.005 for rates (half a point).",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Runs at a time.")] = 1,
    backend: Annotated[
        str, typer.Option(help="Where they run: loky (this machine), dask or ray.")
    ] = "loky",
    scheduler: Annotated[
        str | None, typer.Option(help="Address of the dask scheduler or of the ray cluster.")
    ] = None,
    exclusive: Annotated[
        bool,
        typer.Option("--exclusive", help="Measure one run at a time, so that times are exact."),
    ] = False,
    inspect: Annotated[
        bool | None,
        typer.Option(
            "--inspect/--no-inspect",
            show_default=False,
            help="Say what kind of point each method has reached. Default: if that costs less "
            "than a fifth of the race.",
        ),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write the report as one file (about 5 MB).")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            "-o",
            show_default=False,
            help="The run directory; an existing one is continued. Default: race-PROBLEM-HASH.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(help="A table as the problem: table.csv, or a data set as sklearn:wine."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="With --data: linear, mlp:64,64 (hidden layers) or conv. Default mlp:64,64.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="With --data table.csv: the column to predict.")
    ] = None,
    init: Annotated[
        bool,
        typer.Option("--init", help="Write a working problem file (default problem.py) and stop."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Run three steps of PROBLEM, say what was found, and stop."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the answer and the report's place only.")
    ] = False,
) -> None:
    """Race methods on your problem: equal tuning, paired seeds, one report that says who won.

    \b
    Examples:
      thalweg compare
      thalweg compare digits-mlp adamw lion salsa --seeds 20 -j 2
      thalweg compare my_problem.py 'lion[lr=1e-4]' torch.optim:AdamW --budget 20epochs
      thalweg compare completion-200 scaled_gradient alternating_minimization
      thalweg compare --data table.csv --target price --model mlp:64,64
      thalweg compare --init my_problem.py
      thalweg compare --check my_problem.py

    The same command again goes on where it was stopped. Ctrl-C once ends the race with a report of
    what is there, twice stops at once.

    Exit codes: 0 done, 2 bad input, 3 some runs failed, 130 interrupted.
    """
    words = words or []
    if init and check:
        raise stop("--init and --check cannot be given together")
    if init:
        return _init(words)
    if data is None and (model is not None or target is not None):
        raise stop(f"{'--model' if model is not None else '--target'} needs --data")
    if scheduler is not None and backend == "loky":
        raise stop(f"--scheduler needs --backend dask or ray, got {scheduler!r} with loky")

    from thalweg.cli.board import shown
    from thalweg.cli.streams import stdout_kept_clean

    with told_in_one_sentence(), stdout_kept_clean(as_json) as (out, progress):
        problem, methods = _input(words, data, model, target)
        if check:
            from thalweg.cli.checked import check_and_tell

            return check_and_tell(problem, methods, as_json=as_json, out=out)

        from thalweg.compare import compare as race_methods

        with shown(progress, quiet) as told:
            race = race_methods(
                problem,
                methods or None,
                budget=budget,
                trials=trials,
                adaptive=adaptive,
                seeds=seeds,
                reference=reference,
                margin=margin,
                directory=directory,
                jobs=jobs,
                backend=backend,
                scheduler=scheduler,
                exclusive=exclusive,
                inspect=inspect,
                single_file=single_file,
                on_event=told,
            )
        if as_json:
            from thalweg.cli.streams import as_strict_json

            print(as_strict_json(race.summary), file=out)
        else:
            print(_ending(race), file=out)
    raise typer.Exit(race.exit_code)


def _input(
    words: list[str], data: str | None, model: str | None, target: str | None
) -> tuple[Any, list[str]]:
    """The problem (None: the default) and the methods."""
    from thalweg.cli import words as parse
    from thalweg.compare import BadInput

    if data is None:
        return parse.split(words)
    from thalweg.data import table

    if words and parse.is_file(words[0]):
        raise BadInput(f"give either a problem ({words[0]}) or --data {data}, not both")
    try:
        problem = table(data, target, model or "mlp:64,64")
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise BadInput(_as_options(str(error))) from error
    return problem, words


def _as_options(message: str) -> str:
    """The arguments of `thalweg.data.table` under the names they have here."""
    names = {"source": "--data", "preset": "--model", "target": "--target"}
    first, space, rest = message.partition(" ")
    return names.get(first, first) + space + rest


def _init(words: list[str]) -> None:
    """Write the template."""
    if len(words) > 1:
        raise stop(f"--init takes one path, got {len(words)}: {' '.join(words)}")
    path = Path(words[0] if words else "problem.py")
    if path.suffix != ".py":
        raise stop(f"--init needs a path that ends in .py, got {str(path)!r}")
    text = TEMPLATE.read_text(encoding="utf-8").replace("FILE", str(path))
    try:
        with path.open("x", encoding="utf-8") as file:  # never over an existing file
            file.write(text)
    except FileExistsError:
        raise stop(f"{path} exists and is left as it is; name another path") from None
    except OSError as error:
        raise stop(f"cannot write {path}: {error.strerror}") from None
    typer.echo(f"{path} is written, and works as it is. Next:\n  thalweg compare --check {path}")


def _ending(race: Race) -> str:
    """The last lines: the answer, what went wrong, where the report is."""
    progress = race.summary["progress"]
    lines = [race.answer]
    if progress["interrupted"]:
        lines.append(f"Interrupted after {progress['done']} of {progress['total']} runs.")
    trouble = [f"{progress[end]} {end}" for end in ("diverged", "failed") if progress[end]]
    if trouble:
        lines.append(f"Of {progress['total']} runs, {' and '.join(trouble)}; the report says why.")
    ending = race.summary["ending"]
    if ending["products"]:
        lines.append(
            f"Where it ended: {ending['products']:,} Hessian-vector products, "
            f"{ending['seconds']:.1f} s; the report says what kind of point each method reached."
        )
    lines.append(f"Report: {race.report}" if race.report else f"Runs: {race.directory}")
    return "\n".join(lines)
