"""The study of the spectral initializers: its verdict on made-up rows, and a small run."""

from __future__ import annotations

import pytest

from thalweg.studies import find
from thalweg.studies.spectral_initializers import ORDER, RATIOS, correlations, verdict
from thalweg.studies.study import Row, Word


def rows(means=(0.5, 0.5, 0.6, 0.8, 0.9), wobble=0.001) -> list[Row]:
    made: list[Row] = []
    for ratio in RATIOS:
        for k in range(6):
            for i, (kind, mean) in enumerate(zip(ORDER, means, strict=True)):
                value = mean + wobble * ((k * (i + 1)) % 3 - 1)
                made.append({"ratio": ratio, "signal": k, "start": kind, "correlation": value})
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(), Word.HOLDS),
        (rows((0.503, 0.5, 0.6, 0.8, 0.9)), Word.HOLDS),  # as good, within the slack
        (rows((0.52, 0.5, 0.6, 0.8, 0.9)), Word.FAILS),
        (rows((0.5, 0.5, 0.6, 0.9, 0.8)), Word.FAILS),
        (rows((0.5, 0.5, 0.6, 0.8, 0.8)), Word.INCONCLUSIVE),
        (rows(wobble=0.5), Word.INCONCLUSIVE),
    ],
)
def test_verdicts(made: list[Row], word: Word) -> None:
    assert verdict(made).word is word


def test_smoke_run_has_the_order_in_the_mean_and_draws() -> None:
    study = find("spectral-initializers")
    found = list(study.run("smoke", 0))
    assert len(found) == 4 * len(RATIOS) * len(ORDER)
    for ratio in RATIOS:
        means = [correlations(found, ratio, kind).mean() for kind in ("plain", "mm", "optimal")]
        assert means == sorted(means)
    assert all(part.word is not Word.FAILS for part in study.verdict(found).parts)
    assert len(study.figure(found).axes) == 1
