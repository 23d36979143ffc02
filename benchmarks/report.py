"""The page of a large race in a headless Chromium: 200 runs of 300 points."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timing import Comparison, Sample, Settings, Suite

FAKE = Path(__file__).parents[1] / "tests" / "compare" / "fake.py"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1280,900",
    "--proxy-server=127.0.0.1:9",  # nothing listens there: the page must do without a network
)
OPEN, SEEDS = "open the page and draw every chart", "add the curves of all 200 runs"

# A frame is on the screen once the callback after the next one is called.
_AFTER_PAINTING = (
    "requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())))"
)
_OPEN = f"const done = arguments[arguments.length - 1]; thalweg.drawAll(); {_AFTER_PAINTING};"
_SEEDS = f"""
const done = (end) => arguments[arguments.length - 1](end - start);
const start = performance.now();
document.querySelector("#seeds").click();
thalweg.drawAll();
{_AFTER_PAINTING};
"""


def draw(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Seconds by the page's own clock, which starts with the navigation."""
    from thalweg.compare.report import write

    methods, points = (2, 10) if settings.tiny else (20, 300)
    summary = _made_up_races().race([f"method {i}" for i in range(methods)], points=points)
    opened, seeds = [], []
    with tempfile.TemporaryDirectory() as scratch, _browser(Path(scratch)) as browser:
        page = write(summary, Path(scratch) / "race")
        for _ in range(settings.processes):
            browser.get(page.as_uri())
            opened.append(browser.execute_async_script(_OPEN) / 1e3)
            seeds.append(browser.execute_async_script(_SEEDS) / 1e3)
    return {OPEN: Sample(opened), SEEDS: Sample(seeds)}


def _made_up_races() -> Any:
    spec = importlib.util.spec_from_file_location("fake", FAKE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _browser(scratch: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (*ARGUMENTS, f"--user-data-dir={scratch / 'profile'}"):
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=str(DRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


_possible = CHROMIUM and DRIVER and importlib.util.find_spec("selenium")
SUITES = (
    Suite(
        "report of 200 runs of 300 points, in Chromium",
        "s",
        [Comparison("draw", OPEN, limit=2.0), Comparison("draw", SEEDS, limit=2.0)],
        draw,
        heavy=True,
    ),
)[: 1 if _possible else 0]
