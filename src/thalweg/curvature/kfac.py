"""K-FAC and EKFAC as operators that can be inverted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.kronecker import Kronecker, Labels
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, Operator, prepared


class KroneckerOperator(Operator):
    """What `kfac` and `ekfac` return: an `Operator` that can be inverted.

    Attributes
    ----------
    layers
        Names of the layers, in the order of the blocks.
    factors
        The pairs :math:`(A_l, B_l)`.
    """

    def __init__(self, objective: Objective, kronecker: Kronecker, name: str) -> None:
        super().__init__(objective, kronecker, name)
        self._kronecker = kronecker
        self.layers = [layer.name for layer in kronecker.layers]
        self.factors = list(zip(kronecker.A, kronecker.B))

    def solve(self, v: Tensor, damping: float) -> Tensor:
        r""":math:`(F + \lambda I)^{-1} v` for ``(d,)`` or the columns of ``(d, k)``."""
        return self._kronecker.solve(v.detach().to(self.device, self.dtype), damping)

    def trace(self) -> float:
        """The trace, exactly."""
        return self._kronecker.trace()


def kfac(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    kind: Labels = "exact",
    samples: int = 1,
    seed: int = 0,
    **how: Unpack[How],
) -> KroneckerOperator:
    r"""Return K-FAC, the Kronecker-factored approximation of the Fisher matrix's layer blocks.

    .. math::
        F_l \approx B_l \otimes A_l, \qquad A_l = E[a a^\top],\quad B_l = E[\delta \delta^\top]

    with a the layer's inputs (a 1 appended for the bias) and :math:`\delta` the gradient in its
    outputs; over the positions of a convolution or a sequence,
    :math:`A_l = \frac1n \sum_{i,t} a a^\top` and :math:`B_l = \frac1{nT} \sum_{i,t} \delta
    \delta^\top` ("expand"). Exact for a row alone, and for the last linear layer under mean squared
    error; for convolutions a coarse one.

    Parameters
    ----------
    training
        The network, its loss and its data, batches ``(inputs, target)``; or an `Objective`.
    parameters
        The unknowns; they must belong to ``nn.Linear`` or ``nn.Conv2d``. Default: all.
    kind, samples, seed
        As for `fisher`.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `Objective`.

    Returns
    -------
    KroneckerOperator
        Use it as ``K @ v``, ``K.solve(v, damping)``, ``K.factors``.

    Raises
    ------
    ValueError
        If a parameter belongs to another kind of layer or to several.

    Examples
    --------
    >>> import torch
    >>> data = [(torch.eye(2), torch.zeros(2, 1))]
    >>> training = Training(nn.Linear(2, 1, bias=False), nn.functional.mse_loss, data)
    >>> kfac(training).dense()
    tensor([[1.0000, 0.0000],
            [0.0000, 1.0000]])

    References
    ----------
    Martens & Grosse, arXiv 1503.05671; Grosse & Martens (convolutions), arXiv 1602.01407;
    Eschenhagen et al. (weight sharing), arXiv 2311.00636.
    """
    return _kronecker(training, parameters, kind, samples, seed, how, corrected=False)


def ekfac(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None = None,
    *,
    kind: Labels = "exact",
    samples: int = 1,
    seed: int = 0,
    **how: Unpack[How],
) -> KroneckerOperator:
    r"""Return EKFAC: K-FAC's eigenvectors with the best eigenvalues in that basis.

    .. math::
        F_l \approx (U_B \otimes U_A) \operatorname{diag}(S) (U_B \otimes U_A)^\top, \qquad
        S = E\bigl[(U_B^\top G\, U_A)^2\bigr]

    with G the gradient of one row in the layer's weight. Its Frobenius distance from the block
    never exceeds K-FAC's.

    Parameters
    ----------
    training, parameters, kind, samples, seed, **how
        As for `kfac`.

    Returns
    -------
    KroneckerOperator
        Use it as ``E @ v``, ``E.solve(v, damping)``.

    Examples
    --------
    >>> import torch
    >>> data = [(torch.eye(2), torch.zeros(2, 1))]
    >>> training = Training(nn.Linear(2, 1, bias=False), nn.functional.mse_loss, data)
    >>> round(ekfac(training).trace(), 4)
    2.0

    References
    ----------
    George, Laurent, Bouthillier, Ballas & Vincent, "Fast approximate natural gradient descent in a
    Kronecker-factored eigenbasis", NeurIPS 2018 (arXiv 1806.03884).
    """
    return _kronecker(training, parameters, kind, samples, seed, how, corrected=True)


def _kronecker(
    training: Training | Objective,
    parameters: Iterable[nn.Parameter | str] | None,
    kind: Labels,
    samples: int,
    seed: int,
    how: How,
    corrected: bool,
) -> KroneckerOperator:
    check.choice("kind", kind, ("exact", "sampled", "empirical"))
    check.number("samples", samples, ge=1, integer=True)
    check.number("seed", seed, ge=0, integer=True)
    objective = prepared(training, parameters, how)
    kronecker = Kronecker(objective, objective.start, kind, int(samples), int(seed), corrected)
    return KroneckerOperator(objective, kronecker, "EKFAC" if corrected else "K-FAC")
