"""``thalweg study``: a published claim, re-measured."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from thalweg.cli.errors import stop, told_in_one_sentence
from thalweg.cli.streams import as_strict_json, stdout_kept_clean


def study(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Studies; none lists them.")
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the studies.")] = False,
    scale: Annotated[
        str, typer.Option(help="smoke (seconds), laptop (up to a quarter of an hour) or full.")
    ] = "laptop",
    seed: Annotated[int, typer.Option(help="All randomness follows from it.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Each study gets a directory of its name in this one.")
    ] = Path("studies"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Re-measure a published claim; the rule of its verdict was written before the run.

    A command that was stopped goes on where it stopped when it is given again.

    \b
    Examples:
      thalweg study --list
      thalweg study sgd-saddles
      thalweg study rates lr-perceptron --scale smoke --out /tmp/studies
    """
    from thalweg.studies import find

    if list_them or not names:
        _print_list(as_json)
        return
    try:
        found = [find(name) for name in dict.fromkeys(names)]
    except ValueError as error:
        raise stop(str(error)) from None

    from thalweg.core import check
    from thalweg.studies.run import OtherRunError, run_study
    from thalweg.studies.study import SCALES

    try:
        wanted = check.choice("--scale", scale, SCALES)
        check.number("--seed", seed, ge=0, integer=True)
    except ValueError as error:
        raise stop(str(error)) from None
    results = []
    with stdout_kept_clean(as_json) as (answer, _), told_in_one_sentence():
        for one in found:
            directory = out / one.name
            progress = _progress(one.name)
            try:
                result = run_study(one, directory, scale=wanted, seed=seed, progress=progress)
            except (FileExistsError, NotADirectoryError, PermissionError) as error:
                raise stop(
                    f"--out must be a directory to write in, got {str(out)!r}: {error.strerror}"
                ) from None
            except OtherRunError as error:
                raise stop(str(error)) from None
            _progress_ends()
            results.append(result)
            if not as_json:
                print(as_text(result, directory), file=answer)
        if as_json:
            print(as_strict_json_list(results), file=answer)


def as_text(result: dict[str, Any], directory: Path) -> str:
    """The verdict line, its parts, the power, and where the figure is.

    Examples
    --------
    >>> verdict = {"word": "holds", "sentence": "It falls.", "parts": [], "power": ""}
    >>> claim = {"title": "Falling", "paper": "Newton 1687", "sentence": "Apples fall."}
    >>> result = {"study": "apples", "scale": "smoke", "claim": claim, "verdict": verdict}
    >>> print(as_text(result, Path("out")))
    apples: Falling
      claim    Apples fall. (Newton 1687)
      verdict  holds at smoke scale. It falls.
      figure   out/figure.png
    """
    claim, verdict = result["claim"], result["verdict"]
    lines = [
        f"{result['study']}: {claim['title']}",
        *_item("claim", f"{claim['sentence']} ({claim['paper']})"),
        *_item("verdict", f"{verdict['word']} at {result['scale']} scale. {verdict['sentence']}"),
    ]
    for part in verdict["parts"]:
        lines += _item("control" if part["control"] else "part", part_as_text(part))
    if verdict["power"]:
        lines += _item("power", verdict["power"])
    return "\n".join([*lines, *_item("figure", str(directory / "figure.png"))])


def part_as_text(part: dict[str, Any]) -> str:
    """One part: the word, the statement, the effect with its interval, the note.

    Examples
    --------
    >>> part = {"word": "holds", "statement": "x > 0", "effect": 1, "interval": [0.5, None]}
    >>> part_as_text({**part, "note": "10 seeds"})
    'holds: x > 0; 1 [0.5, not finite] (10 seeds)'
    """
    effect, interval = numbers_of(part)
    measured = f"{effect} {interval}".strip()
    text = f"{part['word']}: {part['statement']}" + (f"; {measured}" if measured else "")
    return text + (f" ({part['note']})" if part["note"] else "")


def numbers_of(part: dict[str, Any]) -> tuple[str, str]:
    """Effect and interval of a part to three digits; empty where there is none.

    Examples
    --------
    >>> numbers_of({"effect": 0.12345, "interval": [0.1, None]})
    ('0.123', '[0.1, not finite]')
    >>> numbers_of({"effect": None, "interval": None})
    ('', '')
    """
    effect, interval = part["effect"], part["interval"]
    shown = "" if effect is None else _number(effect)
    return shown, "" if interval is None else f"[{', '.join(map(_number, interval))}]"


def as_strict_json_list(results: list[dict[str, Any]]) -> str:
    """The results of all studies of the command as one JSON list."""
    return "[" + ",\n".join(as_strict_json(result) for result in results) + "]"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _item(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        width=100,
        initial_indent=f"  {name:<9}",
        subsequent_indent=" " * 11,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _print_list(as_json: bool) -> None:
    from dataclasses import asdict

    from thalweg.studies import discover

    studies = discover()
    if as_json:
        claims = [{"study": name, **asdict(one.claim)} for name, one in studies.items()]
        typer.echo(json.dumps(claims, indent=2))
        return
    width = max(map(len, studies), default=0)
    for name, one in studies.items():
        typer.echo(f"{name:<{width}}  {one.claim.title} ({one.claim.paper})")


def _progress(name: str) -> Any:
    """How many rows there are, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda rows: None
    return lambda rows: print(f"\r{name}: {rows} rows", end="", file=sys.stderr, flush=True)


def _progress_ends() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
