"""Sharpen a photograph that was blurred by an unknown kernel, from four exposures.

A blurred photograph alone does not tell photograph and kernel apart. Here the scene is lit by known
random patterns, each time also by the negative; the difference of the two exposures is what a
pattern of signs +-1 would give. Then everything beyond the size of the kernel, 5 x 5, is unknown:
all of its 25 weights, and all pixels of the photograph.

python examples/deconvolved_photograph.py --out pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor

from thalweg.solve.recovery import BlindDeconvolution, CodedDiffraction, blind_wirtinger_flow

PATTERNS, SIZE = 4, 5


def photograph() -> Tensor:
    """A temple in grey, 56 x 72, values in [0, 1]."""
    grey = torch.tensor(load_sample_image("china.jpg")).double().mean(2) / 255
    return torch.nn.functional.interpolate(
        grey[None, None, 20:, 60:], size=(56, 72), mode="area"
    ).squeeze()


def kernel() -> Tensor:
    """A hand that shook along a bent line; weights that sum to 1."""
    weights = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    for row, column, weight in ((0, 0, 1), (1, 0, 2), (2, 1, 3), (3, 2, 3), (3, 3, 2), (4, 4, 1)):
        weights[row, column] = weight
    return weights / weights.sum()


def exposed(scene: Tensor, blur: Tensor) -> Tensor:
    """Cyclic convolution with the kernel."""
    padded = torch.zeros(scene.shape[-2:], dtype=scene.dtype)
    padded[:SIZE, :SIZE] = blur
    return torch.fft.ifft2(torch.fft.fft2(scene) * torch.fft.fft2(padded)).real


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="folder for the picture")
    out = parser.parse_known_args()[0].out  # the tests that run this have arguments of their own

    image, blur = photograph(), kernel()
    pixels = image.numel()
    generator = torch.Generator().manual_seed(0)
    signs = 2.0 * torch.randint(2, (PATTERNS, *image.shape), generator=generator).double() - 1
    exposures = exposed(signs * image, blur)

    # In frequencies a convolution is a product: y = (B h)(A conj(x)), h the kernel, x the pixels.
    shifts = torch.zeros(SIZE, SIZE, *image.shape, dtype=torch.float64)
    for row in range(SIZE):
        for column in range(SIZE):
            shifts[row, column, row, column] = 1
    B = torch.fft.fft2(shifts).flatten(2).flatten(0, 1).mT.repeat(PATTERNS, 1)
    scale = (PATTERNS * pixels) ** 0.5  # makes the columns of B orthonormal
    y = torch.fft.fft2(exposures).flatten() / scale
    problem = BlindDeconvolution(y, CodedDiffraction(signs), B=B / scale)
    result = blind_wirtinger_flow(problem, tol=1e-3)

    # Only the product is known: the kernel is scaled so that its weights sum to 1.
    total = result.x.h.sum()
    found = (result.x.h[0] / total).real.reshape(SIZE, SIZE)
    sharp = (result.x.x[0].conj() * total).real.reshape(image.shape)
    blurred = exposed(image, blur).roll((-SIZE // 2 + 1, -SIZE // 2 + 1), (0, 1))
    print(result)
    print(f"blurred:   relative error {float((blurred - image).norm() / image.norm()):.3f}")
    print(f"sharpened: relative error {float((sharp - image).norm() / image.norm()):.3f}")
    print(f"kernel:    relative error {float((found - blur).norm() / blur.norm()):.3f}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(image, blurred, exposures[0], sharp, blur, found).savefig(
            out / "deconvolved_photograph.png"
        )


def draw(*pictures: Tensor) -> Figure:
    """Photographs and kernels, before and after."""
    titles = ("photograph", "blurred", "one of 4 exposures", "sharpened", "kernel", "kernel found")
    figure = Figure(figsize=(10, 1.6), dpi=100, layout="constrained")
    ratios = (4, 4, 4, 4, 3, 3)
    for axes, title, picture in zip(
        figure.subplots(1, 6, width_ratios=ratios), titles, pictures, strict=True
    ):
        low, high = (0.0, 0.3) if len(picture) == SIZE else (0.0, 1.0)
        if title == "one of 4 exposures":
            low, high = -0.7, 0.7
        axes.imshow(picture.numpy(), cmap="gray", vmin=low, vmax=high)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
