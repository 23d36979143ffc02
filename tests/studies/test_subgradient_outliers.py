"""The rule of the study of the sub-gradient method, on rows made by hand."""

from __future__ import annotations

import pytest

from thalweg.studies import subgradient_outliers as study
from thalweg.studies.study import Row, Word


def rows(
    *, exact: float = 1e-10, full: float = 1.0, power: float = 0.8, rate: float = 1.0,
    squares: float = 3.0, size: float = 1e-4,
) -> list[Row]:  # fmt: skip
    """Errors of r' = 10 near `size`; `full` and `rate` are what r' = d has relative to it."""
    made: list[Row] = []
    for s in range(6):
        wide = size * (1 + 0.01 * s)

        def row(
            error: float, m: int = 600, columns: int = 10, alpha: float = 1e-3, s: int = s
        ) -> Row:
            return {"method": "SubGM", "seed": s, "m": m, "columns": columns, "alpha": alpha,
                    "error": error, "reason": "TOLERANCE"}  # fmt: skip

        made += [
            row(exact * (1 + 0.01 * s), columns=2),
            row(wide),
            row(full * wide * (1 + 0.001 * s), columns=20),
            row(wide * 10**power, alpha=1e-2),
            row(wide / 10**power, alpha=1e-4),
            row(0.5, m=100),
            row(0.5, m=100, columns=20),
            row(1e-3, m=160),
            row(1e-3 if rate == 1 else 0.5, m=160, columns=20),
            {"method": "least squares", "seed": s, "error": squares + 0.1 * s},
        ]
    return made


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, Word.HOLDS),
        ({"full": 2.0}, Word.FAILS),
        ({"exact": 0.5e-4}, Word.FAILS),
        ({"power": 0.01}, Word.FAILS),
        ({"rate": 0.0}, Word.FAILS),
        ({"squares": 0.1}, Word.INCONCLUSIVE),
        ({"size": 0.1}, Word.INCONCLUSIVE),
    ],
)
def test_the_word_follows_the_errors(changed: dict[str, float], word: Word) -> None:
    assert study.verdict(rows(**changed)).word is word


def test_the_power_is_the_slope_of_the_logarithms() -> None:
    assert study.powers(rows(power=0.7)) == pytest.approx([0.7] * 6)


def test_runs_and_figure() -> None:
    drawn = study.figure(rows())
    assert len(drawn.axes) == 3
    made = next(iter(study.run("smoke", 0)))
    assert callable(made)
    row = made()
    assert (row["m"], row["columns"]) == (600, 2)
    assert float(row["error"]) < 1e-5


@pytest.mark.slow
def test_the_smoke_run_points_the_right_way() -> None:
    made = [row() for row in study.run("smoke", 0)]
    verdict = study.verdict(made)
    assert all(part.word is not Word.FAILS for part in verdict.parts)
