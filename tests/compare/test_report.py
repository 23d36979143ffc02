"""The report of a race: what is computed, what is written, and that names stay text."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.compare.report import (
    embedded_json,
    figures,
    load_summary,
    tables,
    text,
    verdicts,
    write,
)


def _load_fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake", Path(__file__).with_name("fake.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _load_fake()


class Page(HTMLParser):
    """Elements with their attributes, the text, and the scripts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        else:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(summary: dict[str, Any], directory: Path, **how: Any) -> Page:
    return Page(write(summary, directory, **how).read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------- files


def test_the_page_has_plotly_beside_it(tmp_path: Path) -> None:
    page = write(fake.race(), tmp_path)
    assert page == tmp_path / "report" / "index.html"
    assert sorted(p.name for p in page.parent.iterdir()) == ["index.html", "plotly.min.js"]


def test_a_single_file_is_alone_and_links_to_nothing_beside_it(tmp_path: Path) -> None:
    page = write(fake.race(), tmp_path, single_file=True)
    assert [p.name for p in page.parent.iterdir()] == ["index.html"]
    parsed = Page(page.read_text(encoding="utf-8"))
    assert len(parsed.scripts) == 3
    assert not any("src" in script for script in parsed.all("script"))
    assert not any((link.get("href") or "").startswith("..") for link in parsed.all("a"))


def test_writing_again_replaces_the_page(tmp_path: Path) -> None:
    write(fake.race(), tmp_path)
    page = page_of(fake.race(("adamw", "lion")), tmp_path)
    assert "prodigy" not in " ".join(page.words)


def test_load_summary_reads_what_was_written(tmp_path: Path) -> None:
    summary = fake.race(("adamw", "lion"), seeds=3)
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert load_summary(tmp_path) == json.loads(json.dumps(summary))
    assert load_summary(tmp_path / "summary.json")["title"] == summary["title"]


def test_other_schemas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must have the schema 'thalweg\.race/1', got 'other/2'"):
        write({"schema": "other/2"}, tmp_path)
    (tmp_path / "summary.json").write_text("[1, 2", encoding="utf-8")
    with pytest.raises(ValueError, match="must be JSON"):
        load_summary(tmp_path)
    (tmp_path / "summary.json").write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(ValueError, match="got 'list'"):
        load_summary(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_summary(tmp_path / "nowhere")


# ---------------------------------------------------------------------------------- safety


@pytest.mark.parametrize("single_file", [False, True])
def test_the_policy_admits_exactly_the_scripts_of_the_page(
    tmp_path: Path, single_file: bool
) -> None:
    page = page_of(fake.race(fake.HOSTILE), tmp_path, single_file=single_file)
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "script-src 'self' file: 'sha256-" in policy and "unsafe-eval" not in policy
    scripts = [script for script in page.scripts if script and not script.startswith("{")]
    hashes = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts}
    assert hashes == set(re.findall("'sha256-([^']+)'", policy))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    page = page_of(fake.race(fake.HOSTILE), tmp_path)
    assert not page.all("img") and not page.all("b")
    assert len(page.all("script")) == 3
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    shown = "".join(page.words)
    for name in fake.HOSTILE:
        assert name in shown
    (data,) = [json.loads(script) for script in page.scripts if script.startswith("{")]
    assert tuple(method["name"] for method in data["methods"]) == fake.HOSTILE


def test_the_page_asks_for_nothing_but_plotly(tmp_path: Path) -> None:
    page = page_of(fake.race(), tmp_path)
    asked = [a[k] or "" for _, a in page.elements for k in ("src", "href", "action") if k in a]
    local = ("#", "data:", "plotly.min.js", "../results.csv")
    assert asked and all(address.startswith(local) for address in asked)
    assert page.all("link") and not [s for s in page.all("style") if "@import" in str(s)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(json_values)
def test_embedded_json_is_the_same_value_without_markup(value: Any) -> None:
    written = embedded_json(value)
    assert json.loads(written) == value
    assert not set(written) & set("<>&")


# ------------------------------------------------------------------------------ every shape


@pytest.mark.parametrize(
    "how",
    [
        {"rate": True},
        {"interrupted": True},
        {"seeds": 1},
        {"names": ("adamw",)},
        {"names": [f"method {i}" for i in range(20)], "points": 5},
        {"trials": 0},
    ],
    ids=str,
)
def test_every_shape_of_race_makes_a_page(tmp_path: Path, how: dict[str, Any]) -> None:
    page = page_of(fake.race(**how), tmp_path)
    assert {a["id"] for a in page.all("section")} == {
        "verdicts", "curves", "finals", "time", "tuning", "ending", "cost", "failures", "reproduce"
    }  # fmt: skip


def test_a_race_without_any_run_makes_a_page(tmp_path: Path) -> None:
    summary = fake.race()
    summary["verdicts"], summary["ranking"], summary["failures"] = [], [], []
    summary["target"]["value"] = None
    for method in summary["methods"]:
        method |= {"runs": [], "default_runs": [], "trials": [], "tuned": {}, "edge": []}
        method["cost"] = dict.fromkeys(method["cost"])
        method["tuning_curve"] = {"k": [], "median": [], "expected": []}
    page = page_of(summary, tmp_path)
    assert "There are no verdicts yet" in " ".join(page.words)


def test_what_the_page_says_about_its_race(tmp_path: Path) -> None:
    summary = fake.race(interrupted=True)
    words = " ".join(" ".join(page_of(summary, tmp_path).words).split())
    assert summary["question"] in words
    assert f"{summary['progress']['done']} of 192 runs are in this page" in words
    assert "best lr = 0.97 lies at the highest end of the range" in words
    assert "parameter-free: nothing was tuned" in words
    assert "End points are inspected when the race is complete." in words
    assert "with 15 pairs" not in words  # no verdicts were given
    for failure in summary["failures"]:
        assert failure["command"] in words


def test_too_few_seeds_are_called_that(tmp_path: Path) -> None:
    words = " ".join(page_of(fake.race(("adamw", "lion"), seeds=3), tmp_path).words)
    assert "so with 3 the word cannot appear here" in words


def test_certificates_get_a_card_and_lines_a_table(tmp_path: Path) -> None:
    summary = fake.certified(fake.race(("adamw", "<b>lion</b>", "sgd")))
    page = page_of(summary, tmp_path)
    words = " ".join(" ".join(page.words).split())
    assert page.words.count("STRICT_SADDLE") == 2 and "[−0.0123, −0.01]" in words
    assert "Not inspected: the loss must be deterministic" in words
    assert "Inspecting 3 end points took 240 Hessian-vector products and 1.5 s." in words
    assert "rests on <i>nothing</i>" in page.words
    assert ("li", {"class": "card"}) in page.elements
    assert not [tag for tag, _ in page.elements if tag in ("b", "i")]
    assert words.count("0.25") >= 3  # a barrier for each pair


def test_an_uninspected_race_says_how_to_go_on(tmp_path: Path) -> None:
    summary = fake.race(("adamw", "lion"))
    summary["ending"] = {"inspected": False, "lines": [], "products": 0, "seconds": 0.0}
    words = " ".join(" ".join(page_of(summary, tmp_path).words).split())
    assert "The same command with --inspect does it" in words


# ------------------------------------------------------------------------------ mathematics


def run(values: list[float | None], status: str = "done", seconds: float = 1.0) -> dict[str, Any]:
    n = len(values)
    steps = [10 * i for i in range(n)]
    return {
        "id": "x",
        "seed": 1,
        "status": status,
        "reason": None,
        "final": {"loss": values[-1] if values else None},
        "test": None,
        "curve": {
            "step": steps,
            "evaluations": [2 * step for step in steps],
            "seconds": [seconds * i for i in range(n)],
            "train": values,
            "validation": values,
        },
    }


def test_median_curve_by_hand() -> None:
    runs = [run([4.0, 2.0, 1.0]), run([6.0, 3.0, 2.0]), run([8.0, 5.0], status="diverged")]
    curve = figures.median_curve(runs, "step", "validation", "min")
    assert curve["x"] == [0, 10, 20]
    assert curve["median"] == [6.0, 3.0, 2.0]  # the diverged run is the worst of three at step 20
    assert curve["low"] == [4.0, 2.0, 1.0]
    assert curve["high"] == [8.0, 5.0, None]


def test_a_finished_run_keeps_its_value_and_others_interpolate() -> None:
    runs = [run([4.0, 2.0], seconds=1.0), run([4.0, 0.0], seconds=2.0)]
    curve = figures.median_curve(runs, "seconds", "validation", "min")
    assert curve["x"][0] == 0 and curve["x"][-1] == 2.0
    for x, value in zip(curve["x"], curve["median"], strict=True):
        assert value == pytest.approx((max(4 - 2 * x, 2) + (4 - 2 * x)) / 2, abs=1e-5)


def test_half_of_the_seeds_missing_is_an_infinite_median() -> None:
    runs = [run([4.0, 2.0]), run([4.0], status="diverged")]
    assert figures.median_curve(runs, "step", "validation", "min")["median"] == [4.0, None]
    runs[1]["curve"]["validation"] = [None]
    assert figures.median_curve(runs, "step", "validation", "max")["median"] == [None, None]


curves = st.lists(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), min_size=1, max_size=7)


@settings(deadline=None)
@given(curves, st.randoms(use_true_random=False))
def test_medians_do_not_depend_on_the_order_of_seeds(values: list[Any], random: Any) -> None:
    runs = [run(v, "done" if i % 3 else "diverged") for i, v in enumerate(values)]
    shuffled = random.sample(runs, len(runs))
    for axis in figures.AXES:
        assert figures.median_curve(runs, axis, "train", "min") == figures.median_curve(
            shuffled, axis, "train", "min"
        )


@settings(deadline=None)
@given(curves)
def test_maximizing_is_minimizing_the_negative(values: list[Any]) -> None:
    runs = [run(v, "done" if i % 3 else "diverged") for i, v in enumerate(values)]
    turned = [run([-x for x in v], r["status"]) for v, r in zip(values, runs, strict=True)]
    low = figures.median_curve(runs, "step", "validation", "min")
    high = figures.median_curve(turned, "step", "validation", "max")
    assert low["median"] == [None if v is None else -v for v in high["median"]]
    assert low["low"] == [None if v is None else -v for v in high["high"]]


def test_time_to_target_by_hand() -> None:
    runs = [run([4.0, 2.0, 1.0, 3.0]), run([4.0, None, 2.0]), run([9.0, 8.0]), run([])]
    assert figures.time_to_target(runs, "step", 2.0, "min") == [10, 20, None, None]
    assert figures.time_to_target(runs, "evaluations", 2.0, "min") == [20, 40, None, None]
    assert figures.time_to_target(runs, "step", 8.5, "max") == [None, None, 0, None]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=9), st.floats(0.01, 100))
def test_an_easier_target_is_never_reached_later(values: list[Any], target: float) -> None:
    (hard,) = figures.time_to_target([run(values)], "step", target, "min")
    (easy,) = figures.time_to_target([run(values)], "step", 1.5 * target, "min")
    assert hard is None or (easy is not None and easy <= hard)


def test_good_basin_by_hand() -> None:
    pairs = [(1e-3, 2.0), (1e-2, 1.05), (3e-2, 1.0), (1e-1, 1.09), (1.0, None)]
    trials = [{"values": {"lr": lr}, "validation": v, "status": "done"} for lr, v in pairs]
    method = {"trials": trials}
    basin = figures.good_basin(method, "lr", "min", "ratio", 0.01)
    assert basin is not None
    assert (basin["low"], basin["high"], basin["good"], basin["trials"]) == (1e-2, 1e-1, 3, 5)
    assert basin["factor"] == pytest.approx(10)
    assert figures.good_basin(method, "momentum", "min", "ratio", 0.01) is None
    accuracies = [
        {"values": {"lr": x}, "validation": v} for x, v in ((1, 0.9), (2, 0.895), (3, 0.8))
    ]
    basin = figures.good_basin({"trials": accuracies}, "lr", "max", "difference", 0.005)
    assert basin is not None and (basin["low"], basin["high"]) == (1, 2)


def test_median_ranks_cover_what_they_say() -> None:
    draws = np.sort(np.random.default_rng(0).normal(size=(20_000, 9)), axis=1)
    low, high, coverage = figures.median_ranks(9)
    inside = np.mean((draws[:, low] <= 0) & (draws[:, high] >= 0))
    assert coverage >= 0.95
    assert inside == pytest.approx(coverage, abs=4 * math.sqrt(coverage * (1 - coverage) / 20_000))


# ------------------------------------------------------------------------------------ tables


def test_the_matrix_says_the_opposite_across_its_diagonal() -> None:
    rows = verdicts.matrix(fake.race(diverged=False))
    opposite = {"better": "worse", "worse": "better", "same": "same", "cannot tell": "cannot tell"}
    assert len(rows) == 6
    for i, row in enumerate(rows):
        for j, cell in enumerate(row["cells"]):
            assert (cell is None) == (i == j)
            if cell is not None:
                assert rows[j]["cells"][i]["word"] == opposite[cell["word"]]


def test_an_effect_reads_the_same_from_both_sides() -> None:
    summary = fake.race(("adamw", "lion"), diverged=False)
    (verdict,) = summary["verdicts"]
    verdict |= {"mean": math.log(0.8), "low": math.log(0.75), "high": math.log(0.85)}
    rows = {row["name"]: row["cells"] for row in verdicts.matrix(summary)}
    cells = [cell for row in ("adamw", "lion") for cell in rows[row] if cell is not None]
    assert [cell["effect"] for cell in cells] == ["−20.0\u202f%", "+25.0\u202f%"]
    assert cells[0]["interval"] == "[−25.0, −15.0]\u202f%"
    assert cells[1]["interval"] == "[+17.6, +33.3]\u202f%"


def test_rates_are_compared_in_points() -> None:
    summary = fake.race(("adamw", "lion"), rate=True, diverged=False)
    (verdict,) = summary["verdicts"]
    verdict |= {"mean": 0.013, "low": 0.01, "high": 0.016}
    (pair,) = verdicts.pairs(summary)
    assert (pair["effect"], pair["interval"]) == ("+1.3 points", "[+1.0, +1.6] points")
    assert verdicts.margin(summary) == "0.5 points"


def test_misses_are_counted_in_the_standings_and_the_pairs() -> None:
    summary = fake.race()
    lion = next(row for row in tables.standings(summary) if row["name"] == "lion")
    assert (lion["done"], lion["runs"], lion["worst"] == "∞") == (8, 10, False)
    assert lion["interval"].endswith("∞]")
    against = next(p for p in verdicts.pairs(summary) if "lion" in (p["a"], p["b"]))
    assert against["effect"] == "a run missed" and against["drawn"] is None


def test_failures_are_grouped_and_none_is_lost() -> None:
    summary = fake.race()
    groups = tables.failures(summary)
    ids = sorted(failure["id"] for group in groups for failure in group["members"])
    assert ids == sorted(failure["id"] for failure in summary["failures"])
    assert groups[0]["count"] == max(group["count"] for group in groups) > 1


def test_the_embedded_csv_holds_every_measured_run(tmp_path: Path) -> None:
    summary = fake.race(fake.HOSTILE)
    page = page_of(summary, tmp_path)
    (href,) = [a["href"] or "" for a in page.all("a") if a.get("download")]
    written = base64.b64decode(href.split("base64,")[1]).decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(written)))
    assert len(rows) == 2 * 6 * 10
    assert {row["method"] for row in rows} == set(fake.HOSTILE)
    first = summary["methods"][0]["runs"][0]
    assert float(rows[0]["loss"]) == first["final"]["loss"]


def test_the_page_and_python_reach_the_default_target_alike() -> None:
    summary = fake.race()
    rows = tables.targets(summary)
    medians = [row["median"] for row in rows]
    assert medians == sorted(medians) and rows[0]["ratio"] == "×1.00"
    summary["target"]["value"] = None
    assert tables.targets(summary) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.5"),
        (1e-9, "1e-9"),
        (-1e-9, "−1e-9"),
        (math.nan, "–"),
        (12345.678, "12,346"),
        (True, "True"),
    ],
)
def test_numbers(value: Any, shown: str) -> None:
    assert text.number(value) == shown


@given(st.floats(1e-3, 3))
def test_effects_carry_their_sign(mean: float) -> None:
    larger, smaller = text.effect(mean, "ratio"), text.effect(-mean, "ratio")
    assert larger[0] == ("×" if mean > math.log(2) else "+")
    assert smaller[0] == ("×" if mean > math.log(2) else "−")
    assert text.effect(mean, "difference")[0] == "+"
    assert text.effect(-mean, "difference", points=True)[0] == "−"
