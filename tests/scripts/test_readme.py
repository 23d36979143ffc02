"""The Python blocks of the README run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_block_runs(block):
    exec(block, {})


def test_the_certificate_of_the_saddle_is_what_the_readme_says(capsys):
    (block,) = [block for block in BLOCKS if "certify" in block]
    exec(block, {})
    assert capsys.readouterr().out.startswith("STRICT_SADDLE")


def test_pictures_and_pages_exist():
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\(([^)h][^)]*)\)", TEXT)
    assert len(links) > 5
    assert [link for link in links if not (root / link).exists()] == []
