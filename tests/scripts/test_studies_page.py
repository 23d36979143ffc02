"""The page of the studies: written from results, and the one in the repository is up to date."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from thalweg.studies import discover
from thalweg.studies.run import code_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("studies_page", ROOT / "scripts/studies_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_run(directory: Path, name: str, *, finished: bool = True, **changes: Any) -> None:
    part = {"statement": "|x| > 0", "word": "holds", "effect": 0.12345, "interval": [0.1, None]}
    control = {"statement": "no edge", "word": "holds", "effect": None, "interval": None}
    verdict = {
        "word": "holds",
        "sentence": "It rises.",
        "parts": [
            {**part, "note": "10 seeds", "control": False},
            {**control, "note": "", "control": True},
        ],
        "power": "with 10 pairs, this",
    }
    claim = {"title": f"Title of {name}", "paper": "Nobody 2020", "sentence": "It rises."}
    result = {
        "study": name,
        "scale": "laptop",
        "seed": 0,
        "claim": {**claim, "expected": "upward", "refuted_by": "a fall"},
        "versions": {"thalweg": "1.2", "torch": "3.4"},
        "rows": 1234,
        "verdict": verdict if finished else None,
        **changes,
    }
    run = directory / name
    run.mkdir(parents=True)
    (run / "result.json").write_text(json.dumps(result))
    (run / "figure.png").write_bytes(b"png of " + name.encode())


def test_a_page_from_runs(pages: ModuleType, tmp_path: Path, capsys: Any) -> None:
    a_run(tmp_path / "runs", "first-one")
    a_run(tmp_path / "runs", "second", scale="full", seed=3)
    a_run(tmp_path / "runs", "killed", finished=False)
    pages.main([str(tmp_path / "runs")], tmp_path / "docs")
    text = (tmp_path / "docs/studies.md").read_text()
    assert "| [first-one](#first-one) | Title of first-one | holds |" in text
    assert '## <a id="first-one"></a>Title of first-one' in text
    assert "**Claim.** It rises. (Nobody 2020)" in text
    assert "**Verdict: holds** (laptop scale, seed 0). It rises." in text
    assert "![Title of first-one](images/studies/first-one.png)" in text
    assert r"| \|x\| > 0 (10 seeds) | holds | 0.123 | [0.1, not finite] |" in text
    assert "| control: no edge | holds |  |  |" in text
    assert "\nthalweg study first-one\n" in text
    assert "\nthalweg study second --scale full --seed 3\n" in text
    assert "1,234 rows; thalweg 1.2, torch 3.4." in text
    assert "killed" not in text
    assert "killed is not finished" in capsys.readouterr().err
    images = tmp_path / "docs/images/studies"
    assert (images / "second.png").read_bytes() == b"png of second"
    assert not (images / "killed.png").exists()


def test_what_was_not_run_again_stays(pages: ModuleType, tmp_path: Path) -> None:
    a_run(tmp_path / "one", "first-one")
    pages.main([str(tmp_path / "one")], tmp_path / "docs")
    a_run(tmp_path / "two", "second")
    pages.main([str(tmp_path / "two")], tmp_path / "docs")
    text = (tmp_path / "docs/studies.md").read_text()
    assert text.index("Title of first-one") < text.index("Title of second")
    (tmp_path / "docs/images/studies/other.json").write_text('{"schema": "another record"}')
    pages.main([], tmp_path / "docs")
    assert (tmp_path / "docs/studies.md").read_text() == text


def test_a_record_of_an_earlier_text_is_named(pages: ModuleType, tmp_path: Path) -> None:
    study = discover()["lr-perceptron"]
    for code, earlier in ((code_of(study), False), ("0123456789abcdef", True)):
        a_run(tmp_path / code, study.name, code=code)
        pages.main([str(tmp_path / code)], tmp_path / "docs")
        assert (pages.EARLIER in (tmp_path / "docs/studies.md").read_text()) is earlier


def test_no_runs_at_all(pages: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no runs"):
        pages.main([str(tmp_path)], tmp_path / "docs")
    with pytest.raises(SystemExit, match="has no result of a study"):
        pages.main([], tmp_path / "docs")


def test_the_page_is_that_of_the_results_beside_it(pages: ModuleType) -> None:
    images = ROOT / "docs/images/studies"
    results = pages.results_in(images)
    assert (ROOT / "docs/studies.md").read_text(encoding="utf-8") == pages.page(results)
    assert results
    for result in results:
        assert result["study"] in discover()
        assert (images / f"{result['study']}.png").exists()


#: Records that are not run again yet with the text their study has now; the page says so too.
OF_AN_EARLIER_TEXT: set[str] = set()


def test_the_other_records_are_of_the_text_the_study_has_now(pages: ModuleType) -> None:
    """Fails where a study was changed: run it again, or name it above and write the page anew."""
    results = pages.results_in(ROOT / "docs/images/studies")
    now = {name: code_of(study) for name, study in discover().items()}
    earlier = {r["study"] for r in results if r["code"] != now[r["study"]]}
    assert earlier == OF_AN_EARLIER_TEXT
