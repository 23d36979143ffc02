"""`PhaseRetrieval`: recover a signal from the moduli of linear measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.solve.recovery.lines import CodedDiffraction, Lines, Operator, squared_modulus
from thalweg.solve.recovery.phase_start import INITIALIZERS, spectral_start


@dataclass(frozen=True, eq=False)
class PhaseRetrieval:
    r"""Recover z from intensities :math:`y_i = |a_i^* z|^2`, up to a global phase.

    .. math:: \min_z \; f(z) = \frac{1}{2m} \sum_{i=1}^m \left(|a_i^* z|^2 - y_i\right)^2

    A real operator looks for a real signal (up to its sign), a complex one for a complex signal.

    Parameters
    ----------
    operator
        `Lines`, `CodedDiffraction`, or anything with their attributes. Any scale will do.
    y
        The measurements, real, >= 0, of shape ``(m,)`` or ``operator.data_shape``; leading
        dimensions are a batch of signals.
    data
        What y holds: ``"intensity"`` (default), or ``"amplitude"``, :math:`|a_i^* z|`.
    truth
        The signal itself where it is known: methods then trace their error.

    Raises
    ------
    ValueError
        For shapes that do not match, or measurements that are negative, not finite or all zero.
        Fewer of them than tell signals apart (2n - 1 real, 4n - 4 complex) are a warning.

    Examples
    --------
    >>> from thalweg.solve.recovery import truncated_amplitude_flow
    >>> problem = PhaseRetrieval.random(50, 400, generator=torch.Generator().manual_seed(0))
    >>> result = truncated_amplitude_flow(problem, tol=1e-8)
    >>> result.reason.name, problem.error(result.x).item() < 1e-7
    ('TOLERANCE', True)

    References
    ----------
    Chi, Lu, Chen, "Nonconvex Optimization Meets Low-Rank Matrix Factorization: An Overview", IEEE
    Trans. Signal Processing 2019, arXiv:1809.09573.
    """

    operator: Operator
    y: Tensor
    data: Literal["intensity", "amplitude"] = "intensity"
    truth: Tensor | None = None
    intensity: Tensor = field(init=False, repr=False)
    """The intensities over their mean, shape ``(..., m)``: every method works with these."""
    mean: Tensor = field(init=False, repr=False)
    """The mean intensity, shape ``(..., 1)``."""
    energy: Tensor = field(init=False, repr=False)
    r"""The mean of :math:`\|a_i\|^2` over n: 1 for lines of the standard scale."""

    def __post_init__(self) -> None:
        check.floating("y", self.y)
        check.choice("data", self.data, ("intensity", "amplitude"))
        operator = self.operator
        m, n = math.prod(operator.data_shape), math.prod(operator.signal_shape)
        shape = tuple(self.y.shape)
        deep = len(operator.data_shape)
        if shape[-deep:] == operator.data_shape:
            flat = self.y.flatten(-deep)
        elif shape[-1:] == (m,):
            flat = self.y
        else:
            raise ValueError(
                f"y must have shape (..., {m}) or {('...', *operator.data_shape)} "
                f"to go with the operator, got {shape}"
            )
        if self.y.dtype != operator.dtype.to_real():
            raise TypeError(
                f"y must have the precision of the operator, {operator.dtype.to_real()}, "
                f"got {self.y.dtype}"
            )
        if not torch.isfinite(flat).all():
            raise ValueError("y must be finite, got an infinite or NaN entry")
        if (flat < 0).any():
            k = int((flat < 0).nonzero()[0, -1])
            raise ValueError(f"y must be >= 0 ({self.data}), got {float(flat.min()):g} (at {k})")
        if not flat.any(dim=-1).all():
            raise ValueError("y must not be all zero: the zero signal fits it")
        if self.truth is not None and (
            tuple(self.truth.shape[-len(operator.signal_shape) :]) != operator.signal_shape
        ):
            raise ValueError(
                f"truth must have shape {('...', *operator.signal_shape)}, "
                f"got {tuple(self.truth.shape)}"
            )
        if self.data == "amplitude":
            largest = flat.amax(-1, keepdim=True)
            square = (flat / largest).square()  # large amplitudes may have squares too large
            mean = square.mean(-1, keepdim=True)
            object.__setattr__(self, "intensity", square / mean)
            object.__setattr__(self, "mean", mean * largest.square())
        else:
            mean = flat.mean(-1, keepdim=True)
            object.__setattr__(self, "intensity", flat / mean)
            object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "energy", operator.row_norms2.mean(-1, keepdim=True) / n)
        needed = 4 * n - 4 if operator.dtype.is_complex else 2 * n - 1
        if m < needed:
            check.warn(
                f"{m} measurements are fewer than the {needed} that tell "
                f"{'complex' if operator.dtype.is_complex else 'real'} signals of {n} numbers "
                f"apart: give at least {needed}"
            )

    @classmethod
    def measure(cls, operator: Operator, truth: Tensor) -> PhaseRetrieval:
        """The problem of finding `truth` again from its exact intensities.

        Parameters
        ----------
        operator
            How it is measured.
        truth
            The signal, of the operator's signal shape; real ones are seen as complex if need be.

        Examples
        --------
        >>> problem = PhaseRetrieval.measure(Lines(torch.ones(1, 1)), torch.tensor([2.0]))
        >>> problem.y
        tensor([4.])
        """
        truth = truth.to(operator.dtype)
        return cls(operator, squared_modulus(operator.forward(truth)), truth=truth)

    @classmethod
    def random(
        cls,
        n: int = 100,
        m: int = 1000,
        *,
        dtype: torch.dtype = torch.complex128,
        generator: torch.Generator | None = None,
    ) -> PhaseRetrieval:
        r"""A Gaussian signal and Gaussian lines, :math:`E\,a a^* = I`.

        Parameters
        ----------
        n, m
            Unknowns and measurements, >= 1.
        dtype
            Real or complex. Default complex128.
        generator
            Where the numbers come from.

        Examples
        --------
        >>> problem = PhaseRetrieval.random(20, 100, generator=torch.Generator().manual_seed(0))
        >>> problem.residual(problem.truth).item() < 1e-14
        True
        """
        check.number("n", n, ge=1, integer=True)
        check.number("m", m, ge=1, integer=True)
        device = generator.device if generator is not None else torch.device("cpu")
        A = torch.randn(m, n, dtype=dtype, generator=generator, device=device)
        truth = torch.randn(n, dtype=dtype, generator=generator, device=device)
        return cls.measure(Lines(A), truth)

    @classmethod
    def random_coded(
        cls,
        shape: tuple[int, ...] = (128,),
        patterns: int = 8,
        *,
        dtype: torch.dtype = torch.complex128,
        generator: torch.Generator | None = None,
    ) -> PhaseRetrieval:
        """A Gaussian signal behind random octanary masks.

        Parameters
        ----------
        shape, patterns, dtype, generator
            As in `CodedDiffraction.random`.

        Examples
        --------
        >>> problem = PhaseRetrieval.random_coded((8, 8), 6)
        >>> problem.y.shape
        torch.Size([384])
        """
        operator = CodedDiffraction.random(shape, patterns, dtype=dtype, generator=generator)
        truth = torch.randn(shape, dtype=dtype, generator=generator, device=operator.masks.device)
        return cls.measure(operator, truth)

    def misfit(self, x: Tensor) -> Tensor:
        """Intensities of x minus those measured, shape ``(..., m)``."""
        return squared_modulus(self.operator.forward(x)) - self.mean * self.intensity

    def value(self, x: Tensor) -> Tensor:
        """f at x, shape of the batch."""
        return self.value_of(x, self.misfit(x))

    def value_of(self, x: Tensor, misfit: Tensor) -> Tensor:
        """f, where the misfit is already at hand."""
        return misfit.square().mean(-1) / 2

    def residual(self, x: Tensor) -> Tensor:
        """The norm of the misfit relative to that of the intensities, shape of the batch."""
        return self.residual_of(self.misfit(x))

    def residual_of(self, misfit: Tensor) -> Tensor:
        """The relative residual, from a misfit already at hand."""
        return (misfit / self.mean).norm(dim=-1) / self.intensity.norm(dim=-1)

    def error(self, x: Tensor) -> Tensor:
        r"""The relative error up to a global phase, where the truth is known.

        .. math:: \min_\phi \|e^{i \phi} x - x_*\| / \|x_*\|
        """
        if self.truth is None:
            raise ValueError("error needs a problem that knows its truth, got truth=None")
        z, truth = self.flat(x), self.flat(self.truth)
        phase = torch.sgn((z.conj() * truth).sum(-1, keepdim=True))
        phase = torch.where(phase == 0, torch.ones_like(phase), phase)
        return (phase * z - truth).norm(dim=-1) / truth.norm(dim=-1)

    def flat(self, x: Tensor) -> Tensor:
        """Signals as vectors, shape ``(..., n)``."""
        return x.flatten(-len(self.operator.signal_shape))

    def size(self) -> Tensor:
        r"""The norm :math:`\lambda` of the signal as the mean intensity tells it, ``(..., 1)``."""
        return (self.mean / self.energy).sqrt()

    def start(self, start: Any = "optimal", generator: torch.Generator | None = None) -> Tensor:
        r"""The point a method begins at.

        Parameters
        ----------
        start
            The name of an initializer (see `spectral_start`), ``"random"`` (uniform on the sphere
            of radius :math:`\lambda`), or a tensor to continue from.
        generator
            Of the random start, and of the Lanczos process where there are many unknowns.
        """
        shape = self.operator.signal_shape
        if isinstance(start, Tensor):
            if tuple(start.shape[-len(shape) :]) != shape:
                raise ValueError(
                    f"start must have shape {('...', *shape)}, got {tuple(start.shape)}"
                )
            start = start.to(dtype=self.operator.dtype, device=self.intensity.device)
            if not start.any():
                raise ValueError("start must not be zero: every method stands still there")
            return start
        check.choice("start", start, (*INITIALIZERS, "random"))
        if start != "random":
            return spectral_start(self, start, generator=generator)
        batch = self.intensity.shape[:-1]
        direction = torch.randn(
            *batch,
            math.prod(shape),
            dtype=self.operator.dtype,
            device=self.intensity.device,
            generator=generator,
        )
        unit = direction / direction.norm(dim=-1, keepdim=True)
        return (self.size() * unit).unflatten(-1, shape)
