"""The page of an inspection, and the certificates of a race, in Chromium with the network cut."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from thalweg import Training
from thalweg.compare import report
from thalweg.inspect import Tracker, inspect
from thalweg.inspect.page import write

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"
    ),
]
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--window-size=1280,900",
    # Nothing listens there: any request to a host would fail, loudly.
    "--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
Open = Callable[..., Any]


def _load_fake() -> ModuleType:
    place = Path(__file__).parents[1] / "compare" / "fake.py"
    spec = importlib.util.spec_from_file_location("fake", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _load_fake()


class Network(nn.Module):
    """Layers with names that a page must escape."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleDict({HOSTILE.replace(".", ""): nn.Linear(4, 6)})
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers.values():
            x = torch.tanh(layer(x))
        return self.head(x)


def training() -> Training:
    draw = torch.Generator().manual_seed(1)
    batch = torch.randn(20, 4, generator=draw), torch.randint(0, 3, (20,), generator=draw)
    return Training(Network(), nn.functional.cross_entropy, [batch], name=HOSTILE)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return inspect(training(), budget=200).to_dict()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("chromium")
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=str(DRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
def show(browser: Any) -> Iterator[Open]:
    """Open a page; afterwards nothing may have been requested, logged or alerted."""

    def opened(page: Path, *, width: int = 1280, dark: bool = False) -> Any:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(page.as_uri())
        return browser

    yield opened
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert browser.get_log("browser") == []


def charts(browser: Any) -> dict[str, list[str]]:
    """Draw everything; for each chart the `meta` of its traces."""
    found: dict[str, list[str]] = browser.execute_script("""
        thalweg.drawAll();
        const found = {};
        thalweg.charts.forEach((chart, id) => {
          found[id] = chart.element.data.map((trace) => trace.meta);
        });
        return found;
    """)
    return found


def test_every_chart_has_its_traces(show: Open, tmp_path: Path, record: dict[str, Any]) -> None:
    browser = show(write(record, tmp_path))
    assert charts(browser) == {
        "density": ["band", "density"],
        "slice-top": ["quadratic", "loss", "point"],
        "slice-bottom": ["quadratic", "loss", "point"],
        "plane": ["plane", "point"],
    }
    drawn = browser.execute_script(
        "return thalweg.charts.get('plane').element.data[0].customdata.map((row) => [...row])"
    )
    values = record["slices"]["plane"]["values"]
    # plotly's rows are its y: the second direction
    assert [list(column) for column in zip(*values, strict=True)] == drawn
    curve = browser.execute_script("return [...thalweg.charts.get('slice-top').element.data[1].y]")
    assert curve == record["slices"]["top"]["values"]


def test_the_density_can_be_linear(show: Open, tmp_path: Path, record: dict[str, Any]) -> None:
    browser = show(write(record, tmp_path))
    charts(browser)
    kind = "return thalweg.charts.get('density').element.layout.yaxis.type"
    assert browser.execute_script(kind) == "log"
    browser.execute_script("document.getElementById('log-density').click()")
    charts(browser)
    assert browser.execute_script(kind) != "log"


def test_hostile_names_stay_text(show: Open, tmp_path: Path, record: dict[str, Any]) -> None:
    browser = show(write(record, tmp_path, command=f"thalweg inspect '{HOSTILE}'"))
    charts(browser)
    assert browser.execute_script("return document.querySelectorAll('img, iframe').length") == 0
    assert browser.execute_script("return document.scripts.length") == 3
    assert browser.title.startswith(HOSTILE)
    layers = browser.execute_script(
        "return [...document.querySelectorAll('#layers tbody th')].map(c => c.textContent)"
    )
    assert layers == [f"layers.{HOSTILE}", "head"]


def test_a_phone_in_the_dark(show: Open, tmp_path: Path, record: dict[str, Any]) -> None:
    browser = show(write(record, tmp_path), width=360, dark=True)
    charts(browser)
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    width = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width == [360, 360]
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in ground[4:-1].split(",")) < 3 * 64


def test_a_single_file_works_where_it_was_moved(
    show: Open, tmp_path: Path, record: dict[str, Any]
) -> None:
    page = write(record, tmp_path / "one", single_file=True)
    moved = tmp_path / "a page.html"
    shutil.move(page, moved)
    shutil.rmtree(tmp_path / "one")
    assert len(charts(show(moved))) == 4


def test_a_tracker_draws_its_curves(show: Open, tmp_path: Path) -> None:
    small = training()
    (probe,) = small.data
    path = tmp_path / "curves.jsonl"
    tracker = Tracker(small.model, small.loss, probe, every=1, path=path, name=HOSTILE)
    optimizer = torch.optim.SGD(small.model.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        small.batch_loss(probe).backward()
        optimizer.step()
        tracker.step()
    browser = show(tracker.page(tmp_path / "page", budget=0))
    assert charts(browser) == {
        "curve-loss": ["curve"],
        "curve-gradient": ["curve"],
        "curve-ends": ["curve"] * 3,
        "curve-trace": ["band", "curve"],
    }


@pytest.mark.parametrize("width", [1280, 360])
def test_the_certificates_of_a_race(show: Open, tmp_path: Path, width: int) -> None:
    names = ("adamw", HOSTILE, "sgd")
    browser = show(report.write(fake.certified(fake.race(names)), tmp_path), width=width)
    assert charts(browser)["between-chart"] == ["between", "between"]
    assert len(browser.find_elements("css selector", "#ending .card")) == 3
    assert browser.execute_script("return document.querySelectorAll('img, iframe').length") == 0
    first = "return thalweg.charts.get('between-chart').element.data.map((t) => t.name)"
    before = browser.execute_script(first)
    browser.execute_script("""
        const select = document.getElementById("line-from");
        select.selectedIndex = 1; select.dispatchEvent(new Event("change"));
    """)
    charts(browser)
    assert browser.execute_script(first) != before
    sideways = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(sideways) == 0
