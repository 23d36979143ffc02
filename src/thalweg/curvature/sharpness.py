"""Sharpness: how fast the loss rises around a point, in the worst case and on average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import torch
from torch import Tensor

from thalweg.core import check
from thalweg.core.estimate import Estimate
from thalweg.core.problem import Training
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import prepared
from thalweg.numeric.krylov.extreme import extreme_eigenvalues
from thalweg.numeric.operator import as_operator


@dataclass(frozen=True)
class Sharpness:
    r"""The largest rise of the loss that was found, :math:`f(x + \epsilon) - f(x)`.

    A search can only find too little: the true maximum is `value` or more.

    Attributes
    ----------
    value
        The rise (`keskar`: as a percentage of 1 + f).
    radius
        Of the set that was searched.
    perturbation
        :math:`\epsilon`, a flat vector (d,).
    first_order
        What the gradient alone predicts, :math:`\rho \|T g\|`; None where it was not computed.
    second_order
        What the largest eigenvalue alone predicts, :math:`\rho^2 \lambda_{\max}(T H T) / 2`; None
        where it was not computed.
    evaluations
        Passes over the data spent: values, gradients and products together.
    iterations
        Of the search that found it.
    """

    value: float
    radius: float
    perturbation: Tensor = field(repr=False)
    first_order: float | None
    second_order: float | None
    evaluations: int
    iterations: int


def keskar(
    training: Training | Objective,
    eps: float = 1e-3,
    *,
    subspace: int | None = None,
    iterations: int = 10,
    generator: torch.Generator | None = None,
) -> Sharpness:
    r"""Sharpness of Keskar et al.: the largest rise in a box, relative to the loss, in per cent.

    .. math:: \phi = 100 \cdot \frac{\max_{y \in C} f(x + A y) - f(x)}{1 + f(x)}, \qquad
        C = \{ y : |y_i| \le \epsilon\, (|(A^+ x)_i| + 1) \}

    A is the identity, or d x p with entries N(0, 1/d). L-BFGS-B searches from a uniform point of
    the box scaled by 0.1 (y = 0 has no gradient at a stationary point; the start is ours, not the
    paper's). It is *not* invariant to rescaling a ReLU network (Dinh et al. 2017).

    Parameters
    ----------
    training
        A `Training` or an `Objective`; at the parameters the model holds.
    eps
        > 0. Default 1e-3; the paper uses 1e-3 and 5e-4.
    subspace
        p >= 1 columns of a random A. Default: the whole space, A = I.
    iterations
        Of L-BFGS-B, >= 1. Default 10, the paper's.
    generator
        Source of start and A. Default: a new one of seed 0.

    Returns
    -------
    Sharpness
        `value` is :math:`\phi >= 0`; `perturbation` is A y.

    Raises
    ------
    ValueError
        If f(x) <= -1, or an argument is out of range, or the loss is not deterministic or finite.

    Examples
    --------
    >>> f = Training.from_function(lambda x: (x**2).sum(), torch.zeros(2, dtype=torch.float64))
    >>> phi = keskar(f, eps=0.1)  # the corner (0.1, 0.1): 100 times 0.02
    >>> round(phi.value, 9)
    2.0

    References
    ----------
    Keskar, Mudigere, Nocedal, Smelyanskiy & Tang, On large-batch training for deep learning, ICLR
    2017 (arXiv 1609.04836); Dinh, Pascanu, Bengio & Bengio 2017 (arXiv 1703.04933).
    """
    from scipy.optimize import Bounds, minimize  # here: importing thalweg must stay quick

    check.number("eps", eps, gt=0)
    check.number("iterations", iterations, ge=1, integer=True)
    objective = prepared(training, None, {})
    generator = generator or torch.Generator().manual_seed(0)
    x = objective.start
    f = objective.value(x)
    if f <= -1:
        raise ValueError(f"the loss must be > -1 for Keskar's measure, got {f:g}")
    A, centre = None, x
    if subspace is not None:
        p = int(check.number("subspace", subspace, ge=1, le=objective.d, integer=True))
        A = torch.randn(objective.d, p, generator=generator, dtype=torch.float64).to(x)
        A /= math.sqrt(objective.d)
        centre = torch.linalg.lstsq(A, x[:, None]).solution[:, 0]
    bound = eps * (centre.abs() + 1)
    best = (f, torch.zeros_like(x))
    evaluations = 1

    def negative(z: Any) -> tuple[float, Any]:
        nonlocal best, evaluations
        y = bound * torch.as_tensor(z).to(x)  # in units of the box: its sides differ, and are tiny
        step = y if A is None else A @ y
        value, gradient = objective.value_and_gradient(x + step)
        evaluations += 1
        if value > best[0]:
            best = (value, step)
        gradient = bound * (gradient if A is None else A.T @ gradient)
        return -value, -gradient.double().cpu().numpy()

    start = 0.1 * (2 * torch.rand(len(bound), generator=generator, dtype=torch.float64) - 1)
    search = minimize(
        negative, start.numpy(), jac=True, method="L-BFGS-B", bounds=Bounds(-1.0, 1.0),
        options={
            "maxiter": int(iterations), "ftol": 0.0, "gtol": 0.0,
            "maxcor": min(10, int(iterations)),  # as many pairs as there can be
        },
    )  # fmt: skip
    return Sharpness(
        100 * (best[0] - f) / (1 + f), eps, best[1], None, None, evaluations, int(search.nit)
    )


@overload
def worst_case(
    training: Training | Objective, rho: float, *, adaptive: bool = ..., steps: int = ...,
    restarts: int = ..., generator: torch.Generator | None = ...,
) -> Sharpness: ...  # fmt: skip
@overload
def worst_case(
    training: Training | Objective, rho: Sequence[float], *, adaptive: bool = ...,
    steps: int = ..., restarts: int = ..., generator: torch.Generator | None = ...,
) -> list[Sharpness]: ...  # fmt: skip
def worst_case(
    training: Training | Objective,
    rho: float | Sequence[float],
    *,
    adaptive: bool = False,
    steps: int = 20,
    restarts: int = 2,
    generator: torch.Generator | None = None,
) -> Sharpness | list[Sharpness]:
    r"""The largest rise of the loss in a ball, of one radius or of increasing ones.

    .. math:: \max_{\|u\|_2 \le \rho} f(x + T u) - f(x), \qquad
        T = I \;\text{ or, adaptive, }\; T = \operatorname{diag} |x|

    by projected ascent in u, from the gradient, from both directions of the largest eigenvalue of
    T H T, from `restarts` random directions, and from the maximizer at the radius before. With T =
    diag |x| (ASAM) the measure does not change when layers or neurons of a ReLU network are
    rescaled; the optimizer of that paper adds 0.01 to T, which would break that. To first order
    the maximum is :math:`\rho \|T g\|`, at :math:`\epsilon = \rho\, T^2 g / \|T g\|`; to second
    order, at a minimum, :math:`\rho^2 \lambda_{\max}(T H T) / 2`.

    Parameters
    ----------
    training
        A `Training` or an `Objective`; at the parameters the model holds.
    rho
        > 0; a sequence must increase.
    adaptive
        Default False.
    steps
        Of ascent from each start, >= 1. Default 20.
    restarts
        Random starts, >= 0. Default 2.
    generator
        Source of the starts. Default: a new one of seed 0.

    Returns
    -------
    Sharpness, or a list of them for a sequence
        Values do not decrease along a sequence.

    Raises
    ------
    ValueError
        If rho is not > 0 or does not increase, or the loss is not deterministic or finite.

    Examples
    --------
    >>> f = Training.from_function(
    ...     lambda x: 2 * x[0] ** 2 + x[1] ** 2, torch.zeros(2, dtype=torch.float64)
    ... )
    >>> found = worst_case(f, rho=0.5)  # rho^2 lambda_max / 2, with lambda_max = 4
    >>> round(found.value, 9), round(found.second_order, 9)
    (0.5, 0.5)

    References
    ----------
    Foret, Kleiner, Mobahi & Neyshabur, Sharpness-aware minimization, ICLR 2021 (arXiv 2010.01412);
    Kwon, Kim, Park & Choi, ASAM, ICML 2021 (arXiv 2102.11600); Andriushchenko et al. 2023 (arXiv
    2302.07011).
    """
    radii = list(rho) if isinstance(rho, Sequence) else [rho]
    for before, radius in zip([0.0, *radii], radii):
        check.number("rho", radius, gt=0)
        if radius <= before:
            raise ValueError(f"rho must increase, got {radius:g} after {before:g}")
    check.number("steps", steps, ge=1, integer=True)
    check.number("restarts", restarts, ge=0, integer=True)
    objective = prepared(training, None, {})
    generator = generator or torch.Generator().manual_seed(0)
    x = objective.start
    T = x.abs() if adaptive else torch.ones_like(x)
    f, g = objective.value_and_gradient(x)

    def scaled_product(v: Tensor) -> Tensor:
        scale = T if v.ndim == 1 else T[:, None]
        return scale * objective.hvp(scale * v, x)

    THT = as_operator(scaled_product, objective.d, x.dtype, x.device)
    room = max(2**30, 8 * x.nbytes)  # for the basis; beyond it restarts are made
    ends = extreme_eigenvalues(THT, memory=room, generator=generator)
    top = ends.vectors[:, -1]
    directions = [T * g, top, -top]
    for _ in range(int(restarts)):
        random = torch.randn(objective.d, generator=generator, dtype=torch.float64)
        directions.append(random.to(x))
    found: list[Sharpness] = []
    evaluations, warm = 1 + ends.n_products, None
    for radius in radii:
        starts = [d * (radius / float(d.norm())) for d in directions if float(d.norm()) > 0]
        if warm is not None:
            starts = [warm, warm * (radius / max(float(warm.norm()), 1e-300)), *starts]
        best = (f, torch.zeros_like(x), 0)
        for start in starts:
            value, u, spent, taken = _ascend(objective, x, T, start, radius, int(steps))
            evaluations += spent
            if value > best[0]:
                best = (value, u, taken)
        value, warm, taken = best
        second = 0.5 * radius**2 * ends.highest
        first = radius * float((T * g).norm())
        found.append(
            Sharpness(value - f, float(radius), T * warm, first, second, evaluations, taken)
        )
        evaluations = 0
    return found if isinstance(rho, Sequence) else found[0]


def _ascend(
    objective: Objective, x: Tensor, T: Tensor, u: Tensor, rho: float, steps: int
) -> tuple[float, Tensor, int, int]:
    """Projected ascent of f(x + T u) in the ball: a step is kept if it rises, else made shorter."""
    value, gradient = objective.value_and_gradient(x + T * u)
    evaluations, length, taken = 1, 10 * rho, 0
    for taken in range(1, steps + 1):
        du = T * gradient
        size = float(du.norm())
        while size > 0 and length > 1e-6 * rho:
            trial = u + du * (length / size)
            norm = float(trial.norm())
            trial = trial * (rho / norm) if norm > rho else trial
            risen, new_gradient = objective.value_and_gradient(x + T * trial)
            evaluations += 1
            if risen > value:
                break
            length /= 8
        else:
            return value, u, evaluations, taken
        small = risen - value <= 1e-12 * max(abs(value), 1e-300)
        value, u, gradient, length = risen, trial, new_gradient, 2 * length
        if small:
            break
    return value, u, evaluations, taken


def average_case(
    training: Training | Objective,
    sigma: float,
    *,
    pairs: int = 30,
    adaptive: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""The mean rise of the loss under Gaussian noise on the parameters.

    .. math:: E_{z \sim N(0, I)}\, f(x + \sigma T z) - f(x)
        \approx \tfrac{\sigma^2}{2} \operatorname{tr}(T H T)

    from antithetic pairs: each sample is the mean over z and -z, so that the gradient, which does
    not change the mean, adds no noise.

    Parameters
    ----------
    training
        A `Training` or an `Objective`; at the parameters the model holds.
    sigma
        > 0.
    pairs
        >= 2 (one has no error bar). Default 30; each costs two passes over the data.
    adaptive
        Noise relative to each parameter, T = diag |x|. Default False: T = I.
    generator
        Source of the noise. Default: a new one of seed 0.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        If sigma is not > 0, pairs < 2, or the loss is not deterministic or finite.

    Examples
    --------
    >>> f = Training.from_function(lambda x: (x**2).sum(), torch.ones(200, dtype=torch.float64))
    >>> rise = average_case(f, sigma=0.1)
    >>> low, high = rise.interval()
    >>> low < 0.01 * 200 < high
    True

    References
    ----------
    Andriushchenko, Croce, Mueller, Hein & Flammarion, A modern look at the relationship between
    sharpness and generalization, ICML 2023 (arXiv 2302.07011).
    """
    check.number("sigma", sigma, gt=0)
    check.number("pairs", pairs, ge=2, integer=True)
    objective = prepared(training, None, {})
    generator = generator or torch.Generator().manual_seed(0)
    x = objective.start
    f = objective.value(x)
    rises = []
    for _ in range(int(pairs)):
        z = torch.randn(objective.d, generator=generator, dtype=torch.float64).to(x)
        noise = sigma * (x.abs() * z if adaptive else z)
        both = (objective.value(x + noise), objective.value(x - noise))
        rises.append((both[0] - f) / 2 + (both[1] - f) / 2)
    return Estimate.of(torch.tensor(rises, dtype=torch.float64))
