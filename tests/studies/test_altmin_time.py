"""The rule of the study of the time of a sweep, on rows made by hand."""

from __future__ import annotations

import pytest

from thalweg.studies import altmin_time as study
from thalweg.studies.study import Row, Word


def rows(
    *, entries: float = 1.0, entries_cg: float = 1.0, cg: float = 1.0, cholesky: float = 2.0,
    level: float = 20.0, wobble: float = 0.0,
) -> list[Row]:  # fmt: skip
    """Powers of the entries and the rank; at rank 1 CG takes `level` times as long as Cholesky."""
    made: list[Row] = []
    for seed in range(4):
        for inner, power, first in (("cholesky", cholesky, 1e-4), ("cg", cg, level * 1e-4)):

            def row(
                against: str, size: int, rank: int, seconds: float,
                s: int = seed, inner: str = inner,
            ) -> Row:  # fmt: skip
                noise = 1 + 0.01 * s + (wobble * (s % 2) if rank == 128 else 0.0)
                return {"against": against, "n": 9, "entries": size, "rank": rank, "inner": inner,
                        "seed": s, "seconds": seconds * noise, "iterations": rank}  # fmt: skip

            size_power = entries if inner == "cholesky" else entries_cg
            made += [row("entries", m, 16, 1e-7 * m**size_power) for m in (1000, 2000, 4000)]
            made += [row("rank", 9, k, first * k**power) for k in (8, 16, 32, 64, 128)]
    return made


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, Word.HOLDS),
        ({"entries": 1.3}, Word.FAILS),
        ({"entries_cg": 1.3}, Word.FAILS),
        ({"cg": 1.5, "level": 1.0}, Word.FAILS),
        ({"cholesky": 1.5, "level": 1.0}, Word.FAILS),
        ({"level": 200.0}, Word.FAILS),  # does not pay at any rank
        ({"wobble": 2.0, "level": 1.0}, Word.INCONCLUSIVE),
    ],
)
def test_the_word_follows_the_times(changed: dict[str, float], word: Word) -> None:
    assert study.verdict(rows(**changed)).word is word


def test_slopes_are_the_powers_and_the_sentence_says_where_it_pays() -> None:
    made = rows(cg=1.2, level=20.0)
    assert study.slopes(made, "rank", "cg") == pytest.approx([1.2] * 4)
    assert study.slopes(made, "rank", "cholesky") == pytest.approx([2.0] * 4)
    # 20 k^1.2 < k^2 from k = 20^(1 / .8) = 42 on.
    assert "pays from rank 64" in study.verdict(made).sentence
    assert "does not pay" in study.verdict(rows(level=200.0)).sentence


def test_only_the_largest_ranks_count() -> None:
    made = rows()
    for row in made:
        if row["against"] == "rank" and int(row["rank"]) < 32:
            row["seconds"] = 1.0
    assert study.slopes(made, "rank", "cg") == pytest.approx([1.0] * 4)


def test_a_sweep_is_timed_and_its_iterations_counted() -> None:
    direct = study.timed("rank", 60, 0.5, 4, "cholesky", 0)
    inexact = study.timed("rank", 60, 0.5, 4, "cg", 0)
    assert direct["iterations"] == 0 < int(inexact["iterations"])
    assert direct["entries"] == inexact["entries"]
    assert float(inexact["seconds"]) > 0


def test_smoke_run_has_all_rows_and_draws() -> None:
    made = [make() for make in study.run("smoke", 0)]  # type: ignore[operator]
    sizes = len(study.SIZES["smoke"]) + len(study.RANKS["smoke"])
    assert len(made) == 1 + study.SEEDS["smoke"] * 2 * sizes
    study.verdict(made)
    assert len(study.figure(made).axes) == 3
