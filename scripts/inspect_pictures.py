"""Pictures for the tutorial about where training stops and for the page of the instruments.

    python scripts/inspect_pictures.py docs/images

Trains wine-mlp, and photographs the pages that `thalweg inspect` and a `Tracker` make of it;
then draws the instruments on a tanh network of 139 parameters, trained on the same data. Needs
chromium, chromedriver and selenium (the test extra). About two minutes on two cores.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sklearn.datasets import load_wine
from torch import Tensor, nn

from thalweg import Training
from thalweg.compare.problems import build, load
from thalweg.curvature import Objective, density, extremes, hessian, landscape, pictures, trace
from thalweg.inspect import Tracker
from thalweg.optim import AdamW

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBLEM = "wine-mlp"
STEPS = 300
SECTIONS = ("spectrum", "landscape", "layers")
WIDTH = 1100


def main(images: Path) -> None:
    """Write inspect.png, one picture per section, and one per instrument."""
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page, tracked = pages(Path(folder))
        browser = _browser()
        try:
            browser.get(page.as_uri())
            browser.set_window_size(WIDTH, 900)  # the top of the page alone
            time.sleep(2)
            browser.save_screenshot(str(images / "inspect.png"))
            browser.set_window_size(WIDTH, 1700)  # a picture ends where the window does
            for name in SECTIONS:
                _photograph(browser, name, images / f"inspect-{name}.png")
            browser.get(tracked.as_uri())
            time.sleep(2)
            _photograph(browser, "way", images / "inspect-tracker.png")
        finally:
            browser.quit()
    (images / "curvature").mkdir(exist_ok=True)
    for name, draw in INSTRUMENTS.items():
        draw().savefig(images / "curvature" / f"{name}.png")


# ---------------------------------------------------------------------------------- pages


def pages(folder: Path) -> tuple[Path, Path]:
    """The page of `thalweg inspect` after training, and that of a tracker on the way."""
    training = build(load(PROBLEM), 0)
    optimizer = AdamW(training.model.parameters(), lr=1e-3)
    batches = list(training.data)
    probe = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    tracker = Tracker(
        training.model, training.loss, probe, every=10, path=folder / "t.jsonl", name=PROBLEM
    )
    for step in range(STEPS):
        optimizer.zero_grad()
        training.batch_loss(batches[step % len(batches)]).backward()
        optimizer.step()
        tracker.step()
    torch.save(training.model.state_dict(), folder / "wine.pt")
    command = ["inspect", PROBLEM, "--checkpoint", "wine.pt", "--out", "page"]
    subprocess.run([sys.executable, "-m", "thalweg.cli", *command], cwd=folder, check=True)
    return folder / "page" / "index.html", tracker.page(folder / "tracked", budget=0)


def _photograph(browser: Any, name: str, path: Path) -> None:
    section = browser.find_element("id", name)
    browser.execute_script("arguments[0].scrollIntoView()", section)
    time.sleep(1.5)  # charts draw when they come into view
    section.screenshot(str(path))


def _browser() -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    profile = tempfile.mkdtemp()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


# ---------------------------------------------------------------------------- instruments


def trained(seed: int = 0, steps: int = 200, path: list[Tensor] | None = None) -> Training:
    """A 13-8-3 tanh network after Adam; `path` receives a point every 20 steps."""
    x, y = load_wine(return_X_y=True)
    batch = torch.tensor((x - x.mean(0)) / x.std(0)), torch.tensor(y)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(13, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    training = Training(model, nn.functional.cross_entropy, [batch], name="wine")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps + 1):
        if path is not None and step % 20 == 0:
            path.append(Objective(training).start)
        if step < steps:
            optimizer.zero_grad()
            training.batch_loss(batch).backward()
            optimizer.step()
    return training


def draw_spectrum() -> Figure:
    H = hessian(trained())
    return pictures.spectrum(density(H, steps=60), extremes(H, k=5))


def draw_traces() -> Figure:
    training = trained()
    H = hessian(training)
    exact = float(H.dense().trace())
    draw = torch.Generator().manual_seed(0)
    estimates = {
        "Hutchinson, 30 products": trace(
            H, 1e-9, max_products=30, method="hutchinson", generator=draw
        ),
        "Hutch++, 30 products": trace(H, 1e-9, max_products=30, method="hutch++", generator=draw),
        "XTrace, 30 products": trace(H, 1e-9, max_products=30, method="xtrace", generator=draw),
    }
    return pictures.traces(estimates, exact)


def draw_slope() -> Figure:
    training = trained()
    top = extremes(hessian(training)).vectors[:, -1]
    return pictures.slope(landscape.slice(training, top, extent=2.0), "step along the top")


def draw_plane() -> Figure:
    path: list[Tensor] = []
    training = trained(path=path)
    plane = landscape.trajectory_plane(path)
    low, high = plane.path.min(0).values, plane.path.max(0).values
    room = 0.15 * (high - low)
    extent = [(float(a - r), float(b + r)) for a, b, r in zip(low, high, room, strict=True)]
    found = landscape.slice(
        training, list(plane.directions), centre=plane.centre, extent=extent, points=31,
        path=plane.path,
    )  # fmt: skip
    return pictures.plane(found, ("first component", "second component"))


def draw_line() -> Figure:
    first, second = trained(0), trained(1)
    return pictures.segment(
        landscape.line(first, Objective(first).start, Objective(second).start),
        ("seed 0", "seed 1"),
    )


INSTRUMENTS: dict[str, Callable[[], Any]] = {
    "spectrum": draw_spectrum,
    "trace": draw_traces,
    "slope": draw_slope,
    "plane": draw_plane,
    "line": draw_line,
}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
