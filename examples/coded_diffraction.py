"""Recover a photograph from coded diffraction patterns: only intensities are measured, no phases.

python examples/coded_diffraction.py --out pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor

from thalweg.solve.recovery import (
    CodedDiffraction,
    PhaseRetrieval,
    spectral_start,
    truncated_amplitude_flow,
)


def photograph() -> Tensor:
    """A temple in grey, 128 x 160, values in [0, 1]."""
    grey = torch.tensor(load_sample_image("china.jpg")).double().mean(2) / 255
    return torch.nn.functional.interpolate(
        grey[None, None, :, :], size=(128, 160), mode="area"
    ).squeeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="folder for the picture")
    out = parser.parse_known_args()[0].out  # the tests that run this have arguments of their own

    image = photograph()
    masks = CodedDiffraction.random(
        tuple(image.shape), patterns=6, generator=torch.Generator().manual_seed(0)
    )
    problem = PhaseRetrieval.measure(masks, image)  # y = |FFT(conj(mask) * image)|^2
    start = spectral_start(problem)
    result = truncated_amplitude_flow(problem, start=start, tol=1e-6)

    steps = int(result.trace["step"][-1])
    print(f"start:           relative error {float(problem.error(start)):.2f}")
    print(f"after {steps} steps: relative error {float(problem.error(result.x)):.1e}")
    print(result.reason)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        pattern = problem.y.unflatten(-1, masks.data_shape)[0]
        draw(image, pattern, start.abs(), result.x.abs()).savefig(out / "coded_diffraction.png")


def draw(image: Tensor, pattern: Tensor, start: Tensor, answer: Tensor) -> Figure:
    """The truth, one of the patterns, the spectral start, and what was recovered."""
    figure = Figure(figsize=(9, 1.95), dpi=100, layout="constrained")
    logarithm = torch.fft.fftshift(pattern).clamp(min=1e-3).log10()
    pictures = {
        "photograph": image,
        "one of 6 patterns (log)": logarithm,
        "spectral start": start,
        "recovered": answer,
    }
    for axes, (title, picture) in zip(figure.subplots(1, 4), pictures.items(), strict=True):
        low, high = (None, None) if picture is logarithm else (0.0, 1.0)
        axes.imshow(picture.numpy(), cmap="gray", vmin=low, vmax=high)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
