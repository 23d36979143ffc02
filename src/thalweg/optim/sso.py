"""SSO: one expensive gradient in the space of outputs, many cheap updates of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thalweg.core import check, iterate
from thalweg.core.result import Result

Loss = Callable[[Tensor, Any], Tensor]
OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]
Inner = Literal["armijo"] | float | OptimizerFactory
Schedule = Literal["const", "sqrt", "exp", "armijo"]

# The official code's line search of the inner loop.
_FIRST_STEP, _BACKTRACK, _DECREASE, _SMALLEST_NORM = 10.0, 0.9, 0.5, 1e-6


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


def surrogate(z: Tensor, z_t: Tensor, q: Tensor, loss: float | Tensor, eta: float) -> Tensor:
    r"""The surrogate :math:`l(z_t) + \langle q, z - z_t \rangle + \|z - z_t\|^2 / (2 \eta)`.

    Examples
    --------
    >>> z_t, q = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])
    >>> surrogate(z_t - 0.5 * q, z_t, q, loss=3.0, eta=0.5).item()  # its minimum
    2.75
    """
    move = z - z_t
    return loss + (q * move).sum() + move.square().sum() / (2 * eta)


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
    seen = _seen(model, loss, batch)
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
        seen = first if t == 1 else _seen(model, loss, batch)
        done = _from(seen, model, loss, batch, eta_at(t), inner_steps, inner, schedule == "armijo")
        batch = next(stream)
        return _State(t, state.loss_calls + done.loss_calls, done.surrogate, _copied(model))

    first = _seen(model, loss, batch)
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


# ---- the parts ----


class _Seen(NamedTuple):
    """The outputs of a batch, their loss and its gradient: the expensive part of a step."""

    z: Tensor
    value: float
    q: Tensor


class _State(NamedTuple):
    t: int
    loss_calls: int
    surrogate: float
    point: dict[str, Tensor]


def _seen(model: nn.Module, loss: Loss, batch: tuple[Any, Any]) -> _Seen:
    inputs, target = batch
    with torch.no_grad():
        z = _outputs(model, inputs).clone()  # outputs may be a view of the parameters that move
    with torch.enable_grad():
        z.requires_grad_()
        value = _scalar(loss(z, target))
        (q,) = torch.autograd.grad(value, z)
    return _Seen(z.detach(), float(value.detach()), q)


def _from(
    seen: _Seen,
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
        eta, trials = _searched_eta(loss, z, q, value, target, eta)

    def s() -> Tensor:
        return surrogate(_outputs(model, inputs), z, q, value, eta)

    params = [p for p in model.parameters() if p.requires_grad]
    steps = _descend(s, params, inner_steps, inner)
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


def _outputs(model: nn.Module, inputs: Any) -> Tensor:
    z = model(inputs)
    if not isinstance(z, Tensor):
        raise TypeError(f"model must return a tensor of outputs, got {type(z).__name__}")
    return z


def _scalar(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return a scalar tensor, got {got}")
    return value.reshape(())


def _searched_eta(
    loss: Loss, z: Tensor, q: Tensor, value: float, target: Any, eta: float
) -> tuple[float, int]:
    square = float(q.square().sum())
    trials = 0
    with torch.no_grad():
        while square > 0:
            trials += 1
            if float(_scalar(loss(z - eta * q, target))) <= value - _DECREASE * eta * square:
                break
            eta *= _BACKTRACK
            if eta < 1e-30:
                raise ValueError(
                    "loss must decrease along its negative gradient, got none that does"
                )
    return eta, trials


def _descend(
    s: Callable[[], Tensor], params: list[nn.Parameter], inner_steps: int, inner: Inner
) -> int:
    """Make up to `inner_steps` updates on S; the count made. Gradients in ``p.grad`` stay."""
    kept = [p.grad for p in params]
    try:
        if callable(inner):
            return _by_optimizer(s, params, inner_steps, inner)
        return _by_gradient_descent(s, params, inner_steps, None if inner == "armijo" else inner)
    finally:
        for p, g in zip(params, kept, strict=True):
            p.grad = g


def _by_optimizer(
    s: Callable[[], Tensor], params: list[nn.Parameter], inner_steps: int, make: OptimizerFactory
) -> int:
    optimizer: Any = make(params)
    if not callable(getattr(optimizer, "step", None)):
        raise TypeError(f"inner must return an optimizer, got {type(optimizer).__name__}")

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = s()
            value.backward()
        return value

    for _ in range(inner_steps):
        optimizer.step(closure)
    return inner_steps


@torch.no_grad()
def _by_gradient_descent(
    s: Callable[[], Tensor], params: list[nn.Parameter], inner_steps: int, fixed: Any
) -> int:
    size = _FIRST_STEP
    for k in range(inner_steps):
        with torch.enable_grad():
            value = s()
            gradients = torch.autograd.grad(value, params, allow_unused=True)
        moving = [(p, g) for p, g in zip(params, gradients, strict=True) if g is not None]
        square = sum(float(g.square().sum()) for _, g in moving)
        if fixed is not None:
            for p, g in moving:
                p.sub_(float(fixed) * g)
            continue
        if math.sqrt(square) <= _SMALLEST_NORM:
            return k
        start = [p.clone() for p, _ in moving]
        while True:
            for (p, g), x in zip(moving, start, strict=True):
                p.copy_(x - size * g)
            if float(s()) <= float(value) - _DECREASE * size * square:
                break
            size *= _BACKTRACK
            if size < 1e-30:  # no decrease left that arithmetic can see
                for (p, _), x in zip(moving, start, strict=True):
                    p.copy_(x)
                return k
        size /= _BACKTRACK**2  # the next search starts a little above
    return inner_steps


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
