"""`JointAlignment`: shifts from noisy differences of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.numeric.krylov import leading_eigs
from thalweg.solve.recovery.alignment_product import DifferenceProduct
from thalweg.solve.recovery.graph import components, warn_of_components


@dataclass(frozen=True, eq=False)
class JointAlignment:
    r"""Recover shifts :math:`x_i \in \{0, \dots, m - 1\}` from noisy differences of pairs.

    .. math:: y_{ij} = x_i - x_j + \eta_{ij} \bmod m, \qquad
        \max_z \; z^T L z, \quad L_{ij}[a, b] = g(y_{ij} - a + b)

    The unknown is held as n points of the simplex, :math:`z_i = e_{x_i}` when decided; `labels`
    reads the shifts off. The shifts are known up to one that is common to all.

    Parameters
    ----------
    y
        Integers in ``[0, m)``, -1 where nothing was measured, shape ``(n, n)``, with
        :math:`y_{ij} + y_{ji} = 0 \bmod m`. The diagonal is not used.
    m
        Number of shifts, >= 2.
    log_likelihood
        :math:`g(\eta)`, of the noise :math:`\eta = 0, \dots, m - 1`, up to a factor and a constant;
        shape ``(m,)``, with :math:`g(\eta) = g(-\eta)`. Default: 1 at zero, else 0, for noise that
        is uniform when there is any.
    truth
        The shifts ``(n,)``, or z ``(n, m)``, where they are known.
    dtype
        Of z. Default: that of `log_likelihood`, else float64.

    Raises
    ------
    ValueError
        For values out of range, or an asymmetric y or g. A graph in several components is a
        warning: shifts are then known within each only.

    Examples
    --------
    >>> from thalweg.solve.recovery import projected_power_method
    >>> generator = torch.Generator().manual_seed(0)
    >>> problem = JointAlignment.random(50, 10, 0.4, generator=generator)
    >>> result = projected_power_method(problem)
    >>> problem.error(result.x).item()
    0.0

    References
    ----------
    Chen & Candes, "The projected power method: an efficient algorithm for joint alignment from
    pairwise differences", Communications on Pure and Applied Mathematics 2018, arXiv:1609.05820.
    """

    y: Tensor
    m: int
    log_likelihood: Tensor | None = None
    truth: Tensor | None = None
    dtype: torch.dtype | None = None
    components: Tensor = field(init=False, repr=False)
    """For each shift the number of its component of the graph, shape ``(n,)``."""
    differences: DifferenceProduct = field(init=False, repr=False)
    """The product with L, every block less its mean."""

    def __post_init__(self) -> None:
        m = int(check.number("m", self.m, ge=2, integer=True))
        y = self.y
        if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex():
            raise TypeError("y must be a tensor of integers in [0, m), or -1 for not measured")
        if y.ndim != 2 or y.shape[0] != y.shape[1] or 0 in y.shape:
            raise ValueError(f"y must have shape (n, n), got {tuple(y.shape)}")
        off = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
        wrong = ((y < -1) | (y >= m)) & off
        if wrong.any():
            i, j = wrong.nonzero()[0].tolist()
            raise ValueError(f"y must be in [0, {m}), or -1, got {int(y[i, j])} at ({i}, {j})")
        seen = (y >= 0) & off
        wrong = (seen != seen.mT) | (seen & seen.mT & ((y + y.mT) % m != 0))
        if wrong.any():
            i, j = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"y must have y_ij + y_ji = 0 mod m, got {int(y[i, j])} at ({i}, {j}) and "
                f"{int(y[j, i])} at ({j}, {i})"
            )
        g = self.log_likelihood
        if g is None:
            g = torch.eye(1, m, dtype=self.dtype or torch.float64, device=y.device)[0]
        check.floating("log_likelihood", g)
        if tuple(g.shape) != (m,) or not torch.isfinite(g).all():
            raise ValueError(
                f"log_likelihood must have shape ({m},) and finite entries, got {tuple(g.shape)}"
            )
        if not torch.allclose(g, g.roll(-1).flip(0), rtol=1e-6, atol=1e-6 * float(g.abs().max())):
            raise ValueError(
                "log_likelihood must be the same for a noise and its negative, mod m: y_ij and "
                "y_ji are one measurement"
            )
        if float(g.max()) == float(g.min()):
            raise ValueError("log_likelihood must not be constant: nothing would be measured")
        g = g.to(dtype=self.dtype or g.dtype, device=y.device)
        rows, cols = seen.nonzero(as_tuple=True)
        object.__setattr__(self, "dtype", g.dtype)
        object.__setattr__(self, "components", components(rows, cols, len(y)))
        object.__setattr__(self, "differences", DifferenceProduct(y.masked_fill(~seen, -1), g))
        warn_of_components(self.components, "y", "shifts")
        if self.truth is not None:
            self._point("truth", self.truth)

    @property
    def n(self) -> int:
        """Number of shifts."""
        return len(self.y)

    @classmethod
    def random(
        cls,
        n: int = 100,
        m: int = 10,
        correct: float = 0.25,
        *,
        density: float = 1.0,
        dtype: torch.dtype = torch.float64,
        generator: torch.Generator | None = None,
    ) -> JointAlignment:
        """Uniform shifts; a difference is right with probability `correct`, else uniform.

        Parameters
        ----------
        n, m
            How many shifts, and of how many values.
        correct
            Probability in [0, 1]. Default 0.25.
        density
            Share of pairs that are measured, in (0, 1]. Default 1.
        dtype, generator
            Of z, and where the numbers come from.

        Examples
        --------
        >>> JointAlignment.random(4, 3, 1.0, generator=torch.Generator().manual_seed(0)).y.shape
        torch.Size([4, 4])
        """
        check.number("n", n, ge=1, integer=True)
        check.number("m", m, ge=2, integer=True)
        check.number("correct", correct, ge=0, le=1)
        check.number("density", density, gt=0, le=1)
        device = generator.device if generator is not None else torch.device("cpu")
        how: dict[str, Any] = {"generator": generator, "device": device}
        x = torch.randint(m, (n,), **how)
        right = torch.rand(n, n, **how) < correct
        y = torch.where(right, (x[:, None] - x) % m, torch.randint(m, (n, n), **how)).triu(1)
        y = (y - y.mT) % m
        seen = (torch.rand(n, n, **how) < density).triu(1)
        return cls(torch.where(seen | seen.mT, y, -1), m, truth=x, dtype=dtype)

    def labels(self, x: Tensor) -> Tensor:
        """The shifts of z, ``(n,)``: the largest entry of each row; ties go to the lowest."""
        return highest(x) if x.is_floating_point() else x

    def misfit(self, x: Tensor) -> Tensor:
        r"""What rounding the product would change: :math:`\operatorname{round}(L z) - z`."""
        return self.rounded(self.differences(x)) - x

    def rounded(self, u: Tensor) -> Tensor:
        """The corner of the simplex at the largest entry of each row; ties go to the lowest."""
        return torch.nn.functional.one_hot(highest(u), self.m).to(u.dtype)

    def value(self, x: Tensor) -> Tensor:
        r"""The log-likelihood that z gives away, at most: every pair's best, less its own."""
        return self.value_at(x, self.differences(x))

    def value_of(self, x: Tensor, misfit: Tensor) -> Tensor:
        """`value`; the misfit does not help."""
        return self.value(x)

    def value_at(self, x: Tensor, u: Tensor) -> Tensor:
        """`value`, where u = L z is at hand."""
        g = self.differences.g
        return (self.differences.pairs * g.max() - (x * u).sum()).clamp(min=0) / 2

    def residual(self, x: Tensor) -> Tensor:
        r"""The gap :math:`\|\operatorname{round}(L z) - z\| / \sqrt n`: zero at a fixed point."""
        return self.residual_of(self.misfit(x))

    def residual_of(self, misfit: Tensor) -> Tensor:
        """The gap's size, from a misfit already at hand."""
        return misfit.norm() / math.sqrt(self.n)

    def error(self, x: Tensor) -> Tensor:
        r"""Share of wrong shifts, up to one common to each component, where the truth is known.

        .. math:: \min_k \operatorname{mean}_i \; 1\{x_i + k \ne x^*_i \bmod m\}
        """
        if self.truth is None:
            raise ValueError("error needs a problem that knows its truth, got truth=None")
        differences = (self.labels(self.truth) - self.labels(x)) % self.m
        right = 0
        for c in range(int(self.components.max()) + 1):
            right += int(differences[self.components == c].bincount().max())
        return torch.tensor(1 - right / self.n, dtype=self.dtype)

    def start(self, start: Any = "spectral", generator: torch.Generator | None = None) -> Tensor:
        """The point a method begins at.

        Parameters
        ----------
        start
            ``"spectral"`` (a random column of L cut down to its m - 1 leading eigenpairs,
            rounded), ``"random"`` (random shifts), or shifts or z to continue from.
        generator
            Of both. Default: a new one of seed 0 for the spectral start.
        """
        if isinstance(start, Tensor):
            return self._point("start", start)
        check.choice("start", start, ("spectral", "random"))
        device = self.y.device
        if start == "random":
            x = torch.randint(self.m, (self.n,), generator=generator, device=device)
            return torch.nn.functional.one_hot(x, self.m).to(self.dtype)
        generator = generator or torch.Generator(device).manual_seed(0)
        values, vectors = self.eigenpairs
        start_at = torch.zeros(self.n, self.m, dtype=self.dtype, device=device)
        for c in range(int(self.components.max()) + 1):
            members = (self.components == c).nonzero().squeeze(1)
            pick = torch.randint(len(members) * self.m, (), generator=generator, device=device)
            column = int(members[pick // self.m] * self.m + pick % self.m)
            part = (vectors @ (values * vectors[column])).unflatten(0, (self.n, self.m))
            start_at[members] = part[members]
        return self.rounded(start_at)

    @cached_property
    def eigenpairs(self) -> tuple[Tensor, Tensor]:
        """The m - 1 leading eigenpairs of L: the rank it has without noise, blocks less means."""
        product, n, m = self.differences, self.n, self.m
        k = (m - 1) * (int(self.components.max()) + 1)
        dtype = product.g.dtype

        def matmat(W: Tensor) -> Tensor:
            return product(W.mT.unflatten(-1, (n, m))).flatten(-2).mT

        return leading_eigs(matmat, n * m, min(k, n * m), dtype, device=self.y.device)

    def _point(self, name: str, x: Tensor) -> Tensor:
        """z of shifts or of z itself."""
        if tuple(x.shape) == (self.n,) and not x.is_floating_point():
            if ((x < 0) | (x >= self.m)).any():
                raise ValueError(f"{name} must be in [0, {self.m}), got {x.min()} to {x.max()}")
            return torch.nn.functional.one_hot(x, self.m).to(self.differences.g)
        if tuple(x.shape) == (self.n, self.m) and x.is_floating_point():
            return x.to(self.differences.g)
        raise ValueError(
            f"{name} must hold shifts of shape ({self.n},) or points of simplices of shape "
            f"({self.n}, {self.m}), got shape {tuple(x.shape)} of {x.dtype}"
        )


def highest(u: Tensor) -> Tensor:
    """Where each row is largest; the lowest index among those equal up to rounding.

    Examples
    --------
    >>> highest(torch.tensor([[0.0, 2.0, 2.0], [3.0, 1.0, 0.0]]))
    tensor([1, 0])
    """
    most = u.amax(-1, keepdim=True)
    slack = 1000 * torch.finfo(u.dtype).eps * u.abs().amax()
    return (u >= most - slack).to(torch.uint8).argmax(-1)
