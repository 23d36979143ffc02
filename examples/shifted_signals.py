"""Align noisy copies of one signal that were shifted by unknown amounts.

Each pair is compared on its own: the shift at which the two correlate best is their difference.
Most differences are wrong at this noise; all of them together give the shifts away.

python examples/shifted_signals.py --out pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from thalweg.solve.recovery import JointAlignment, projected_power_method

COPIES, LENGTH, NOISE = 120, 32, 1.6


def heartbeat() -> Tensor:
    """A signal of 32 samples with norm sqrt(32): a small wave, a spike, a broad wave."""
    t = torch.arange(LENGTH, dtype=torch.float64)
    waves = (
        (5.0, 1.5, 0.5),
        (11.0, 0.8, -0.8),
        (13.0, 0.9, 3.0),
        (15.0, 0.8, -1.0),
        (22.0, 2.5, 0.9),
    )
    signal = sum(height * torch.exp(-(((t - at) / width) ** 2)) for at, width, height in waves)
    assert isinstance(signal, Tensor)
    return signal * LENGTH**0.5 / signal.norm()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="folder for the picture")
    out = parser.parse_known_args()[0].out  # the tests that run this have arguments of their own

    generator = torch.Generator().manual_seed(0)
    signal = heartbeat()
    shifts = torch.randint(LENGTH, (COPIES,), generator=generator)
    clean = torch.stack([signal.roll(int(shift)) for shift in shifts])
    copies = clean + NOISE * torch.randn(clean.shape, dtype=clean.dtype, generator=generator)

    # y_ij: the shift at which copy i agrees best with copy j, for all pairs by FFT.
    spectra = torch.fft.rfft(copies)
    correlation = torch.fft.irfft(spectra[:, None] * spectra.conj(), n=LENGTH)
    y = correlation.argmax(-1).triu(1)
    y = (y - y.mT) % LENGTH
    right = (y == (shifts[:, None] - shifts) % LENGTH).double().mean()

    problem = JointAlignment(y, LENGTH, truth=shifts)
    result = projected_power_method(problem)
    found = result.info["labels"]
    aligned = torch.stack(
        [copy.roll(-int(shift)) for copy, shift in zip(copies, found, strict=True)]
    )
    aligned = aligned.roll(as_the_signal(aligned.mean(0), signal), 1)
    one = torch.stack([copies[k].roll(-int(y[k, 0])) for k in range(COPIES)]).mean(0)
    one = one.roll(as_the_signal(one, signal))

    print(result.reason)
    shifts_found = 1 - float(problem.error(result.x))
    print(f"right differences: {float(right):.0%}; shifts found: {shifts_found:.0%}")
    for name, estimate in (
        ("aligned with the first copy", one),
        ("aligned jointly", aligned.mean(0)),
    ):
        distance = (estimate - signal).norm() / signal.norm()
        print(f"mean of the copies, {name}: relative error {float(distance):.2f}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(copies, aligned, signal, one).savefig(out / "shifted_signals.png")


def as_the_signal(estimate: Tensor, signal: Tensor) -> int:
    """How far the estimate must be shifted: a shift common to all copies cannot be known."""
    rotations = torch.stack([estimate.roll(k) for k in range(LENGTH)])
    return int((rotations - signal).norm(dim=1).argmin())


def draw(copies: Tensor, aligned: Tensor, signal: Tensor, one: Tensor) -> Figure:
    """The copies as they came and aligned, and their means beside the signal."""
    figure = Figure(figsize=(10, 2.8), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes, rows, title in ((left, copies, "copies"), (middle, aligned, "aligned jointly")):
        axes.imshow(rows.numpy(), cmap="gray", aspect="auto", vmin=-3, vmax=4)
        axes.set_title(f"{COPIES} {title}", fontsize=10)
        axes.set_xlabel("sample")
        axes.set_ylabel("copy")
    right.plot(signal, color="#000000", lw=3, alpha=0.35, label="signal")
    right.plot(one, color="#D55E00", lw=1.2, ls="--", label="mean, aligned with the first")
    right.plot(aligned.mean(0), color="#0072B2", lw=1.5, label="mean, aligned jointly")
    right.set_title("what they are copies of", fontsize=10)
    right.set_xlabel("sample")
    right.set_ylim(-2, 8)
    right.legend(fontsize=8, loc="upper right")
    return figure


if __name__ == "__main__":
    main()
