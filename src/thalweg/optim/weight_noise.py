"""Noise on the weights: while a gradient is taken, or after every few steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thalweg.core import check

Mode = Literal["absolute", "relative"]
Distribution = Literal["normal", "uniform"]


@contextmanager
def weight_noise(
    model: nn.Module,
    std: float,
    mode: Mode = "absolute",
    distribution: Distribution = "normal",
    generator: torch.Generator | None = None,
) -> Iterator[nn.Module]:
    r"""Evaluate a model at randomly shifted weights; on leaving, they are what they were, bitwise.

    .. math::
        g = \nabla f(x + \xi), \qquad \xi \sim N(0, \sigma^2 I)

    A step of any optimizer with this g is a step of SGD on the smoothed
    :math:`f_\sigma(x) = E f(x + \xi) \approx f(x) + (\sigma^2/2) \operatorname{tr} \nabla^2 f(x)`.
    Where f is quadratic (a linear model with squared loss), the gradient has the mean it had
    without noise: nothing changes in expectation.

    Parameters
    ----------
    model
        Its parameters that require a gradient are shifted, tied ones once; buffers are not.
    std
        :math:`\sigma \ge 0`, in units of the weights, or of their size if relative.
    mode
        ``"absolute"``, or ``"relative"``: each tensor's :math:`\sigma` is multiplied by the root
        mean square of its entries, :math:`\|w\|_2 / \sqrt{\mathrm{numel}}` (our definition).
    distribution
        ``"normal"``, or ``"uniform"`` on :math:`[-\sqrt 3 \sigma, \sqrt 3 \sigma]`.
    generator
        Where the numbers come from, drawn tensor by tensor in parameter order. Default: torch's
        global generator.

    Yields
    ------
    torch.nn.Module
        The model.

    Raises
    ------
    ValueError
        For a negative `std`, or an unknown mode or distribution.

    Notes
    -----
    Call backward inside the block: gradients belong to the shifted weights. For an average over
    several draws, repeat the block and let gradients add up. The weights change in place; do not
    use it where they are constants of a compiled graph (CUDA graphs, frozen exports).

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> before = model.weight.detach().clone()
    >>> x, y = torch.ones(4, 2), torch.zeros(4, 1)
    >>> with weight_noise(model, 0.1, generator=torch.Generator().manual_seed(0)):
    ...     nn.functional.mse_loss(model(x), y).backward()
    >>> torch.equal(model.weight, before), model.weight.grad is not None
    (True, True)

    References
    ----------
    An, "The effects of adding noise during backpropagation training on a generalization
    performance", 1996; Bishop, "Training with noise is equivalent to Tikhonov regularization",
    1995; Adilova, Paul & Schlicht, "Introducing noise in decentralized training of neural
    networks", 2018 (arXiv 1809.10678).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check.number("std", std, ge=0)
    check.choice("mode", mode, ("absolute", "relative"))
    check.choice("distribution", distribution, ("normal", "uniform"))
    params = [p for p in model.parameters() if p.requires_grad]
    kept = [p.detach().clone(memory_format=torch.preserve_format) for p in params]
    try:
        with torch.no_grad():
            for p in params:
                p.add_(_noise(p, std, mode, distribution, generator))
        yield model
    finally:
        with torch.no_grad():
            for p, value in zip(params, kept, strict=True):
                p.copy_(value)


class NoisyStep:
    r"""Any optimizer, with noise added to the weights after every few of its steps.

    .. math::
        x_{k+1} = x_k + u_k + \xi_k, \qquad \xi_k \sim N(0, \sigma^2 I)

    with u the optimizer's own move: a random walk around its path. With SGD of step size a and
    :math:`\sigma^2 = 2aT` this is `SGLD`. *Anticorrelated*: :math:`\xi_k - \xi_{k-1}` is added
    (:math:`\xi_0 = 0`), so that the noise does not accumulate.

    Parameters
    ----------
    optimizer
        The optimizer that steps.
    std
        :math:`\sigma \ge 0`, in units of the weights, or of their size if relative.
    every
        Steps between two draws, >= 1. Default 1.
    mode, distribution
        As in `weight_noise`.
    anticorrelated
        Add differences of noise. Default False.
    generator
        Where the numbers come from. Default: a generator of its own, seeded with
        ``torch.initial_seed()``.

    Raises
    ------
    TypeError
        If `optimizer` is none.
    ValueError
        For a value out of range.

    Examples
    --------
    >>> x = nn.Parameter(torch.zeros(10_000))
    >>> optimizer = NoisyStep(torch.optim.SGD([x], lr=0.1), std=0.5)
    >>> x.grad = torch.zeros_like(x)
    >>> optimizer.step()
    >>> round(x.std().item(), 1)
    0.5

    References
    ----------
    Adilova, Paul & Schlicht 2018 (arXiv 1809.10678); anticorrelated noise: Orvieto, Kersting,
    Proske, Bach & Lucchi, "Anticorrelated noise injection for improved generalization", ICML 2022
    (arXiv 2202.02831).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        std: float,
        every: int = 1,
        mode: Mode = "absolute",
        distribution: Distribution = "normal",
        anticorrelated: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.std = check.number("std", std, ge=0)
        self.every = int(check.number("every", every, ge=1, integer=True))
        self.mode = check.choice("mode", mode, ("absolute", "relative"))
        self.distribution = check.choice("distribution", distribution, ("normal", "uniform"))
        self.anticorrelated = bool(anticorrelated)
        params = self._params()
        device = params[0].device if params else torch.device("cpu")
        self.generator = generator or torch.Generator(device).manual_seed(torch.initial_seed())
        self.steps = 0
        self._last: list[Tensor] = []

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""
        return self.optimizer.param_groups

    def _params(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """The optimizer's step, then the noise; returns what the optimizer returns."""
        active = [p for p in self._params() if closure is not None or p.grad is not None]
        result = self.optimizer.step() if closure is None else self.optimizer.step(closure)
        self.steps += 1
        if self.steps % self.every == 0:
            self._shift(active)
        return result

    def _shift(self, active: Sequence[Tensor]) -> None:
        if self.anticorrelated and not self._last:
            self._last = [torch.zeros_like(p) for p in self._params()]
        taking_part = {id(p) for p in active}
        for i, p in enumerate(self._params()):
            if id(p) not in taking_part:
                continue
            noise = _noise(p, self.std, self.mode, self.distribution, self.generator)
            if self.anticorrelated:
                noise, self._last[i] = noise - self._last[i], noise
            p.add_(noise)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's checkpoint and the noise's place in its sequence."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "rng_state": self.generator.get_state(),
            "last": [noise.clone() for noise in self._last],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, bitwise."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.steps = int(state_dict["steps"])
        self.generator.set_state(state_dict["rng_state"])
        self._last = [noise.clone() for noise in state_dict["last"]]


def _noise(
    p: Tensor,
    std: float,
    mode: Mode,
    distribution: Distribution,
    generator: torch.Generator | None,
) -> Tensor:
    device = p.device if generator is None else generator.device
    dtype = torch.float32 if p.dtype in (torch.bfloat16, torch.float16) else p.dtype
    if distribution == "normal":
        drawn = torch.randn(p.shape, dtype=dtype, device=device, generator=generator)
    else:
        unit = torch.rand(p.shape, dtype=dtype, device=device, generator=generator)
        drawn = math.sqrt(3) * (2 * unit - 1)
    size = std
    if mode == "relative":
        size *= float(p.detach().norm()) / math.sqrt(max(p.numel(), 1))
    return (size * drawn).to(device=p.device, dtype=p.dtype)
