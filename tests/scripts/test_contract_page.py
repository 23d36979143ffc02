"""The page of the contract says what its record says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from thalweg.testing import CLAUSES, Finding, Outcome
from thalweg.testing.table import Row, clauses_of, record

ROOT = Path(__file__).resolve().parents[2]


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location(
        "contract_page", ROOT / "scripts" / "contract_page.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


contract_page = loaded()


def row(library: str, method: str, outcome: Outcome = Outcome.PASS, **more: Any) -> Row:
    findings = tuple(Finding(clause.name, outcome, "") for clause in clauses_of())
    return Row(library, method, f"{library}:{method}", findings, **more)


def test_the_page_shows_everything() -> None:
    rows = [
        row("thalweg", "Good"),
        row("thalweg", "Refuses", Outcome.REFUSED),
        row("other", "Notes", Outcome.NOTE),
        row("other", "Breaks", Outcome.FAIL, trouble="closure: died of SIGSEGV"),
        Row("other", "Odd", "other:Odd", left_out="needs a model"),
    ]
    found = record(
        rows,
        clauses_of(),
        command="thalweg check-optimizer --all --peers",
        versions={"torch": "2.13"},
        notes={"nowhere": "not installed: pip install nowhere"},
    )
    text = contract_page.page(found)
    lines = text.splitlines()
    assert "| closure | 2/2 | 0/2 (1 noted) |" in lines
    assert "| left out, of all | 0 of 2 | 1 of 3 |" in lines
    assert "- other: Odd" in lines
    assert "- nowhere: not installed: pip install nowhere" in lines
    assert "- other Breaks: closure: died of SIGSEGV" in lines
    assert "**Verdict:** 2 of 2 hold every clause asked here." in lines
    [good] = [line for line in lines if line.startswith("| Good |")]
    [refuses] = [line for line in lines if line.startswith("| Refuses |")]
    assert good.count("✓") == len(clauses_of()) and "✓" not in refuses
    for clause in clauses_of():
        assert f"**{clause.name}**: {contract_page.escaped(clause.statement)}" in text
    assert "thalweg check-optimizer --all --peers -j 1 --json" in text


def test_a_broken_one_of_ours_is_the_verdict() -> None:
    text = contract_page.page(record([row("thalweg", "Bad", Outcome.FAIL)], CLAUSES))
    assert "**Verdict:** 1 of 1 break a clause: Bad." in text
    assert "hold every clause asked here" not in text


def test_the_published_page_is_that_of_the_published_record() -> None:
    published = ROOT / "docs" / "images" / "studies" / "contract.json"
    text = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    found = json.loads(published.read_text(encoding="utf-8"))
    assert text == contract_page.page(found)
    assert "hold every clause asked here" in text


def test_it_says_how_it_is_used(tmp_path: Path) -> None:
    source, target = tmp_path / "contract.json", tmp_path / "contract.md"
    source.write_text(json.dumps({"schema": "other/1"}))
    with pytest.raises(ValueError, match=r"thalweg\.contract/1"):
        contract_page.main(source, target)
