"""Repair damaged photographs of faces: robust PCA on the faces of scikit-image.

python examples/corrupted_faces.py --out pictures
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from thalweg.solve.recovery import RobustPCA, robust_pca

RANK, ALPHA, DAMAGE = 20, 0.08, 0.04


def faces() -> Tensor | None:
    """100 faces of 25 x 25 pixels, a row each; None where scikit-image is not installed."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        return None
    stack = numpy.load(Path(found.origin).parent / "data" / "lfw_subset.npy")
    return torch.from_numpy(stack[:100].reshape(100, 625).astype(float))  # the rest are no faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="folder for the picture")
    out = parser.parse_known_args()[0].out  # the tests that run this have arguments of their own

    clean = faces()
    if clean is None:
        print("the faces ship with scikit-image; install it with: pip install scikit-image")
        return
    generator = torch.Generator().manual_seed(0)
    hit = torch.rand(clean.shape, generator=generator) < DAMAGE
    salt = torch.rand(clean.shape, generator=generator).round().double()
    damaged = torch.where(hit, salt, clean)

    # Faces are only nearly of low rank: the residual stays at their detail, and the run stalls.
    result = robust_pca(RobustPCA(damaged, RANK, ALPHA), tol=1e-6, max_steps=200)
    X = result.x.low_rank.dense()
    # A pixel far from the low-rank part is replaced by it; the others stay as they are.
    wrong = (damaged - X).abs() > 0.25
    repaired = torch.where(wrong, X.clamp(0, 1), damaged)

    def error(image: Tensor) -> float:
        return float((image - clean).norm() / clean.norm())

    U, S, Vh = torch.linalg.svd(damaged, full_matrices=False)
    print(f"damaged:       relative error {error(damaged):.3f}")
    print(f"truncated SVD: relative error {error((U[:, :RANK] * S[:RANK]) @ Vh[:RANK]):.3f}")
    print(f"repaired:      relative error {error(repaired):.3f}")
    print(result.reason)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(clean, damaged, repaired).savefig(out / "corrupted_faces.png")


def draw(clean: Tensor, damaged: Tensor, repaired: Tensor) -> Figure:
    """Six faces: as they were, damaged, repaired."""
    figure = Figure(figsize=(7.5, 4), dpi=100, layout="constrained")
    rows = {"original": clean, "damaged": damaged, "repaired": repaired}
    for axes, (title, stack) in zip(figure.subplots(3, 6), rows.items(), strict=True):
        for axis, k in zip(axes, range(0, 90, 15), strict=True):
            axis.imshow(stack[k].view(25, 25).numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
        axes[0].set_title(title, fontsize=10, loc="left")
    return figure


if __name__ == "__main__":
    main()
