"""The report in a real headless Chromium with the network cut."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from thalweg.compare.report import figures, write

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"
    ),
]
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
    # Nothing listens there: any request to a host would fail, loudly.
    "--proxy-server=127.0.0.1:9",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def _load_fake() -> ModuleType:
    place = Path(__file__).parents[1] / "compare" / "fake.py"
    spec = importlib.util.spec_from_file_location("fake", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _load_fake()
Open = Callable[..., Any]


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
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a race's page; afterwards nothing may have been requested, logged or alerted."""

    def opened(
        summary: dict[str, Any],
        *,
        width: int = 1280,
        dark: bool = False,
        page: Path | None = None,
        **how: Any,
    ) -> Any:
        page = page or write(summary, tmp_path, **how)
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


def charts(browser: Any) -> dict[str, list[Any]]:
    """Draw everything; for each chart its traces' `meta` and number of points."""
    found: dict[str, list[Any]] = browser.execute_script("""
        thalweg.drawAll();
        const found = {};
        thalweg.charts.forEach((chart, id) => {
          found[id] = chart.element.data.map((trace) => [trace.meta || null, trace.x.length]);
        });
        return found;
    """)
    return found


def traces(browser: Any, chart: str, meta: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = browser.execute_script(
        """
        thalweg.drawAll();
        return thalweg.charts.get(arguments[0]).element.data
          .filter((trace) => trace.meta === arguments[1])
          .map((trace) => ({name: trace.name, x: trace.x, y: trace.y, color: trace.line?.color}));
        """,
        chart,
        meta,
    )
    return found


def click(browser: Any, css: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", css)


def test_every_chart_has_its_traces(show: Open) -> None:
    browser = show(fake.race())
    drawn = charts(browser)
    assert set(drawn) == {
        "curve", "finals-chart", "target-chart", "tuning-chart", *(f"trials-{i}" for i in range(5))
    }  # fmt: skip
    counted = {chart: [meta for meta, points in found if points] for chart, found in drawn.items()}
    assert counted["curve"].count("median") == 6
    assert counted["curve"].count("band") == 8  # two of the six are open above for a while
    assert counted["finals-chart"].count("finals") == 6
    assert counted["finals-chart"].count("missed") == 2
    assert counted["target-chart"].count("arrivals") == 6
    assert counted["tuning-chart"].count("tuning") == 5  # the sixth has nothing to tune
    assert all(counted[f"trials-{i}"][0] == "trials" for i in range(5))
    visible = "return document.querySelectorAll('.chart .main-svg .scatterlayer .trace').length"
    assert browser.execute_script(visible) >= 30


def test_charts_are_drawn_when_they_come_near(show: Open) -> None:
    browser = show(fake.race())
    count = "return document.querySelectorAll('.chart[data-drawn]').length"
    assert browser.execute_script(count) < 9
    browser.execute_async_script("""
        const done = arguments[arguments.length - 1];
        document.getElementById("tuning-chart").scrollIntoView();
        const drawn = () => document.querySelector("#tuning-chart[data-drawn]");
        const look = () => drawn() ? done() : setTimeout(look, 20);
        look();
    """)


def test_the_axis_switch_changes_every_curve(show: Open) -> None:
    summary = fake.race()
    browser = show(summary)
    for axis in figures.AXES:
        click(browser, f'input[name="axis"][value="{axis}"]')
        drawn = {trace["name"]: trace for trace in traces(browser, "curve", "median")}
        for method in summary["methods"]:
            expected = figures.median_curve(method["runs"], axis, "validation", "min")
            assert drawn[method["name"]]["x"] == expected["x"]
            assert drawn[method["name"]]["y"] == expected["median"]
    click(browser, 'input[name="series"][value="train"]')
    drawn = {trace["name"]: trace for trace in traces(browser, "curve", "median")}
    expected = figures.median_curve(summary["methods"][0]["runs"], "seconds", "train", "min")
    assert drawn["muon"]["y"] == expected["median"]


def test_the_target_slider_moves_the_table_and_the_chart(show: Open) -> None:
    summary = fake.race()
    browser = show(summary)
    for position in (3, 250, 397):
        target = browser.execute_script(
            """
            const slider = document.getElementById("target-slider");
            slider.value = arguments[0];
            slider.dispatchEvent(new Event("input"));
            return thalweg.state.target;
            """,
            position,
        )
        rows = browser.execute_script(
            "return [...document.querySelectorAll('#target-rows tr')].map(row => "
            "[...row.cells].map(cell => cell.textContent.trim()))"
        )
        arrivals = {t["name"]: t for t in traces(browser, "target-chart", "arrivals")}
        reached = {row[0]: row[1] for row in rows}
        for method in summary["methods"]:
            times = figures.time_to_target(method["runs"], "step", target, "min")
            hits = sum(time is not None for time in times)
            assert reached[method["name"]] == f"{hits} of 10"
            steps = sorted({time for time in times if time is not None})
            assert arrivals[method["name"]]["x"][1:-1] == steps
    words = browser.execute_script("return document.getElementById('target-words').textContent")
    assert words.startswith("At validation loss")


def test_keyboard_and_legend(show: Open) -> None:
    browser = show(fake.race())
    keys = webdriver.Keys
    chip = browser.find_element("css selector", '.chip[data-method="1"]')
    chip.send_keys(keys.ENTER)
    assert chip.get_attribute("aria-pressed") == "false"
    assert "adamw" not in [trace["name"] for trace in traces(browser, "curve", "median")]
    assert len(traces(browser, "finals-chart", "finals")) == 5
    chip.send_keys(keys.SPACE)
    assert len(traces(browser, "curve", "median")) == 6
    slider = browser.find_element("id", "target-slider")
    before = browser.execute_script("return thalweg.state.target")
    slider.send_keys(keys.ARROW_RIGHT)
    assert browser.execute_script("return thalweg.state.target") != before
    assert slider.get_attribute("aria-valuetext").startswith("validation loss ")
    browser.find_element("css selector", 'input[name="axis"]').send_keys(keys.ARROW_RIGHT)
    assert browser.execute_script("return thalweg.state.axis") == "evaluations"


def test_options_draw_what_they_say(show: Open) -> None:
    browser = show(fake.race())
    for box in ("log-y", "band", "seeds"):
        click(browser, f"#{box}")
    plotted = charts(browser)["curve"]
    kind = "return thalweg.charts.get('curve').element.layout.yaxis.type"
    assert browser.execute_script(kind) != "log"
    assert "band" not in [meta for meta, _ in plotted]
    assert len(plotted) == 12  # six medians, and the seeds of six methods
    click(browser, 'input[name="paired"][value="yes"]')
    best = traces(browser, "finals-chart", "finals")[0]
    assert set(best["x"]) == {1}
    browser.execute_script("""
        const select = document.getElementById("hyper");
        select.value = "betas[0]"; select.dispatchEvent(new Event("change"));
    """)
    charts(browser)
    title = "return thalweg.charts.get('trials-1').element.layout.xaxis.title.text"
    assert browser.execute_script(title) == "1 − betas[0]"


def test_hostile_names_stay_text(show: Open) -> None:
    browser = show(fake.race(fake.HOSTILE))
    charts(browser)
    click(browser, "#seeds")
    click(browser, 'input[name="paired"][value="yes"]')
    charts(browser)
    assert browser.execute_script("return document.querySelectorAll('img, iframe').length") == 0
    assert browser.execute_script("return document.scripts.length") == 3
    labels = browser.execute_script(
        "return [...document.querySelectorAll('#finals-chart .ytick text')].map(t => t.textContent)"
    )
    assert set(labels) >= {"<script>alert(1)</script>", "</script><b>bold</b>", "'; alert(3); //"}
    chips = browser.execute_script(
        "return [...document.querySelectorAll('.chip')].map(chip => chip.textContent.trim())"
    )
    assert set(chips) == {name.strip() for name in fake.HOSTILE}


@pytest.mark.parametrize("names", [fake.NAMES, fake.HOSTILE], ids=["plain", "hostile"])
def test_a_phone_does_not_scroll_sideways(show: Open, names: tuple[str, ...]) -> None:
    browser = show(fake.race(names), width=360)
    charts(browser)
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    width = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width == [360, 360]
    assert browser.execute_script("return document.getElementById('curve').offsetWidth") <= 360


def test_dark_mode_changes_page_and_charts(show: Open) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    browser = show(fake.race())
    light = [trace["color"] for trace in traces(browser, "curve", "median")]
    page = browser.execute_script(ground)
    browser = show(fake.race(), dark=True)
    assert browser.execute_script(ground) != page
    assert [trace["color"] for trace in traces(browser, "curve", "median")] != light
    brightness = sum(int(part) for part in browser.execute_script(ground)[4:-1].split(","))
    assert brightness < 3 * 64


def test_print_has_every_chart_and_opens_what_is_folded(show: Open) -> None:
    browser = show(fake.race())
    browser.execute_script("""
        window.addEventListener("beforeprint", () => {
          window.atPrint = {
            drawn: document.querySelectorAll(".chart[data-drawn]").length,
            folded: document.querySelectorAll("details:not([open])").length,
          };
        });
    """)
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert len(pdf["data"]) > 50_000
    assert browser.execute_script("return window.atPrint") == {"drawn": 9, "folded": 0}
    assert browser.execute_script("return document.querySelectorAll('details[open]').length") == 0


def test_without_scripts_the_tables_are_there(show: Open) -> None:
    browser = show(fake.race(), page=None)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.refresh()
        body = browser.find_element("tag name", "body").text
        assert browser.find_elements("css selector", ".chart[data-drawn]") == []
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "The charts need JavaScript" in body
    assert "10 of 10" in body and "Single seeds" not in body


def test_a_single_file_works_where_it_was_moved(show: Open, tmp_path: Path) -> None:
    page = write(fake.race(), tmp_path / "run", single_file=True)
    moved = tmp_path / "elsewhere" / "a report.html"
    moved.parent.mkdir()
    shutil.move(page, moved)
    shutil.rmtree(tmp_path / "run")
    browser = show(fake.race(), page=moved)
    assert len(traces(browser, "curve", "median")) == 6


def test_a_lost_script_is_said(show: Open, browser: Any, tmp_path: Path) -> None:
    page = write(fake.race(), tmp_path)
    (page.parent / "plotly.min.js").unlink()
    show(fake.race(), page=page)
    body = browser.find_element("tag name", "body").text
    assert "plotly.min.js must lie beside this page" in body
    (entry,) = browser.get_log("browser")  # the lost file, and nothing else
    assert "plotly.min.js" in entry["message"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"interrupted": True}, {"rate": True}, {"seeds": 1}], ids=str)
def test_other_races_draw_too(show: Open, how: dict[str, Any]) -> None:
    browser = show(fake.race(**how))
    assert all(charts(browser).values())


@pytest.mark.slow
def test_two_hundred_runs_of_three_hundred_points(
    show: Open, record_property: Callable[[str, object], None], tmp_path: Path
) -> None:
    names = [f"method {i}" for i in range(20)]
    browser = show(fake.race(names, points=300))
    browser.execute_script("document.getElementById('curve').scrollIntoView()")
    drawn = charts(browser)
    assert sum(meta == "median" for meta, _ in drawn["curve"]) == 20
    click(browser, "#seeds")
    points = sum(points for meta, points in charts(browser)["curve"] if meta is None)
    assert 200 * 100 < points < 200 * 302  # every seed, thinned
    # Reported, not asserted: the time depends on the machine.
    ready = browser.execute_script(
        "return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    )
    record_property("milliseconds_until_ready", ready)
