"""Sparse Bayesian learning: with the Kronecker structure of the dictionary, and without."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from thalweg.core import Reason, Result, Stop, check, iterate
from thalweg.core.catalogue import Choice, LogUniform, method
from thalweg.solve.recovery.kronecker import KroneckerSparse, Posterior, outer
from thalweg.solve.recovery.kronecker_steps import (
    Expectation,
    alternating_update,
    classical_expectation,
    expectation,
    learned_noise,
    singular_update,
)

Start = str | Posterior
EStep = Callable[[Sequence[Tensor], Tensor, Sequence[Tensor], Tensor], Expectation]
MStep = Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]]


@method(
    paper="He & Joseph, IEEE Trans. Signal Processing 2024, arXiv:2307.14719",
    year=2024,
    family="sparse Bayesian learning",
    problems=(KroneckerSparse,),
    memory="4 per unknown",
    search_space={
        "update": Choice(("alternating", "svd")),
        "prune": LogUniform(1e-4, 1e-1),
    },
)
def kronecker_sbl(
    problem: KroneckerSparse,
    *,
    update: Literal["alternating", "svd"] = "alternating",
    prune: float | None = None,
    start: Start = "uniform",
    tol: float = 1e-4,
    max_steps: int = 150,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Posterior]:
    r"""Sparse Bayesian learning (KroSBL) whose prior variances are a Kronecker product.

    .. math:: x \sim N(0, \mathrm{diag}(g_1 \otimes \dots \otimes g_I)), \qquad
        \min_{g, \sigma^2} \; \log\det \Sigma_y + y^* \Sigma_y^{-1} y, \qquad
        \Sigma_y = \sigma^2 I + H\, \mathrm{diag}(g_1 \otimes \dots \otimes g_I)\, H^*

    by expectation maximization. Prior variances that become small are pruned, so that x is sparse.
    The E-step is exact and forms no matrix larger than the dictionaries.

    Parameters
    ----------
    problem
        A `KroneckerSparse`.
    update
        The M-step: ``"alternating"`` (default; the cost never rises but by pruning), or ``"svd"``
        (five to ten times as fast; now and then it ends at a wrong support).
    prune
        Drop entries of a factor below this times its largest, in [0, 1). Default 1e-2, with
        ``"svd"`` 1e-3; 0 drops none.
    start
        ``"uniform"`` (default): all variances 1; ``"random"``; or a `Posterior` to continue from.
    tol
        Stop at this relative change of the prior variances, >= 0. Default 1e-4.
    max_steps, max_seconds
        Limits. Default 150 steps, no limit of time.
    generator
        Of the random start.
    callback, progress
        As in `thalweg.core.iterate`.

    Returns
    -------
    Result
        ``x`` is a `Posterior`. With ``trace["cost"]`` (which `value` is), ``trace["residual"]``,
        ``trace["noise"]`` and, for a problem that knows its truth, ``trace["error"]``, whose square
        is the NMSE.

    Notes
    -----
    Not free of scale: dictionaries should have columns of norm about 1, and entries of x a size
    about 1 (all prior variances start at 1).

    Examples
    --------
    >>> problem = KroneckerSparse.random(generator=torch.Generator().manual_seed(1))
    >>> result = kronecker_sbl(problem, update="svd")
    >>> result.reason.name, int(result.x.mean.count_nonzero())
    ('TOLERANCE', 8)
    """
    check.choice("update", update, ("alternating", "svd"))
    if prune is None:
        prune = 1e-2 if update == "alternating" else 1e-3
    m_step = alternating_update if update == "alternating" else singular_update
    y = problem.y.reshape(problem.measured)
    return _learn(
        problem,
        problem.dictionaries,
        y,
        expectation,
        m_step,
        prune=prune,
        start=start,
        tol=tol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        generator=generator,
        callback=callback,
        progress=progress,
    )


@method(
    paper="Wipf & Rao, IEEE Trans. Signal Processing 2004",
    year=2004,
    family="sparse Bayesian learning",
    problems=(KroneckerSparse,),
    memory="1 per entry of the Kronecker product",
    search_space={"prune": LogUniform(1e-4, 1e-1)},
)
def classical_sbl(
    problem: KroneckerSparse,
    *,
    prune: float = 1e-3,
    start: Start = "uniform",
    tol: float = 1e-4,
    max_steps: int = 150,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[Posterior]:
    r"""Sparse Bayesian learning with one variance of its own for each unknown: the baseline.

    .. math:: \gamma_j \leftarrow \Sigma_{jj} + |\mu_j|^2

    by expectation maximization on the Kronecker product as a matrix: O(M^2 N) a step.

    Parameters
    ----------
    problem
        A `KroneckerSparse`.
    prune
        Drop unknowns whose variance is below this times the largest, in [0, 1). Default 1e-3.
    start, tol, max_steps, max_seconds, generator, callback, progress
        As in `kronecker_sbl`.

    Returns
    -------
    Result
        As from `kronecker_sbl`, with a single factor.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = KroneckerSparse.random((6, 6), (8, 8), (2, 2), generator=generator)
    >>> problem.error(classical_sbl(problem).x).item() < 0.1
    True
    """
    return _learn(
        problem,
        [problem.dense()],
        problem.y,
        classical_expectation,
        lambda d, factors: [d],
        prune=prune,
        start=start,
        tol=tol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        generator=generator,
        callback=callback,
        progress=progress,
    )


class _State(NamedTuple):
    kept: tuple[Tensor, ...]
    """The indices of each factor that are not pruned."""
    factors: tuple[Tensor, ...]
    noise: Tensor
    found: Expectation
    change: Tensor
    """Of the prior variances, relative; infinite (the largest number) at the start."""


def _learn(
    problem: KroneckerSparse,
    dictionaries: Sequence[Tensor],
    y: Tensor,
    e_step: EStep,
    m_step: MStep,
    *,
    prune: float,
    start: Start,
    tol: float,
    max_steps: int,
    max_seconds: float | None,
    generator: torch.Generator | None,
    callback: Callable[[Result[Any]], object] | None,
    progress: bool,
) -> Result[Posterior]:
    """Expectation maximization; only what is not pruned is worked with."""
    check.number("prune", prune, ge=0, lt=1)
    check.number("tol", tol, ge=0)
    sizes = [int(H.shape[1]) for H in dictionaries]
    energy = problem.y.abs().square().mean()
    least = 1e-10 * energy

    def at(
        kept: Sequence[Tensor], factors: Sequence[Tensor], noise: Tensor, change: Tensor
    ) -> _State:
        columns = [H[:, k] for H, k in zip(dictionaries, kept, strict=True)]
        found = e_step(columns, y, factors, noise)
        return _State(tuple(kept), tuple(factors), noise, found, change)

    def first() -> _State:
        factors, noise = _start(start, sizes, energy, problem.noise, generator)
        kept = [(g > 0).nonzero().flatten() for g in factors]
        factors = [g[k] for g, k in zip(factors, kept, strict=True)]
        large = torch.full_like(energy, torch.finfo(energy.dtype).max)
        return at(kept, factors, noise.clamp(min=least), large)

    def step(state: _State) -> _State:
        if state.change <= tol:
            raise Stop(Reason.TOLERANCE)
        d = state.found.variance + state.found.mean.abs().square()
        noise = state.noise
        if problem.noise is None:
            noise = learned_noise(state.found, state.factors, noise, y.numel()).clamp(min=least)
        factors = m_step(d, state.factors)
        alive = [g >= prune * g.max() for g in factors]
        before = outer(state.factors)
        after = outer([g * a for g, a in zip(factors, alive, strict=True)])
        change = (after - before).norm() / before.norm()
        kept = [k[a] for k, a in zip(state.kept, alive, strict=True)]
        return at(kept, [g[a] for g, a in zip(factors, alive, strict=True)], noise, change)

    def point(state: _State) -> Posterior:
        def whole(values: Tensor) -> Tensor:
            full = values.new_zeros(sizes)
            full[torch.meshgrid(*state.kept, indexing="ij")] = values
            return full.flatten()

        factors = tuple(
            g.new_zeros(n).index_put((k,), g)
            for g, k, n in zip(state.factors, state.kept, sizes, strict=True)
        )
        found = state.found
        return Posterior(whole(found.mean), whole(found.variance), factors, state.noise)

    def measure(state: _State) -> dict[str, Tensor]:
        measures = {
            "cost": state.found.cost,
            "residual": (state.found.misfit2 / (energy * y.numel())).sqrt(),
            "noise": state.noise,
        }
        if problem.truth is not None:
            measures["error"] = problem.error(point(state))
        return measures

    return iterate(
        step,
        first(),
        measure=measure,
        point=point,
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        progress=progress,
    )


def _start(
    start: Start,
    sizes: Sequence[int],
    energy: Tensor,
    noise: float | None,
    generator: torch.Generator | None,
) -> tuple[list[Tensor], Tensor]:
    """The factors and the variance of the noise that learning begins with."""
    given = energy.new_tensor(0.1 * float(energy) if noise is None else noise)
    if isinstance(start, Posterior):
        if [len(g) for g in start.factors] != list(sizes):
            raise ValueError(
                f"start must be a Posterior with factors of the sizes {tuple(sizes)}, "
                f"got {tuple(len(g) for g in start.factors)}"
            )
        return list(start.factors), start.noise if noise is None else given
    check.choice("start", start, ("uniform", "random"))
    factors = [energy.new_full((n,), 1 / math.sqrt(n)) for n in sizes[:-1]]
    factors.append(energy.new_full((sizes[-1],), math.sqrt(math.prod(sizes[:-1]))))
    if start == "random":
        factors = [
            g * (0.5 + torch.rand(g.shape, dtype=g.dtype, device=g.device, generator=generator))
            for g in factors
        ]
    return factors, given
