"""SALSA: a line search finds the step size, a statistical test lowers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Unpack

from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.core.catalogue import Axis, OneMinusLogUniform
from thalweg.optim import stationarity
from thalweg.optim.engine import Active, How
from thalweg.optim.stationarity import Variance
from thalweg.optim.step_control import StepControl

Phase = Literal["line search", "statistical drops"]


class SALSA(StepControl):
    r"""SGD with momentum and no step size to tune: a line search finds it, a test lowers it.

    With :math:`h_k = \beta h_{k-1} + (1 - \beta) g_k` and :math:`d_k = (1 - \nu) g_k + \nu h_k`,

    .. math::
        \eta &= \text{the first of } 2a,\, a \text{ with }
            F(x - \eta g) \le F(x) - c\, \eta \|g\|^2, \text{ else } a/2
            && \text{(phase 1 only)} \\
        a &\leftarrow (1 - \gamma)\, a + \gamma\, \eta
            && \text{(phase 1 only)} \\
        x_{k+1} &= x_k - a\, d_k, \qquad
        D_k = \langle x_{k+1}, d_k \rangle + \tfrac a2 \|d_k\|^2

    F is the loss of the step's batch plus :math:`\lambda \|x\|^2/2`, c = 0.05. At rest the mean of
    D is zero. Every `test_every` steps, once more than `min_samples` samples are kept (the newest
    1/8 of those since the last drop), a t-test decides: if the mean may be zero,
    :math:`a \leftarrow a/10` and the momentum starts afresh. Phase 1 ends with the first drop, or
    when the losses F no longer fall significantly; there is no way back.

    D depends on the origin of the parameters: a shift changes when steps drop. `phase` tells where
    a run is, `history` lists the tests with their confidence intervals.

    Parameters
    ----------
    params
        Tensors or parameter groups, as in torch. Groups may differ in lr: the search multiplies
        all of them by one factor (and D weighs every group's part by its own).
    lr
        First step size, >= 0; any small number will do. Default 1e-3.
    momentum
        :math:`\beta` in [0, 1). Default 0.9.
    nu
        :math:`\nu` in [0, 1]: 1 is momentum, 0 plain SGD. Default 1.
    weight_decay
        :math:`\lambda \ge 0`, added to the gradient (L2). Default 0.
    gamma
        :math:`\gamma` in (0, 1], the smoothing of the search. Default: :math:`\sqrt{b/n}`, or 0.1
        where these are not given.
    batch_size, n
        The batch size b and the number of training examples n; given together.
    drop
        What the step size is divided by, > 1. Default 10.
    significance
        :math:`\delta` in (0, 1) of both tests. Default 0.05.
    var
        How the variance of the mean of D is estimated: ``"olbm"`` (overlapping batch means),
        ``"bm"``, or ``"iid"``, which ignores correlation. Default ``"olbm"``.
    leak
        The queues keep the newest 1/leak of their samples, >= 1. Default 8.
    min_samples
        Samples needed for a test, >= 100. Default 1000: first test after ``leak * min_samples``
        steps.
    test_every
        Steps between tests, >= 1. Default: an epoch if n is given (at most 1000), else 100.
    **how
        How the rule is run: see `thalweg.optim.How`.

    Raises
    ------
    ValueError
        For a value out of range; from ``step()``, without a closure in phase 1 (unless lr = 0).
    RuntimeError
        If ``closure(eval_mode)`` computes gradients.

    Notes
    -----
    In phase 1, ``step`` needs to evaluate the loss of the batch at two or three points. Either the
    gradients are there already and ``step(closure)`` gets ``closure(eval_mode)``, which returns the
    loss without backward, in eval mode if asked (dropout and batch statistics would blur the
    comparison; this is the paper's way); in phase 2 it is not called. Or it gets the closure of
    ``torch.optim.LBFGS``, without arguments, that clears gradients, calls backward and returns the
    loss in the mode the model is in; each trial then costs a backward pass too. On several
    processes, the closure must return the same number on all of them (the mean).

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(3, 1)
    >>> x, y = torch.ones(8, 3), torch.zeros(8, 1)
    >>> optimizer = SALSA(model.parameters())
    >>> def loss(eval_mode: bool) -> torch.Tensor:
    ...     model.train(not eval_mode)
    ...     value = torch.nn.functional.mse_loss(model(x), y)
    ...     model.train()
    ...     return value
    >>> for _ in range(300):
    ...     optimizer.zero_grad()
    ...     loss(eval_mode=False).backward()
    ...     before = optimizer.step(loss)
    >>> before < 1e-6, optimizer.param_groups[0]["lr"] > 1e-2, optimizer.phase
    (True, True, 'line search')

    References
    ----------
    Zhang, Lang, Liu & Xiao, "Statistical adaptive stochastic gradient methods", 2020 (arXiv
    2002.10597). Same path of step sizes as the authors' package statopt 0.2 with ``var="iid"`` or
    ``"olbm"``; the package's default 'mb' silently is "iid". That "olbm" is the paper's advice is
    unverified.
    """

    paper = "Zhang, Lang, Liu & Xiao, 2020 (arXiv 2002.10597)"
    year = 2020
    needs = ("closure",)
    memory = "1 per parameter, 2 with nu < 1"
    search_space: ClassVar[dict[str, Axis]] = {"momentum": OneMinusLogUniform(1e-2, 1.0)}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        nu: float = 1.0,
        weight_decay: float = 0.0,
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
        super().__init__(
            params, lr, momentum, nu, weight_decay, gamma=gamma, batch_size=batch_size, n=n,
            drop=drop, significance=significance, var=var, leak=leak, min_samples=min_samples,
            test_every=test_every, **how,
        )  # fmt: skip

    @property
    def phase(self) -> Phase:
        """``"line search"`` (phase 1), or ``"statistical drops"`` (phase 2)."""
        started = any("steps" in state for state in self.state.values())
        searching = not started or bool(self.remembered()["searching"])
        return "line search" if searching else "statistical drops"

    def update(self, active: Sequence[Active]) -> None:
        searching = self.remembered()["searching"]
        if searching:
            loss = self.line_search(active)
            if loss is not None:
                kept = self.remember("losses", loss)
                if kept > self.min_samples:
                    falls = stationarity.still_falls(self.samples("losses"), self.significance)
                    searching.fill_(falls)
        super().update(active)
        if self.drop_if_stationary(active):
            searching.zero_()
