"""SSO: one expensive gradient in the space of outputs, many cheap updates of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from thalweg.core import check, iterate
from thalweg.core.result import Result
from thalweg.optim.surrogate import Loss, Seen, outputs, searched_eta, seen_at, surrogate
from thalweg.optim.surrogate_descent import Inner, descend

Schedule = Literal["const", "sqrt", "exp", "armijo"]


class SSOStep(NamedTuple):
    """What one outer step of SSO saw.

    Parameters
    ----------
    loss
        l(z_t), before the step.
    surrogate
        S_t at the new parameters: at least the new loss if eta <= 1/L.
    eta
        The step size in the space of outputs.
    inner_steps
        Updates of the parameters made.
    loss_calls
        Calls of `loss`: 1, and one more for every trial of an Armijo search for eta.
    """

    loss: float
    surrogate: float
    eta: float
    inner_steps: int
    loss_calls: int


def sso_step(
    model: nn.Module,
    loss: Loss,
    batch: tuple[Any, Any],
    *,
    eta: float,
    inner_steps: int = 10,
    inner: Inner = "armijo",
    eta_search: bool = False,
) -> SSOStep:
    r"""One outer step of target-based surrogate optimization.

    With the model's outputs :math:`z_t = f(\theta_t)` on the batch and the one expensive gradient
    :math:`q_t = \nabla l(z_t)`, the parameters make `inner_steps` cheap updates on

    .. math::
        S_t(\theta) = l(z_t) + \langle q_t, f(\theta) - z_t \rangle
            + \frac{1}{2 \eta} \|f(\theta) - z_t\|^2

    which never calls l again. If l is L-smooth in z and :math:`\eta \le 1/L`, then
    :math:`S_t \ge l \circ f`, and the loss of the batch never rises. For losses that cost far more
    than the model: a simulator, a reinforcement-learning rollout, a human who labels.

    Parameters
    ----------
    model
        f, whose parameters are moved in place. Called again for every inner update, so it must be
        the same function each time: no dropout, no batch norm in training mode.
    loss
        ``loss(z, target)``, a scalar. Called once.
    batch
        ``(inputs, target)``: the model gets `inputs`, the loss gets `target`.
    eta
        :math:`\eta > 0`, the step size in the space of outputs, in units of z per unit of
        :math:`\nabla l`. The gradient is taken of `loss` as it is: a mean over n examples needs an
        eta n times that of their sum.
    inner_steps
        Updates of the parameters, >= 1. Default 10.
    inner
        How they are made: ``"armijo"`` (gradient descent with a backtracking line search; stops at
        a gradient norm of 1e-6), a number (gradient descent with this step size), or a function of
        the list of parameters that returns an optimizer. Default ``"armijo"``.
    eta_search
        Take the largest of eta, 0.9 eta, ... with
        :math:`l(z - \eta q) \le l(z) - \eta \|q\|^2 / 2`; each trial calls the loss. Default False.

    Returns
    -------
    SSOStep
        Losses and counts.

    Raises
    ------
    ValueError
        For eta <= 0, a loss that is not a scalar, a model that is not the same function twice.
    TypeError
        For a model or an `inner` of another kind.

    Examples
    --------
    Supervised learning, with the labels' price in mind: 10 loss gradients, 200 updates.

    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(64, 5)
    >>> y = (x[:, :1] > 0).float()
    >>> def loss(z, y):  # the sum over examples: L = 1/4, so eta = 4
    ...     return nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum")
    >>> model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))
    >>> losses = [sso_step(model, loss, (x, y), eta=4.0, inner_steps=20).loss for _ in range(10)]
    >>> all(b <= a for a, b in zip(losses, losses[1:])), losses[-1] < losses[0] / 4
    (True, True)

    References
    ----------
    Lavington, Vaswani, Babanezhad, Schmidt & Le Roux, "Target-based surrogates for stochastic
    optimization", ICML 2023 (arXiv 2302.02607). The authors' code parametrizes
    :math:`q f/\eta_c + (f - z_t)^2`, so :math:`\eta = 1/(2\eta_c)`; this is the paper's
    :math:`S_t`, with a sum over targets.
    """
    _check(model, eta, inner_steps, inner)
    seen = seen_at(model, loss, batch)
    return _from(seen, model, loss, batch, eta, inner_steps, inner, eta_search)


def sso_minimize(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[tuple[Any, Any]],
    *,
    eta: float,
    inner_steps: int = 10,
    inner: Inner = "armijo",
    schedule: Schedule = "const",
    tol: float | None = None,
    max_steps: int = 100,
    max_seconds: float | None = None,
    callback: Callable[[Result[Any]], object] | None = None,
    progress: bool = False,
) -> Result[dict[str, Tensor]]:
    r"""Minimize by target-based surrogates: `sso_step` on batch after batch.

    Parameters
    ----------
    model, loss, inner_steps, inner
        As in `sso_step`; the model ends at the point that is returned.
    batches
        ``(inputs, target)`` pairs, passed over again and again; one batch with all the data makes
        the loss decrease at every step (if eta <= 1/L).
    eta
        :math:`\eta > 0`, see `sso_step`.
    schedule
        :math:`\eta_t` for t = 1..T (T = `max_steps`): ``"const"``; ``"sqrt"``,
        :math:`\eta / \sqrt t`; ``"exp"``, :math:`\eta T^{-t/T}`; ``"armijo"``, searched from eta at
        each step. Small batches need ``"sqrt"``: many inner steps over-fit each batch's targets.
    tol, max_steps, max_seconds, callback, progress
        As in `thalweg.iterate`; the measure is the surrogate at the new point: an upper bound
        on the batch's loss there if eta <= 1/L, and no call of the loss.

    Returns
    -------
    Result
        ``x`` is the model's ``state_dict()``; the trace has ``"surrogate"`` and
        ``"loss_calls"``: one for every step (and for every trial of the Armijo schedule).

    Examples
    --------
    >>> x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    >>> model = nn.Linear(3, 1, dtype=torch.float64)
    >>> half_square = lambda z, y: (z - y).square().sum() / 2
    >>> result = sso_minimize(model, half_square, [(x, y)], eta=1.0, tol=1e-8, inner_steps=50)
    >>> result.converged, int(result.trace["loss_calls"][-1]) <= 10
    (True, True)
    """
    check.choice("schedule", schedule, ("const", "sqrt", "exp", "armijo"))
    _check(model, eta, inner_steps, inner)
    check.number("max_steps", max_steps, ge=1, integer=True)
    stream = _endless(batches)
    batch = next(stream)

    def eta_at(t: int) -> float:
        if schedule == "sqrt":
            return eta / math.sqrt(t)
        if schedule == "exp":
            return float(eta * max_steps ** (-t / max_steps))
        return eta

    def step(state: _State) -> _State:
        nonlocal batch
        t = state.t + 1
        seen = first if t == 1 else seen_at(model, loss, batch)
        done = _from(seen, model, loss, batch, eta_at(t), inner_steps, inner, schedule == "armijo")
        batch = next(stream)
        return _State(t, state.loss_calls + done.loss_calls, done.surrogate, _copied(model))

    first = seen_at(model, loss, batch)
    result = iterate(
        step,
        _State(0, 0, first.value, _copied(model)),
        measure=lambda state: {"surrogate": state.surrogate, "loss_calls": state.loss_calls},
        point=lambda state: state.point,
        tol=tol,
        max_steps=max_steps,
        max_seconds=max_seconds,
        callback=callback,
        progress=progress,
    )
    model.load_state_dict(result.x)
    return result


class _State(NamedTuple):
    t: int
    loss_calls: int
    surrogate: float
    point: dict[str, Tensor]


def _from(
    seen: Seen,
    model: nn.Module,
    loss: Loss,
    batch: tuple[Any, Any],
    eta: float,
    inner_steps: int,
    inner: Inner,
    eta_search: bool,
) -> SSOStep:
    """The cheap part of a step."""
    inputs, target = batch
    z, value, q = seen
    trials = 0
    if eta_search:
        eta, trials = searched_eta(loss, z, q, value, target, eta)

    def s() -> Tensor:
        return surrogate(outputs(model, inputs), z, q, value, eta)

    params = [p for p in model.parameters() if p.requires_grad]
    steps = descend(s, params, inner_steps, inner)
    with torch.no_grad():
        return SSOStep(value, float(s()), eta, steps, 1 + trials)


def _check(model: nn.Module, eta: float, inner_steps: int, inner: Inner) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check.number("eta", eta, gt=0)
    check.number("inner_steps", inner_steps, ge=1, integer=True)
    if not callable(inner) and inner != "armijo":
        if isinstance(inner, str):
            check.choice("inner", inner, ("armijo",))
        check.number("inner", inner, gt=0)
    random = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    for name, module in model.named_modules():
        if isinstance(module, random) and module.training and getattr(module, "p", 1) > 0:
            raise ValueError(
                "model must be the same function at every call, got the "
                f"{type(module).__name__} {name!r} in training mode; call its eval()"
            )


def _endless(batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                "batches must hold at least one batch, and be iterable again, got none"
            )


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
