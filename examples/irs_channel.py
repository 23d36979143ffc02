"""Estimate the channel of an intelligent reflecting surface (IRS) from few pilots.

A user reaches a base station by way of a surface that reflects with settable phases. Scatterers
stand near the user and near the base station; the surface sees either group under one direction.
On grids of angles the cascaded channel is sparse, and its support is a Kronecker product: angles
of departure at the user, one angle at the surface, angles of arrival at the base station.

The setting is small and our own, three channels of one size: it shows how the methods are called
and what they may give, and does not compare them.

python examples/irs_channel.py --out pictures
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from thalweg.solve.recovery import KroneckerSparse, classical_sbl, kronecker_sbl

GRID = 8  # angles of each grid
USER, SURFACE, BASE = 6, 16, 6  # antennas, reflecting elements, antennas
PILOTS, PHASES = 4, 4  # pilot vectors, settings of the surface
SNRS = (5, 15, 25)  # dB
TRIALS = 3


def steering(antennas: int, angles: int) -> Tensor:
    """Responses of a half-wavelength array to plane waves, unit columns; cosines on a grid."""
    cosines = torch.linspace(-1, 1, angles + 1, dtype=torch.float64)[:-1]
    k = torch.arange(antennas, dtype=torch.float64)
    return torch.exp(1j * math.pi * k[:, None] * cosines) / math.sqrt(antennas)


def channel(snr: float, generator: torch.Generator) -> KroneckerSparse:
    """Pilots through the cascade: y = (pilots x phases x antennas of the base) x + noise."""

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, dtype=torch.complex128, generator=generator)

    def random_phases(*sizes: int) -> Tensor:
        turn = torch.rand(*sizes, dtype=torch.float64, generator=generator)
        return torch.exp(2j * math.pi * turn)

    dictionaries = [
        normal(PILOTS, USER) / math.sqrt(PILOTS) @ steering(USER, GRID).conj(),
        random_phases(PHASES, SURFACE) / math.sqrt(PHASES) @ steering(SURFACE, GRID),
        steering(BASE, GRID),
    ]
    paths = []
    for count in (3, 1, 3):  # near the user, at the surface, near the base station
        gains = torch.zeros(GRID, dtype=torch.complex128)
        where = torch.randperm(GRID, generator=generator)[:count]
        gains[where] = normal(count)
        paths.append(gains)
    x = torch.einsum("i,j,k->ijk", *paths).flatten()
    x = x / x.norm() * math.sqrt(int(x.count_nonzero()))
    silent = KroneckerSparse(dictionaries, torch.ones(PILOTS * PHASES * BASE, dtype=x.dtype))
    clean = silent.forward(x)
    noise = float(clean.abs().square().mean()) / 10 ** (snr / 10)
    y = clean + math.sqrt(noise) * normal(len(clean))
    return KroneckerSparse(dictionaries, y, noise, x)


def matching_pursuit(problem: KroneckerSparse, paths: int = 9) -> Tensor:
    """Orthogonal matching pursuit (OMP), told the number of paths."""
    H, y = problem.dense(), problem.y
    norms = torch.linalg.vector_norm(H, dim=0)
    chosen: list[int] = []
    rest, gains = y, y[:0]
    for _ in range(paths):
        chosen.append(int(((H.mH @ rest).abs() / norms).argmax()))
        gains = torch.linalg.lstsq(H[:, chosen], y[:, None]).solution[:, 0]
        rest = y - H[:, chosen] @ gains
    x = torch.zeros(H.shape[1], dtype=H.dtype)
    x[chosen] = gains
    return x


METHODS: dict[str, Callable[[KroneckerSparse], Tensor]] = {
    "KroSBL, alternating": lambda problem: kronecker_sbl(problem).x.mean,
    "KroSBL, svd": lambda problem: kronecker_sbl(problem, update="svd").x.mean,
    "classical SBL": lambda problem: classical_sbl(problem, max_steps=60).x.mean,
    "OMP": matching_pursuit,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="folder for the picture")
    out = parser.parse_known_args()[0].out  # the tests that run this have arguments of their own

    nmse: dict[str, list[float]] = {name: [] for name in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for snr in SNRS:
        errors: dict[str, list[float]] = {name: [] for name in METHODS}
        for trial in range(TRIALS):
            problem = channel(snr, torch.Generator().manual_seed(trial))
            for name, method in METHODS.items():
                begun = time.perf_counter()
                x = method(problem)
                seconds[name] += time.perf_counter() - begun
                errors[name].append(float(problem.error(x)) ** 2)
        for name in METHODS:
            nmse[name].append(float(torch.tensor(errors[name]).median()))

    print(f"{'NMSE at an SNR of':<22}" + "".join(f"{snr:>7} dB" for snr in SNRS) + "   ms a run")
    for name, values in nmse.items():
        each = 1000 * seconds[name] / (len(SNRS) * TRIALS)
        print(f"{name:<22}" + "".join(f"{v:10.1e}" for v in values) + f"{each:11.0f}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(nmse).savefig(out / "irs_channel.png")


def draw(nmse: dict[str, list[float]]) -> Figure:
    """The median error of each method against the signal-to-noise ratio."""
    figure = Figure(figsize=(5.5, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    for (name, values), colour, marker in zip(
        nmse.items(), ("#0072B2", "#56B4E9", "#D55E00", "#999999"), "os^x", strict=True
    ):
        axes.semilogy(SNRS, values, color=colour, marker=marker, label=name)
    axes.set_xlabel("signal-to-noise ratio (dB)")
    axes.set_ylabel("NMSE of the channel")
    axes.set_title("IRS channel, 96 measurements of 512 gains")
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
