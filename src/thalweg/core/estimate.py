"""`Estimate`: a random measurement with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg.core import check


class Interval(NamedTuple):
    """An interval ``low <= value <= high``; of tensors, entry by entry."""

    low: Any  # float, or Tensor: a union would be in the way of all who expect the one they know
    high: Any


@dataclass(frozen=True)
class Estimate:
    r"""A random measurement: the mean of samples, with its standard error.

    .. math:: \bar x = \frac1m \sum_{i=1}^m x_i, \qquad
        \mathrm{stderr} = \frac{\mathrm{sd}(x)}{\sqrt m}

    Parameters
    ----------
    value
        The estimate: a number, or a tensor of them.
    stderr
        Its standard error, >= 0, of the shape of `value`. 0 says that the value is exact, infinity
        that nothing is known of the error (one sample).
    samples
        How many independent samples, `m`, >= 1.

    Raises
    ------
    ValueError
        If `stderr` is negative or NaN, or of another shape than `value`.

    Examples
    --------
    >>> estimate = Estimate.of(torch.tensor([1.0, 2.0, 3.0]))
    >>> estimate.value, round(estimate.stderr, 3), estimate.samples
    (2.0, 0.577, 3)
    >>> low, high = estimate.interval(0.95)
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    >>> print(estimate)
    2.0 +- 2.5 (95 % interval, 3 samples)

    References
    ----------
    Student (1908), The probable error of a mean.
    """

    value: Any  # float or Tensor
    stderr: Any
    samples: int

    def __post_init__(self) -> None:
        check.number("samples", self.samples, ge=1, integer=True)
        stderr = torch.as_tensor(self.stderr)
        if stderr.shape != torch.as_tensor(self.value).shape:
            raise ValueError(
                f"stderr must have the shape of value, {tuple(torch.as_tensor(self.value).shape)}, "
                f"got {tuple(stderr.shape)}"
            )
        if not bool((stderr >= 0).all()):
            raise ValueError(f"stderr must be >= 0, got {self.stderr!r}")

    @classmethod
    def of(cls, samples: Tensor) -> Estimate:
        """The estimate from independent samples, along the first dimension.

        Parameters
        ----------
        samples
            Shape (m,) for a number, (m, ...) for a tensor; finite.

        Raises
        ------
        ValueError
            For no sample, or one that is not finite.

        Examples
        --------
        >>> Estimate.of(torch.tensor([4.0, 4.0]))
        Estimate(value=4.0, stderr=0.0, samples=2)
        """
        value, stderr = mean_and_error(samples)
        return cls(value, stderr, len(samples))

    def half_width(self, level: float = 0.95) -> Any:
        r"""Half the width of Student's interval, :math:`t_{(1+c)/2,\,m-1}\, \mathrm{stderr}`.

        Parameters
        ----------
        level
            `c`, in (0, 1). Default 0.95.

        Returns
        -------
        float or Tensor
            Infinite where there is one sample and the value is not exact.

        Examples
        --------
        >>> Estimate(5.0, 1.0, samples=10_000).half_width(0.95)  # 1.96 of a normal distribution
        1.960...
        >>> Estimate(5.0, float("inf"), samples=1).half_width()
        inf
        """
        quantile = student_quantile(level, self.samples)
        if isinstance(self.stderr, Tensor):
            return torch.where(self.stderr == 0, 0.0, quantile * self.stderr)
        return 0.0 if self.stderr == 0 else quantile * self.stderr

    def interval(self, level: float = 0.95) -> Interval:
        r"""Student's interval, :math:`\bar x \pm t_{(1+c)/2,\,m-1}\, \mathrm{stderr}`.

        Parameters
        ----------
        level
            `c`, in (0, 1). Default 0.95.

        Returns
        -------
        Interval
            ``low, high``; infinite where there is one sample and the value is not exact.

        Examples
        --------
        >>> Estimate(5.0, 0.0, samples=3).interval()
        Interval(low=5.0, high=5.0)
        """
        half = self.half_width(level)
        return Interval(self.value - half, self.value + half)

    def __str__(self) -> str:
        many = f"{self.samples} sample{'s' if self.samples > 1 else ''}"
        if isinstance(self.value, Tensor):
            return f"tensor of shape {tuple(self.value.shape)}, mean of {many}"
        half = self.half_width()
        if half == 0:
            return f"{self.value:.6g} (exact)"
        if not math.isfinite(half):
            return f"{self.value:.6g} (no error bar, {many})"
        return f"{_rounded(self.value, float(half))} (95 % interval, {many})"


def mean_and_error(samples: Tensor) -> tuple[Any, Any]:
    r"""Mean and standard error along the first dimension, in float64; infinite for one sample.

    Examples
    --------
    >>> mean_and_error(torch.tensor([0.0, 2.0]))
    (1.0, 1.0)
    """
    check.floating("samples", samples)
    if samples.ndim == 0 or len(samples) == 0:
        raise ValueError(f"samples must be at least one, got shape {tuple(samples.shape)}")
    if not bool(samples.isfinite().all()):
        raise ValueError("samples must be finite, got NaN or infinity")
    wide = samples.double()
    mean = wide.mean(0)
    if len(samples) > 1:
        stderr = wide.std(0) / math.sqrt(len(samples))
    else:
        stderr = torch.full_like(mean, math.inf)
    if mean.ndim == 0:
        return float(mean), float(stderr)
    return mean, stderr


def student_quantile(level: float, samples: int) -> float:
    r"""Return :math:`t_{(1+c)/2,\,m-1}`, infinite for one sample.

    Parameters
    ----------
    level
        `c`, in (0, 1).
    samples
        `m`, >= 1.

    Examples
    --------
    >>> round(student_quantile(0.95, 10), 3)
    2.262
    """
    from scipy.special import stdtrit  # here: importing thalweg must stay quick

    check.number("level", level, gt=0, lt=1)
    return float(stdtrit(samples - 1, (1 + level) / 2)) if samples > 1 else math.inf


def _rounded(value: float, half: float) -> str:
    """The value to the second digit of its error: ``12.3 +- 1.4``."""
    place = 1 - math.floor(math.log10(half))
    size = max(abs(value), half)
    if 1e-4 <= size < 1e7 and place >= 0:
        return f"{value:.{place}f} +- {half:.{place}f}"
    digits = max(0, math.floor(math.log10(size)) + place)
    return f"{value:.{digits}e} +- {half:.1e}"
