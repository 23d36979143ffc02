"""Split a stack of images into a still background and what moves: robust PCA.

python examples/foreground_background.py --out pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor

from thalweg.solve.recovery import LowRank, RobustPCA, robust_pca

HEIGHT, WIDTH, FRAMES, PATCH = 54, 80, 40, 10


def photograph(name: str, height: int, width: int) -> Tensor:
    """A bundled photograph in grey, values in [0, 1]."""
    grey = torch.tensor(load_sample_image(name)).double().mean(2) / 255
    return torch.nn.functional.interpolate(
        grey[None, None], size=(height, width), mode="area"
    ).squeeze()


def film() -> tuple[Tensor, LowRank]:
    """A temple under a changing light; a flower, pasted in, walks across it."""
    background = photograph("china.jpg", HEIGHT, WIDTH).flatten()
    light = 0.8 + 0.2 * torch.cos(torch.linspace(0, 6, FRAMES).double())
    truth = LowRank(light[:, None], background[:, None])
    frames = truth.dense().view(FRAMES, HEIGHT, WIDTH).clone()
    flower = photograph("flower.jpg", PATCH, PATCH)
    for t in range(FRAMES):
        left = int(t * (WIDTH - PATCH) / (FRAMES - 1))
        top = int(20 + 15 * torch.sin(torch.tensor(t / 5.0)))
        frames[t, top : top + PATCH, left : left + PATCH] = flower
    return frames.flatten(1), truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="folder for the picture")
    out = parser.parse_known_args()[0].out  # the tests that run this have arguments of their own

    Y, truth = film()  # a row per frame
    # The flower covers a pixel in at most this share of the frames.
    alpha = float(((Y - truth.dense()).abs() > 0).double().mean(0).max())
    problem = RobustPCA(Y, rank=1, alpha=alpha, factor=1.2, truth=truth)
    result = robust_pca(problem, tol=1e-8)
    mean = LowRank(torch.ones(FRAMES, 1).double(), Y.mean(0)[:, None])
    print(f"mean of the frames: relative error {float(problem.error(mean)):.3f}")
    print(f"robust PCA:         relative error {float(problem.error(result.x)):.1e}")
    print(result.reason)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(Y, result.x.low_rank.dense()).savefig(out / "foreground_background.png")


def draw(Y: Tensor, background: Tensor) -> Figure:
    """Three frames, their backgrounds, and what is left."""
    figure = Figure(figsize=(7.5, 5), dpi=100, layout="constrained")
    axes = figure.subplots(3, 3)
    for column, t in zip(axes.T, (4, 18, 34), strict=True):
        frame, still = (stack[t].view(HEIGHT, WIDTH) for stack in (Y, background))
        pictures = {"frame": frame, "background": still, "foreground": (frame - still).abs()}
        for axis, (title, picture) in zip(column, pictures.items(), strict=True):
            axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"{title} {t}", fontsize=10)
            axis.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
