r"""Training a ReLU network ends on kinks, and hardly ever on flat ones.

Gaussian data and targets, squared error, a network of two layers; Adam on the full batch with a
step size that decays from 1e-2 to 1e-8. The point is then put on its kinks and tested by
`thalweg.curvature.relu.check_local_optimality`. Counted are the pairs (sample, node) on a kink (M),
those with a side to which the risk is flat at first order (L; the test solves up to 2^L quadratic
programs), and those flat on both sides (K).

The weights begin Gaussian, the outer bias at 0. Begun at a Gaussian, it drives more runs into the
region where a node is active on all data and the network linear: there no sample is on a kink.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from thalweg import optim
from thalweg.curvature.relu import TwoLayerReLU, check_local_optimality
from thalweg.curvature.relu import Verdict as PointVerdict
from thalweg.studies.intervals import above, below, mean_interval, share_interval
from thalweg.studies.study import COLOURS, Claim, Part, Row, Scale, Verdict, Word, column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

claim = Claim(
    title="Adam ends on the kinks of a ReLU network, hardly ever on flat ones",
    paper="Yun, Sra & Jadbabaie, ICLR 2019, arXiv:1809.10858",
    year=2019,
    sentence="Where training of a two-layer ReLU network ends, many data points lie exactly on a "
    "kink, so the risk is not differentiable there; but flat extreme rays, which make the exact "
    "test of local optimality exponential, are rare.",
    expected="about 7 kinks a run for 10 inputs, 1 node and 1000 samples (290 in the paper's 40 "
    "runs); none of them flat",
    refuted_by="runs that end on one kink or none; flat rays at 10 % of the kinks or more; a run "
    "with more than 3 flat kinks",
)

Setting = tuple[int, int, int, int, int]
"""d_x, d_h, m, runs, steps."""
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "smoke": ((4, 1, 150, 6, 4000),),
    "laptop": ((10, 1, 1000, 10, 50_000),),
    "full": ((10, 1, 1000, 40, 200_000), (100, 1, 1000, 40, 200_000)),
}
FIRST_STEP, LAST_STEP = 1e-2, 1e-8
MOST_FLAT_KINKS, SMALL_SHARE = 3, 0.1


def run(scale: Scale, seed: int) -> Iterator[Row]:
    """One row a run: its counts and the verdict on the point it ended at."""
    for d_x, d_h, m, runs, steps in SETTINGS[scale]:
        generator = torch.Generator().manual_seed(seed)
        for number, network in enumerate(trained(d_x, d_h, m, runs, steps, generator)):
            verdict = check_local_optimality(network)
            yield {
                "d_x": d_x,
                "d_h": d_h,
                "m": m,
                "run": number,
                "risk": network.risk() / m,
                "M": verdict.M,
                "L": verdict.L,
                "K": verdict.K,
                "verdict": verdict.verdict.name,
                "displacement": verdict.displacement,
                "decrease": 0.0 if verdict.step is None else verdict.step.decrease,
            }


def trained(
    d_x: int, d_h: int, m: int, runs: int, steps: int, generator: torch.Generator
) -> list[TwoLayerReLU]:
    """Networks trained by Adam, all runs at once: Adam's rule is elementwise.

    Examples
    --------
    >>> networks = trained(2, 1, 20, runs=2, steps=10, generator=torch.Generator().manual_seed(0))
    >>> [network.sizes for network in networks]
    [(20, 2, 1, 1), (20, 2, 1, 1)]
    """

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(runs, *shape, generator=generator, dtype=torch.float64)

    X, y = gaussian(m, d_x), gaussian(1, m)
    Xb = torch.cat([X, X.new_ones(runs, m, 1)], dim=2)
    W, W2 = gaussian(d_h, d_x + 1) / d_x**0.5, gaussian(1, d_h) / d_h**0.5
    b2 = W.new_zeros(runs, 1, 1)
    parameters = [torch.nn.Parameter(p) for p in (W, W2, b2)]
    optimizer = optim.Adam(parameters, lr=FIRST_STEP)
    XbT = Xb.transpose(1, 2).contiguous()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** (step / steps)
        W, W2, b2 = (p.detach() for p in parameters)
        t = W @ XbT
        o = t.clamp(min=0)
        gl = (W2 @ o + b2 - y) / m
        parameters[0].grad = (W2.transpose(1, 2) * gl * (t > 0)) @ Xb
        parameters[1].grad = gl @ o.transpose(1, 2)
        parameters[2].grad = gl.sum(dim=2, keepdim=True)
        optimizer.step()
    W, W2, b2 = (p.detach() for p in parameters)
    return [
        TwoLayerReLU(W[r, :, :-1], W[r, :, -1], W2[r], b2[r, 0], X[r], y[r, 0], "mse")
        for r in range(runs)
    ]


def verdict(rows: Sequence[Row]) -> Verdict:
    """Holds if kinks are many, flat ones are a small share of them, and no run has many."""
    words = Counter(str(row["verdict"]) for row in rows)
    unsettled = [PointVerdict.DESCENT_FIRST_ORDER, PointVerdict.INCONCLUSIVE]
    open_runs = sum(words[word.name] for word in (*unsettled, PointVerdict.DEGENERATE))
    M, L, K = (column(rows, name) for name in ("M", "L", "K"))
    kinks, flat = int(M.sum()), int(L.sum())
    mean = mean_interval(M)
    share = share_interval(flat, kinks) if kinks else (float("nan"), float("nan"))
    parts = [
        Part(
            "every run ended where the test reaches its second order",
            Word.HOLDS if open_runs == 0 else Word.FAILS,
            float(open_runs),
            None,
            "runs that did not: L is not counted completely there",
            control=True,
        ),
        Part(
            "more than 1 kink a run on average",
            above(mean, 1.0),
            float(M.mean()),
            mean,
            f"{int(M.min())} to {int(M.max())} a run",
        ),
        Part(
            "fewer than 10 % of the kinks are flat",
            below(share, SMALL_SHARE),
            flat / kinks if kinks else None,
            share,
            f"L = {flat} of M = {kinks}, K = {int(K.sum())}; kinks taken as independent",
        ),
        Part(
            "at most 3 flat kinks in a run, so at most 8 quadratic programs",
            Word.HOLDS if L.max() <= MOST_FLAT_KINKS else Word.FAILS,
            float(L.max()),
            None,
        ),
    ]
    told = ", ".join(f"{count} {name}" for name, count in sorted(words.items()))
    sentence = (
        f"Adam ended on {M.mean():.1f} kinks a run [{mean[0]:.1f}, {mean[1]:.1f}], of which "
        f"{flat} of {kinks} were flat; the points: {told}."
    )
    return Verdict.all_of(parts, sentence=sentence, pairs=None)


def figure(rows: Sequence[Row]) -> Figure:
    """Kinks of each run, flat ones on top of them, and what kind of point it ended at."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 3.8), layout="constrained")
    counts, kinds = drawn.subplots(1, 2, width_ratios=(2, 1))
    runs = np.arange(len(rows))
    counts.bar(runs, column(rows, "M"), color=COLOURS[0], label="kinks M")
    counts.bar(runs, column(rows, "L"), color=COLOURS[1], width=0.5, label="flat ones L")
    settings = sorted({(int(row["d_x"]), int(row["d_h"]), int(row["m"])) for row in rows})
    named = "; ".join(f"$d_x$ = {d_x}, $d_h$ = {d_h}, m = {m}" for d_x, d_h, m in settings)
    counts.set(
        title=f"Samples on a kink where Adam ended ({named})",
        xlabel="run",
        ylabel="(sample, node) pairs",
    )
    counts.yaxis.get_major_locator().set_params(integer=True)
    counts.legend()
    names = [word.name for word in PointVerdict]
    words = Counter(str(row["verdict"]) for row in rows)
    labels = [name.replace("_", " ").lower() for name in names]
    kinds.barh(labels, [words[name] for name in names], color=COLOURS[2])
    kinds.invert_yaxis()
    kinds.set(title="Verdict on the point", xlabel="runs")
    kinds.xaxis.get_major_locator().set_params(integer=True)
    return drawn
