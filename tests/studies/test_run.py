"""A run of a study: what it writes, and how it goes on after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from thalweg.studies.run import OtherRunError, as_json, code_of, run_study
from thalweg.studies.study import (
    Claim,
    Part,
    Row,
    Scale,
    Study,
    Verdict,
    Word,
    column,
)

CLAIM = Claim("Squares", "Nobody 2020", 2020, "Squares grow.", "upward", "a fall")


class Killed(Exception):
    """As if the process had ended here."""


def rows_of(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
    for k in range(4):
        yield {"k": np.int64(k), "square": np.float32(k * k), "odd": np.bool_(k % 2)}


def verdict(rows: Sequence[Row]) -> Verdict:
    last = float(column(rows, "square")[-1])
    word = Word.HOLDS if last > 1 else Word.FAILS
    return Verdict.all_of([Part("last > 1", word, last, None)], sentence="Up.", pairs=5)


def figure(rows: Sequence[Row]) -> Figure:
    drawn = Figure(figsize=(2, 2))
    drawn.subplots().plot(column(rows, "k"), column(rows, "square"))
    return drawn


def study(run: Any = rows_of, name: str = "squares", source: str = __file__) -> Study:
    return Study(name, CLAIM, run, verdict, figure, source)


def test_what_a_run_writes(tmp_path: Path) -> None:
    result = run_study(study(), tmp_path / "a" / "squares", scale="smoke", seed=3)
    directory = tmp_path / "a" / "squares"
    names = {path.name for path in directory.iterdir()}
    assert names == {"rows.jsonl", "result.json", "figure.png", "figure.svg"}
    assert json.loads((directory / "result.json").read_text()) == result
    lines = (directory / "rows.jsonl").read_text().splitlines()
    assert json.loads(lines[3]) == {"k": 3, "square": 9.0, "odd": True}
    assert (result["study"], result["scale"], result["seed"]) == ("squares", "smoke", 3)
    assert (result["rows"], result["claim"]["year"]) == (4, 2020)
    assert result["versions"]["torch"] == version("torch")
    assert result["verdict"]["word"] == "holds"
    assert result["verdict"]["parts"][0]["effect"] == 9.0
    assert "with 5 pairs" in result["verdict"]["power"]
    assert (directory / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (directory / "figure.svg").read_text()


@pytest.mark.parametrize(("pairs", "said"), [(None, ""), (1, ""), (2, "with 2 pairs")])
def test_power_is_told_where_there_is_a_spread(pairs: int | None, said: str) -> None:
    part = Part("last > 1", Word.HOLDS, 2.0, None)
    power = as_json(Verdict.all_of([part], sentence="Up.", pairs=pairs))["power"]
    assert power.startswith(said)
    assert bool(power) == bool(said)


def test_figures_are_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_study(study(), tmp_path / name, scale="smoke")
    for file in ("figure.png", "figure.svg", "rows.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = run_study(study(), tmp_path, scale="smoke")

    def never(scale: Scale, seed: int) -> Iterator[Row]:
        raise AssertionError("ran again")
        yield {}

    assert run_study(study(never), tmp_path, scale="smoke") == first


def test_a_finished_run_is_drawn_anew(tmp_path: Path) -> None:
    run_study(study(), tmp_path, scale="smoke")
    drawn = (tmp_path / "figure.png").read_bytes()
    (tmp_path / "figure.png").write_bytes(b"of an earlier text")
    run_study(study(), tmp_path, scale="smoke")
    assert (tmp_path / "figure.png").read_bytes() == drawn


TEXT = '''"""A study."""

LIMIT = 2


def verdict(rows):
    """Holds above the limit."""
    return rows > LIMIT


def figure(rows):
    """The rows."""
    return rows
'''


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ("A study.", "A study\nof two lines.", False),
        ("Holds above", "Holds, says the rule, above", False),
        ('    """Holds above the limit."""\n', "", False),
        ("The rows.", "The rows, drawn.", False),
        ("return rows\n", "axes = rows\n    return axes\n", False),
        ("\n\n\n", "\n\n", False),
        ("LIMIT = 2", "LIMIT = 3", True),
        ("rows > LIMIT", "rows < LIMIT", True),
        ("def figure", "def picture", True),
        ('    """Holds above the limit."""\n', '    rows = """not said of it"""\n', True),
    ],
)
def test_what_counts_as_another_text(tmp_path: Path, before: str, after: str, counts: bool) -> None:
    codes = []
    for name, text in (("one.py", TEXT), ("other.py", TEXT.replace(before, after))):
        (tmp_path / name).write_text(text)
        codes.append(code_of(study(source=str(tmp_path / name))))
    assert before in TEXT
    assert (codes[0] != codes[1]) is counts


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_killed_run_goes_on_with_the_rows_it_has(tmp_path: Path, cut: int) -> None:
    def killed(scale: Scale, seed: int) -> Iterator[Row | Callable[[], Row]]:
        for k, row in enumerate(rows_of(scale, seed)):
            if k == 2:
                raise Killed
            yield row

    with pytest.raises(Killed):
        run_study(study(killed), tmp_path / "a", scale="smoke")
    path = tmp_path / "a" / "rows.jsonl"
    assert json.loads((tmp_path / "a" / "result.json").read_text())["verdict"] is None
    path.write_bytes(path.read_bytes()[: -cut or None])  # the kill came while a row was written
    result = run_study(study(), tmp_path / "a", scale="smoke")
    assert result["rows_kept_from_an_earlier_run"] == (2 if cut == 0 else 1)
    run_study(study(), tmp_path / "b", scale="smoke")
    assert path.read_bytes() == (tmp_path / "b" / "rows.jsonl").read_bytes()


def test_what_is_kept_is_not_computed_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def run(last: int) -> Any:
        def make(k: int) -> Row:
            if k == last:
                raise Killed
            calls.append(k)
            return {"k": k, "square": k * k}

        return lambda scale, seed: (lambda k=k: make(k) for k in range(4))

    with pytest.raises(Killed):
        run_study(study(run(2)), tmp_path, scale="smoke")
    run_study(study(run(-1)), tmp_path, scale="smoke")
    assert calls == [0, 1, 2, 3]


def test_another_run_is_not_touched(tmp_path: Path) -> None:
    run_study(study(), tmp_path, scale="smoke", seed=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other_code = tmp_path.parent / "other.py"
    other_code.write_text("changed")
    with pytest.raises(OtherRunError, match="another scale, 'smoke' instead of 'laptop'"):
        run_study(study(), tmp_path, scale="laptop")
    with pytest.raises(OtherRunError, match="another seed, 0 instead of 1"):
        run_study(study(), tmp_path, scale="smoke", seed=1)
    with pytest.raises(OtherRunError, match="another study"):
        run_study(study(name="cubes"), tmp_path, scale="smoke")
    with pytest.raises(OtherRunError, match="another version of the study"):
        run_study(study(source=str(other_code)), tmp_path, scale="smoke")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rows_of_something_else_are_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(OtherRunError, match="not the run of a study"):
        run_study(study(), tmp_path, scale="smoke")
    assert (tmp_path / "rows.jsonl").read_text() == '{"mine": 1}\n'


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scale must be one of .*did you mean 'laptop'"):
        run_study(study(), tmp_path, scale="laptopp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        run_study(study(), tmp_path, scale="smoke", seed=-1)


def test_threads_and_random_numbers_of_the_caller_stay(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    def run(scale: Scale, seed: int) -> Iterator[Row]:
        seen.append((torch.get_num_threads(), float(torch.rand(()))))
        yield {"k": 0, "square": 0}

    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    assert torch.rand(1) == expected[0]
    run_study(study(run), tmp_path / "a", scale="smoke", seed=2)
    assert torch.rand(1) == expected[1]
    run_study(study(run), tmp_path / "b", scale="smoke", seed=2)
    assert torch.get_num_threads() == threads
    assert seen[0] == seen[1]
    assert seen[0][0] == 1


def test_json_has_no_infinity() -> None:
    part = Part("x", Word.INCONCLUSIVE, float("inf"), (float("nan"), 1.0), control=False)
    (shown,) = as_json(Verdict.all_of([part], sentence="So."))["parts"]
    assert (shown["effect"], shown["interval"]) == (None, [None, 1.0])
