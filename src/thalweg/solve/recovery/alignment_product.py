"""The product with the log-likelihoods of all pairs, whose matrix is never formed."""

from __future__ import annotations

import torch
from torch import Tensor

FREQUENCIES = 2**28
"""Bytes up to which one matrix a frequency is kept; beyond, entries are gathered."""

DENSE_FROM = 0.1
"""Share of measured pairs from which frequencies are faster than gathering."""


class DifferenceProduct:
    r"""The matrix L of blocks :math:`L_{ij}[a, b] = g(y_{ij} - a + b) - \operatorname{mean} g`.

    Every block is circulant. A Fourier transform along the shifts leaves one Hermitian matrix for
    each frequency f,

    .. math:: (L z)^\wedge_i(f) = \hat g(f) \sum_j e^{-2 \pi \sqrt{-1} f y_{ij} / m} \hat z_j(f),

    kept where they fit and enough pairs were measured, :math:`O(n^2 m)`. Else
    :math:`(L z)_i = g * \sum_j \operatorname{shift}(z_j, y_{ij})` by gathering, O(pairs * m).

    Parameters
    ----------
    y
        Differences ``(n, n)``, -1 where there is none.
    g
        Log-likelihood of the noise, ``(m,)``, even mod m.
    kind
        ``"frequencies"`` or ``"gather"``. Default: by memory and number of pairs.

    Examples
    --------
    >>> product = DifferenceProduct(torch.tensor([[-1, 1], [1, -1]]), torch.tensor([1.0, 0.0]))
    >>> product(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    tensor([[ 0.0000,  0.0000],
            [-0.5000,  0.5000]])
    """

    def __init__(self, y: Tensor, g: Tensor, kind: str | None = None) -> None:
        self.n, self.m = len(y), len(g)
        self.g = g - g.mean()
        seen = y >= 0
        self.rows, self.cols = seen.nonzero(as_tuple=True)
        self.shifts = y[seen]
        self.pairs = len(self.shifts)
        self._g_hat = torch.fft.rfft(self.g)
        size = self.n**2 * len(self._g_hat) * self._g_hat.dtype.itemsize
        if kind is None:
            many = self.pairs >= DENSE_FROM * self.n**2 and size <= FREQUENCIES
            kind = "frequencies" if many else "gather"
        self.kind = kind
        if kind == "frequencies":
            f = torch.arange(len(self._g_hat), device=y.device)
            roots = torch.arange(self.m, device=y.device, dtype=torch.float64) / self.m
            unit = torch.polar(torch.ones_like(roots), -2 * torch.pi * roots)
            # The exponent f y is taken mod m in integers: exact roots of unity.
            matrices = unit[(f[:, None, None] * y) % self.m] * seen
            self._matrices = matrices.to(self._g_hat.dtype) * self._g_hat[:, None, None]

    def __call__(self, z: Tensor) -> Tensor:
        """L z, for z of shape ``(..., n, m)``."""
        if self.kind == "frequencies":
            z_hat = torch.fft.rfft(z).movedim(-1, 0)  # frequency, ..., n
            lead = z_hat.shape[1:-1]
            flat = z_hat.reshape(len(z_hat), -1, self.n).mT
            product = (self._matrices @ flat).mT.reshape(len(z_hat), *lead, self.n)
            return torch.fft.irfft(product.movedim(0, -1), n=self.m)
        shifted = torch.zeros_like(z)
        a = torch.arange(self.m, device=z.device)
        step = max(1, 2**22 // (self.m * max(1, z[..., 0, 0].numel())))
        for part in torch.arange(self.pairs, device=z.device).split(step):
            at = (a - self.shifts[part, None]) % self.m
            taken = z[..., self.cols[part, None], at]
            shifted.index_add_(-2, self.rows[part], taken)
        return torch.fft.irfft(torch.fft.rfft(shifted) * self._g_hat, n=self.m)
