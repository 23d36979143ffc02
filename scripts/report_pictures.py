"""Pictures of a race report for the README and the tutorial.

    python scripts/report_pictures.py RACE_DIRECTORY docs/images

Needs chromium, chromedriver and selenium (the test extra).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SECTIONS = ("verdicts", "curves", "finals", "time", "tuning")


def main(race: Path, images: Path) -> None:
    """Write report.png (the top of the page) and one picture per section."""
    page = race / "report" / "index.html"
    if not page.exists():
        raise SystemExit(f"{page} does not exist; run `thalweg report {race}`")
    images.mkdir(parents=True, exist_ok=True)
    browser = _browser()
    try:
        browser.get(page.resolve().as_uri())
        browser.set_window_size(1180, 1500)
        time.sleep(2)
        browser.save_screenshot(str(images / "report.png"))
        for name in SECTIONS:
            section = browser.find_element("id", name)
            browser.execute_script("arguments[0].scrollIntoView()", section)
            time.sleep(1.5)  # charts draw when they come into view
            section.screenshot(str(images / f"report-{name}.png"))
    finally:
        browser.quit()


def _browser() -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    profile = tempfile.mkdtemp()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
