"""What SALSA and its halves share: momentum, the line search, the test, and their memory."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, Unpack

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core import check
from thalweg.optim import stationarity
from thalweg.optim.engine import Active, Elementwise, How
from thalweg.optim.engine.sharding import local
from thalweg.optim.inner_product import inner_product
from thalweg.optim.stationarity import Variance

Closure = Callable[..., Any]

CLOSURE = (
    "closure is needed while the line search runs (phase 1): pass step() either a function "
    "closure(eval_mode) that returns the loss of this step's batch, without backward and in eval "
    "mode if eval_mode is True, after calling backward yourself; or, as for torch.optim.LBFGS, one "
    "without arguments that clears the gradients, calls backward and returns the loss"
)


class Event(NamedTuple):
    """What a test of the controller found at a step."""

    step: int
    lr: float
    mean: float
    low: float
    high: float
    dropped: bool


class StepControl(Elementwise):
    """Quasi-hyperbolic momentum, with what a controller of its lr needs.

    The controller's memory lies with the first parameter that took a step, as tensors: any
    checkpoint format carries it.
    """

    slots = ("momentum_buffer", "direction")
    n_summands = 2
    #: Kept on the host: counts, and the queues.
    shared = ("steps", "drops", "searching", "losses", "losses_seen", "statistics",
              "statistics_seen")  # fmt: skip
    family = "statistical"
    _own_attributes = (
        "gamma", "drop", "significance", "var", "leak", "min_samples", "test_every", "history",
    )  # fmt: skip
    sufficient_decrease: ClassVar[float] = 0.05
    # What a step's closure offers; None between steps.
    _evaluate: Callable[[], float] | None = None
    _first_loss: float | None = None
    _gradients_again = False  # whether evaluating it makes gradients

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        momentum: float,
        nu: float,
        weight_decay: float,
        *,
        gamma: float | None = None,
        batch_size: int | None = None,
        n: int | None = None,
        drop: float = 10.0,
        significance: float = 0.05,
        var: Variance = "olbm",
        leak: int = 8,
        min_samples: int = 1000,
        test_every: int | None = None,
        **how: Unpack[How],
    ) -> None:
        if (batch_size is None) != (n is None):
            raise ValueError(
                "batch_size and n must be given together or not at all, "
                f"got batch_size={batch_size}, n={n}"
            )
        if batch_size is not None and n is not None:
            check.number("batch_size", batch_size, ge=1, integer=True)
            check.number("n", n, ge=batch_size, integer=True)
            gamma = math.sqrt(batch_size / n) if gamma is None else gamma
            per_epoch = -(-n // batch_size)
            test_every = min(1000, per_epoch) if test_every is None else test_every
        self.gamma = check.number("gamma", 0.1 if gamma is None else gamma, gt=0, le=1)
        every = 100 if test_every is None else test_every
        self.test_every = int(check.number("test_every", every, ge=1, integer=True))
        self.drop = check.number("drop", drop, gt=1)
        self.significance = check.number("significance", significance, gt=0, lt=1)
        self.var = check.choice("var", var, ("olbm", "bm", "iid"))
        self.leak = int(check.number("leak", leak, ge=1, integer=True))
        self.min_samples = int(check.number("min_samples", min_samples, ge=100, integer=True))
        #: One `Event` for every test since this object was made; not part of the checkpoint.
        self.history: list[Event] = []
        defaults = {"lr": lr, "momentum": momentum, "nu": nu, "weight_decay": weight_decay}
        super().__init__(params, defaults, **how)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        check.number("momentum", group["momentum"], ge=0, lt=1)
        check.number("nu", group["nu"], ge=0, le=1)
        check.number("weight_decay", group["weight_decay"], ge=0)

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots[:1] if group["nu"] == 1 else self.slots  # with nu = 1, d is h

    @staticmethod
    def rule(
        p: Tensor,
        g: Tensor,
        momentum_buffer: Tensor,
        *direction: Tensor,
        lr: float,
        momentum: float,
        nu: float,
        weight_decay: float,
    ) -> tuple[Tensor, ...]:
        g = g + weight_decay * p
        h = momentum * momentum_buffer + (1 - momentum) * g
        if not direction:
            return p - lr * h, h
        d = (1 - nu) * g + nu * h
        return p - lr * d, h, d

    @staticmethod
    def summands(p: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """What D_k is made of: sums over the entries of x_{k+1} d_k and of d_k^2."""
        d = state[-1]
        return p * d, d * d

    # ---- the controller's memory ----

    def remembered(self) -> dict[str, Any]:
        """The state that holds the controller's tensors; made at the first step."""
        params = [p for group in self.param_groups for p in group["params"] if p in self.state]
        for p in params:
            if "steps" in self.state[p]:
                return self.state[p]
        memory: dict[str, Any] = self.state[params[0]]
        for name in self.shared:
            memory[name] = torch.tensor(0.0, dtype=torch.float64)
        for queue in ("losses", "statistics"):
            memory[queue] = torch.zeros(stationarity.CAPACITY, dtype=torch.float64)
        memory["searching"].fill_(1.0)
        return memory

    def remember(self, queue: str, value: float) -> int:
        """Put a sample into a queue; how many it keeps."""
        memory = self.remembered()
        seen = int(memory[f"{queue}_seen"])
        memory[queue] = stationarity.push(memory[queue], seen, value, self.leak)
        memory[f"{queue}_seen"].fill_(seen + 1)
        return stationarity.kept(seen + 1, self.leak)

    def samples(self, queue: str) -> Tensor:
        """What a queue keeps, oldest first."""
        memory = self.remembered()
        return stationarity.newest(memory[queue], int(memory[f"{queue}_seen"]), self.leak)

    # ---- one step ----

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure
            ``closure(eval_mode)`` evaluates the loss of the step's batch, without backward;
            ``closure()`` clears gradients, calls backward and returns the loss, as for
            ``torch.optim.LBFGS``. See the class.

        Returns
        -------
        float or Tensor or None
            The loss before the move, if it was evaluated.
        """
        if closure is None:
            return super().step()
        if not _takes_mode(closure):
            return self._step_with_backward(closure)
        self._evaluate = lambda: _number(closure(True))
        try:
            super().step()
            return self._first_loss
        finally:
            self._evaluate = self._first_loss = None

    def _step_with_backward(self, closure: Closure) -> Any:
        def first() -> Any:
            loss = closure()
            self._first_loss = _number(loss)
            return loss

        def evaluate() -> float:
            with torch.enable_grad():
                return _number(closure())

        self._evaluate = evaluate
        self._gradients_again = True
        try:
            return super().step(first)
        finally:
            self._evaluate = self._first_loss = None
            self._gradients_again = False

    # ---- SSLS ----

    def line_search(self, active: Sequence[Active]) -> float | None:
        """Smooth the lr towards what a search along -g finds; the regularized loss F(x)."""
        if self._evaluate is None:
            if all(float(a.group["lr"]) == 0 for a in active):
                return None  # nothing to search for
            raise ValueError(CLOSURE)
        sign = _sign(active)
        gradients = [_regularized(a, sign) for a in active]
        # All groups' lrs are searched along one ray: multiplied by one factor.
        slope = sum(
            lr * inner_product(gs, gs)
            for lr, gs in _by_lr(active, gradients)
        )  # fmt: skip
        with _gradients_kept(active, made_again=self._gradients_again):
            if self._first_loss is None:
                self._first_loss = self._evaluate()
            before = sign * self._first_loss + _penalty(active)
            if slope == 0:
                return before
            factor = self._searched(active, gradients, slope, before, sign)
        for group in self.param_groups:
            lr = float(group["lr"])
            group["lr"] = (1 - self.gamma) * lr + self.gamma * (factor * lr)
        return before

    def _searched(
        self,
        active: Sequence[Active],
        gradients: Sequence[Tensor],
        slope: float,
        before: float,
        sign: float,
    ) -> float:
        """2, 1 or 1/2: the first multiple of the lr that decreases the loss enough, or the last."""
        assert self._evaluate is not None
        start = [local(a.p).clone(memory_format=torch.preserve_format) for a in active]
        factor = 2.0
        try:
            for _ in range(2):
                for a, x, g in zip(active, start, gradients, strict=True):
                    eta = factor * float(a.group["lr"])
                    torch.add(x, local(g).to(x.dtype), alpha=-eta, out=local(a.p))
                after = sign * self._evaluate() + _penalty(active)
                if after <= before - self.sufficient_decrease * factor * slope:
                    return factor
                factor /= 2
        finally:
            for a, x in zip(active, start, strict=True):
                local(a.p).copy_(x)
        return factor

    # ---- SASA+ ----

    def drop_if_stationary(self, active: Sequence[Active]) -> bool:
        """Record D_k after the move; lower the lr if its mean is zero."""
        memory = self.remembered()
        memory["steps"].add_(1)
        kept = self.remember("statistics", self._statistic())
        if int(memory["steps"]) % self.test_every or kept <= self.min_samples:
            return False
        test = stationarity.mean_is_zero(
            self.samples("statistics"),
            self.significance,
            self.var,
            composite=not memory["drops"],
        )
        lr = float(self.param_groups[0]["lr"])
        self.history.append(Event(int(memory["steps"]), lr, *test[1:], test.stationary))
        if test.stationary:
            for group in self.param_groups:
                group["lr"] = float(group["lr"]) / self.drop
                for p in group["params"]:
                    if p in self.state:
                        local(self.state[p]["momentum_buffer"]).zero_()
            memory["drops"].add_(1)
            memory["statistics_seen"].zero_()
        return test.stationary

    def _statistic(self) -> float:
        r"""The sum over groups of :math:`\langle x_{k+1}, d_k \rangle + (a/2) \|d_k\|^2`."""
        total = 0.0
        for group in self.param_groups:
            inner, square = self.summed(group)
            total += inner + float(group["lr"]) / 2 * square
        return total


# ---- what both halves are made of ----


def _by_lr(active: Sequence[Active], tensors: Sequence[Tensor]) -> list[tuple[float, list[Tensor]]]:
    together: dict[float, list[Tensor]] = {}
    for a, tensor in zip(active, tensors, strict=True):
        together.setdefault(float(a.group["lr"]), []).append(tensor)
    return list(together.items())


def _sign(active: Sequence[Active]) -> float:
    """1, or -1 where the loss is maximized."""
    signs = {-1.0 if a.group["maximize"] else 1.0 for a in active}
    if len(signs) > 1:
        raise ValueError("maximize must be the same in all groups for a line search, got both")
    return signs.pop()


def _regularized(a: Active, sign: float) -> Tensor:
    """The gradient of the loss to be minimized, with its weight decay."""
    g, decay = a.g, a.group["weight_decay"]
    if sign < 0:
        g = -g
    return torch.add(g, a.p.detach(), alpha=decay) if decay else g


def _penalty(active: Sequence[Active]) -> float:
    squares: dict[float, list[Tensor]] = {}
    for a in active:
        if a.group["weight_decay"]:
            squares.setdefault(a.group["weight_decay"], []).append(a.p.detach())
    return sum(decay / 2 * inner_product(ps, ps) for decay, ps in squares.items())


@contextmanager
def _gradients_kept(active: Sequence[Active], *, made_again: bool) -> Iterator[None]:
    """Put the gradients aside, so that a closure cannot write into them; put them back after."""
    for a in active:
        a.p.grad = None
    try:
        yield
        if not made_again and any(a.p.grad is not None for a in active):
            raise RuntimeError(
                "closure(eval_mode) must return the loss without calling backward, "
                "got one that computes gradients; call backward before step(closure)"
            )
    finally:
        for a in active:
            a.p.grad = a.g


def _takes_mode(closure: Closure) -> bool:
    """Whether a closure wants to be told the mode: ``closure(eval_mode)``."""
    try:
        parameters = inspect.signature(closure).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        q.kind in positional and (q.name == "eval_mode" or q.default is q.empty) for q in parameters
    )


def _number(loss: Any) -> float:
    return float(loss.detach() if isinstance(loss, Tensor) else loss)
