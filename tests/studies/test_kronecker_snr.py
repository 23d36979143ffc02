"""The study of Kronecker structure against the noise: its verdict, and a small run."""

from __future__ import annotations

import pytest

from thalweg.studies import find
from thalweg.studies.kronecker_snr import METHODS, RATIOS, verdict
from thalweg.studies.study import Row, Word


def rows(
    errors: tuple[float, float] = (0.5, 0.4),
    times: tuple[float, float] = (30.0, 80.0),
    draws: int = 20,
    spread: float = 0.02,
    classical: float = 1e-3,
) -> list[Row]:
    """Errors relative to the classical ones, and how many times as fast."""
    return [
        {
            "snr": snr,
            "draw": k,
            "method": name,
            "nmse": classical * error * (1 + spread * (-1) ** k * (name != "classical")),
            "seconds": 2.0 / faster * (1 + 0.01 * k / draws),
        }
        for snr in RATIOS["laptop"]
        for k in range(draws)
        for name, error, faster in zip(METHODS, (*errors, 1.0), (*times, 1.0), strict=True)
    ]


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(), Word.HOLDS),
        (rows(errors=(0.5, 1.5)), Word.FAILS),
        (rows(errors=(1.2, 0.4)), Word.FAILS),
        (rows(times=(2.0, 80.0)), Word.HOLDS),
        (rows(times=(0.9, 80.0)), Word.FAILS),
        (rows(times=(30.0, 19.0)), Word.FAILS),
        (rows(errors=(1.0, 0.4), spread=0.3), Word.INCONCLUSIVE),
        (rows(draws=5), Word.INCONCLUSIVE),
        (rows(classical=0.3), Word.INCONCLUSIVE),  # the baseline is broken: the control
    ],
)
def test_verdicts(made: list[Row], word: Word) -> None:
    assert verdict(made).word is word


def test_one_worse_noise_is_enough_to_fail() -> None:
    made = rows()
    for row in made:
        if row["snr"] == 30 and row["method"] == "svd":
            row["nmse"] = 2e-3
    assert verdict(made).word is Word.FAILS


def test_smoke_run_falls_with_the_noise_and_draws() -> None:
    study = find("kronecker-snr")
    found = [row() if callable(row) else row for row in study.run("smoke", 0)]
    assert len(found) == 2 * 3 * 3
    for name in METHODS:
        loud, quiet = (
            sum(float(row["nmse"]) for row in found if row["snr"] == snr and row["method"] == name)
            for snr in (10, 30)
        )
        assert quiet < loud
    assert study.verdict(found).word is Word.INCONCLUSIVE  # three draws tell nothing
    assert len(study.figure(found).axes) == 2
