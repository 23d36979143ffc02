"""The Python blocks of the guides run as they stand, one after the other as a reader types them."""

from __future__ import annotations

import re
import runpy
import warnings
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("tutorials/where-did-it-stop.md", "curvature.md", "optimizers.md")


def blocks(page: str) -> list[str]:
    """The Python of a page, each block at the lines it has in the page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in found]


def run(page: str) -> dict[str, object]:
    """Run the blocks of a page in one namespace; a failure names the page and its line."""
    names: dict[str, object] = {"__name__": "__page__"}
    for block in blocks(page):
        exec(compile(block, str(DOCS / page), "exec"), names)
    return names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page writes goes to a folder of its own."""
    monkeypatch.chdir(tmp_path)


def test_where_did_it_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run("tutorials/where-did-it-stop.md")
    printed = capsys.readouterr().out
    verdicts = re.findall(r"^[A-Z_]{8,}", printed, flags=re.MULTILINE)
    assert verdicts == ["NOT_STATIONARY", "LOCAL_MINIMUM", "STRICT_SADDLE"]
    escape = names["found"]
    assert escape.decrease == pytest.approx(0.0969, abs=1e-4)  # as the page says
    assert (tmp_path / "inspect-wine" / "index.html").exists()
    assert "On the way" in (tmp_path / "tracked" / "index.html").read_text()
    assert [row["step"] for row in names["tracker"].rows] == [20, 40, 60, 80, 100]


def test_the_verdicts_of_the_table_are_all_there_are() -> None:
    from thalweg.curvature import Verdict

    text = (DOCS / "tutorials/where-did-it-stop.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([A-Z_]+)` \|", text, flags=re.MULTILINE)
    assert listed == [verdict.name for verdict in Verdict]


def test_curvature(capsys: pytest.CaptureFixture[str]) -> None:
    names = run("curvature.md")
    assert "DESCENT_FIRST_ORDER" in capsys.readouterr().out
    dense = names["H"].dense()
    assert names["ends"].values[-1] == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]))


def test_optimizers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of trainers about themselves
        names = run("optimizers.md")
    assert names["errors"][-1] < names["errors"][0]
    assert names["classifier"].separated_


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_is_there(page: str) -> None:
    path = DOCS / page
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    assert pictures
    for picture in pictures:
        assert (path.parent / picture).is_file(), picture


def test_the_script_makes_every_picture_of_the_instruments() -> None:
    script = Path(__file__).parents[2] / "scripts" / "inspect_pictures.py"
    made = runpy.run_path(str(script))["INSTRUMENTS"]
    text = (DOCS / "curvature.md").read_text(encoding="utf-8")
    assert sorted(made) == sorted(re.findall(r"\]\(images/curvature/(\w+)\.png\)", text))
    low, high = made["trace"]().axes[0].get_xlim()
    names = run("curvature.md")  # the network of the page is the network of the pictures
    assert low < float(names["H"].dense().trace()) < high
