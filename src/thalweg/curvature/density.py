"""The spectral density of a curvature operator, by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.estimate import Estimate
from thalweg.numeric.krylov.lanczos import Lanczos, multiply, sphere
from thalweg.numeric.krylov.ritz import relative_noise
from thalweg.numeric.operator import Counted, LinearOperator


class Curve(NamedTuple):
    """A smoothed density on a grid.

    Attributes
    ----------
    x
        Eigenvalues.
    y
        Density: the mean over the probes.
    stderr
        Its standard error over the probes; NaN with one probe.
    """

    x: Tensor
    y: Tensor
    stderr: Tensor


class MassBelow(NamedTuple):
    r"""The fraction of eigenvalues at or below a level.

    Attributes
    ----------
    estimate
        Mean over the probes with its standard error.
    lower, upper
        Means over the probes of what Gauss quadrature proves: every probe's own spectral measure
        has a mass between them, however few the steps. Sampling error comes on top.
    """

    estimate: Estimate
    lower: Estimate
    upper: Estimate


@dataclass(frozen=True)
class Density:
    r"""The spectral measure as atoms: :math:`\mu = \frac{1}{r} \sum_r \sum_j w_j\, \delta(t_j)`.

    Attributes
    ----------
    nodes, weights
        One float64 tensor per probe; nodes ascend, weights sum to 1. A probe whose Krylov space
        became invariant has fewer than `steps`.
    steps
        Lanczos steps asked for (fewer, if memory did not allow more).
    n
        Order of the operator.
    n_products
        Products spent.
    noise
        Error of one product: nodes are known no better.
    """

    nodes: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    steps: int
    n: int
    n_products: int
    noise: float

    @property
    def probes(self) -> int:
        """How many starts."""
        return len(self.nodes)

    @property
    def lowest(self) -> float:
        """The lowest node: the smallest eigenvalue is at or below it."""
        return min(float(t[0]) for t in self.nodes)

    @property
    def highest(self) -> float:
        """The highest node: the largest eigenvalue is at or above it."""
        return max(float(t[-1]) for t in self.nodes)

    @property
    def sigma(self) -> float:
        """The default width of the smoothing: 1 % of the range of nodes."""
        width = self.highest - self.lowest
        size = max(abs(self.lowest), abs(self.highest))
        return 0.01 * (width if width > 1e-9 * size else size or 1.0)

    def curve(self, grid: Tensor | int = 1000, sigma: float | None = None) -> Curve:
        r"""The density smoothed by a Gaussian.

        .. math:: p(x) = \frac{1}{r} \sum_r \sum_j w_j\, \mathcal{N}(x;\, t_j, \sigma^2)

        Parameters
        ----------
        grid
            Where: a tensor, or a number of points over the nodes and 5 sigma beyond. Default 1000.
        sigma
            > 0. Default: 1 % of the range of nodes.

        Returns
        -------
        Curve
            ``x``, ``y``, ``stderr``, float64.

        Examples
        --------
        >>> from thalweg.numeric.operator import as_operator
        >>> found = density(as_operator(torch.eye(20, dtype=torch.float64)), steps=5, probes=2)
        >>> x, y, _ = found.curve()
        >>> round(float(torch.trapezoid(y, x)), 4)
        1.0
        """
        sigma = self.sigma if sigma is None else float(check.number("sigma", sigma, gt=0))
        if isinstance(grid, Tensor):
            x = grid.to("cpu", torch.float64)
        else:
            points = int(check.number("grid", grid, ge=2, integer=True))
            x = torch.linspace(
                self.lowest - 5 * sigma, self.highest + 5 * sigma, points, dtype=torch.float64
            )
        each = torch.stack(
            [
                torch.exp(-0.5 * ((x[:, None] - t) / sigma) ** 2) @ w
                for t, w in zip(self.nodes, self.weights)
            ]
        ) / (sigma * math.sqrt(2 * math.pi))
        if self.probes == 1:
            return Curve(x, each[0], torch.full_like(x, math.nan))
        return Curve(x, each.mean(0), each.std(0) / math.sqrt(self.probes))

    def mass_below(self, level: float = 0.0) -> MassBelow:
        r"""The fraction of eigenvalues :math:`\le` `level`, without smoothing.

        With j nodes at or below the level, the mass of one probe's measure lies between the sums of
        its first j - 1 and its first j + 1 weights.

        Parameters
        ----------
        level
            A number; ``-tau`` for the mass of clearly negative curvature. Default 0.

        Returns
        -------
        MassBelow
            ``estimate``, ``lower``, ``upper``.

        Examples
        --------
        >>> from thalweg.numeric.operator import as_operator
        >>> H = as_operator(torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64)))
        >>> round(density(H, probes=4).mass_below(-0.5).estimate.value, 12)
        0.25
        """
        level = float(check.number("level", level))
        masses: tuple[list[float], ...] = ([], [], [])
        for t, w in zip(self.nodes, self.weights):
            j = int((t <= level).sum())
            cumulated = [0.0, *torch.cumsum(w, 0).tolist()]
            masses[0].append(cumulated[j])
            masses[1].append(cumulated[max(j - 1, 0)])
            masses[2].append(cumulated[min(j + 1, len(w))])
        return MassBelow(*(_mean(mass) for mass in masses))

    def moment(self, order: int = 1) -> Estimate:
        r"""The mean of :math:`\lambda^p`: :math:`\operatorname{tr}(H)/d` for p = 1,
        :math:`\|H\|_F^2/d` for p = 2.

        Exact for each probe, :math:`v^T H^p v`, up to order 2 k - 1 of k steps.

        Parameters
        ----------
        order
            p >= 0. Default 1.

        Returns
        -------
        Estimate
            Mean and standard error over the probes.

        Examples
        --------
        >>> from thalweg.numeric.operator import as_operator
        >>> H = as_operator(torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)))
        >>> round(density(H, probes=3).moment(2).value, 9)
        4.666666667
        """
        order = int(check.number("order", order, ge=0, integer=True))
        return _mean([float(w @ t**order) for t, w in zip(self.nodes, self.weights)])

    def __str__(self) -> str:
        below = self.mass_below(0.0)
        return (
            f"spectral density of {self.probes} probes of {self.steps} Lanczos steps, "
            f"n = {self.n}, {self.n_products} products\n"
            f"nodes in [{self.lowest:.6g}, {self.highest:.6g}], mean {self.moment(1)}\n"
            f"fraction <= 0: {below.estimate} "
            f"(quadrature: {below.lower.value:.4g} to {below.upper.value:.4g})"
        )


def density(
    H: LinearOperator,
    steps: int = 100,
    probes: int = 10,
    *,
    probe: Literal["rademacher", "gaussian"] = "rademacher",
    memory: int = 2**31,
    noise: float | None = None,
    generator: torch.Generator | None = None,
) -> Density:
    r"""Spectral density of a symmetric operator by stochastic Lanczos quadrature.

    For each of r random unit vectors v, k Lanczos steps give a tridiagonal
    :math:`T = Z \operatorname{diag}(t) Z^T`, and the spectral measure of v is about

    .. math:: \sum_j w_j\, \delta(t_j), \qquad w_j = Z_{1j}^2, \qquad
              \sum_j w_j t_j^p = v^T H^p v \quad (p \le 2k - 1)

    whose mean over v is the distribution of the eigenvalues.

    Parameters
    ----------
    H
        Symmetric (Hermitian), of order d.
    steps
        k >= 1; at most d. Default 100.
    probes
        r >= 1. Default 10; one gives no standard error. Probes advance together, with one block
        product a step, as many at a time as `memory` allows.
    probe
        ``"rademacher"`` (default) or ``"gaussian"``.
    memory
        Bytes of basis vectors, > 0. Default 2 GiB. If not even one probe fits, there are fewer
        steps, and a warning says so.
    noise
        Error of a product with a unit vector. Default 1e-6 (float32) or 1e-14 (float64) times the
        largest absolute node.
    generator
        Source of the probes. Default: a new one of seed 0. The global generators are not used.

    Returns
    -------
    Density
        Nodes and weights per probe, `curve`, `mass_below`, `moment`.

    Raises
    ------
    ValueError
        For an argument out of range, or an operator that is not symmetric or not finite.

    Examples
    --------
    >>> from thalweg.numeric.operator import as_operator
    >>> H = as_operator(torch.diag(torch.tensor([5.0, 1.0, 1.0, 1.0], dtype=torch.float64)))
    >>> found = density(H, probes=2)
    >>> [round(t, 9) for t in found.nodes[0].tolist()]
    [1.0, 5.0]
    >>> [round(w, 9) for w in found.weights[0].tolist()]
    [0.75, 0.25]

    References
    ----------
    Lin, Saad & Yang, "Approximating spectral densities of large matrices", SIAM Review 58(1),
    2016; Ghorbani, Krishnan & Xiao, "An investigation into neural net optimization via Hessian
    eigenvalue density", ICML 2019 (arXiv 1901.10159).
    """
    d = H.shape[0]
    steps = min(int(check.number("steps", steps, ge=1, integer=True)), d)
    probes = int(check.number("probes", probes, ge=1, integer=True))
    check.choice("probe", probe, ("rademacher", "gaussian"))
    check.number("memory", memory, gt=0)
    if noise is not None:
        check.number("noise", noise, ge=0)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    fit = int(memory // (d * H.dtype.itemsize))
    if fit < steps:
        if fit < 1:
            raise ValueError(f"memory must be >= {d * H.dtype.itemsize} bytes, got {memory}")
        check.warn(f"density: memory = {memory} bytes hold {fit} vectors, so steps = {fit}")
        steps = fit
    together = max(1, fit // steps)
    counted = Counted(H)
    nodes: list[Tensor] = []
    weights: list[Tensor] = []
    scale = 0.0
    for first in range(0, probes, together):
        starts = [_start(H, probe, generator) for _ in range(min(together, probes - first))]
        processes = [Lanczos(start, capacity=steps) for start in starts]
        for _ in range(steps):
            # what is left of an invariant space is rounding: the probe ends, it is exact
            active = [process for process in processes if process.active]
            if not active:
                break
            vectors = [process.V for process in active]
            W = multiply(counted, vectors[0] if len(active) == 1 else torch.cat(vectors, dim=1))
            for process, w in zip(active, W.split(1, dim=1)):
                process.step(w)
        for process in processes:
            t, Z, _ = process.ritz()
            nodes.append(t)
            weights.append(Z[0].abs() ** 2)
            scale = max(scale, float(t.abs().max()))
    error = relative_noise(H.dtype) * scale if noise is None else noise
    return Density(tuple(nodes), tuple(weights), steps, d, counted.n_products, error)


def _start(H: LinearOperator, probe: str, generator: torch.Generator) -> Tensor:
    d = H.shape[0]
    if probe == "gaussian":
        return sphere(d, 1, generator, H.dtype, H.device)
    bits = torch.randint(2, (d, 1), generator=generator, device=generator.device)
    return (2 * bits - 1).to(device=H.device, dtype=H.dtype) / math.sqrt(d)


def _mean(samples: list[float]) -> Estimate:
    return Estimate.of(torch.tensor(samples, dtype=torch.float64))
