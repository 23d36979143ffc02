"""The directions along which a network stays on its kinks, with a basis that is block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.curvature.relu.expansion import Coordinates, KinkedPoint
from thalweg.curvature.relu.first_order import Kink
from thalweg.curvature.relu.losses import Floats
from thalweg.curvature.relu.quadratic import null_basis


@dataclass(frozen=True, eq=False)
class Subspace:
    """The directions that satisfy equalities on single nodes, with an orthonormal basis.

    Attributes
    ----------
    coordinates
        Of eta.
    bias
        Basis for delta2, in columns.
    blocks
        Bases for (u_k, v_k) of each node, in columns, filled up with zero columns; shape
        (nodes, w, w).
    real
        Which columns are no filling, shape (nodes, w).
    """

    coordinates: Coordinates
    bias: Floats
    blocks: Floats
    real: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """The number of dimensions."""
        return self.bias.shape[1] + int(self.real.sum())

    def expand(self, xi: Floats) -> Floats:
        """From coordinates in the basis, (size,), to eta, (p,)."""
        first = self.bias.shape[1]
        filled = np.zeros(self.real.shape)
        filled[self.real] = xi[first:]
        both = np.einsum("kab,kb->ka", self.blocks, filled)
        width = self.coordinates.widths[1]
        parts = self.bias @ xi[:first], both[:, :width].ravel(), both[:, width:].ravel()
        return np.concatenate(parts)

    def reduce(self, eta: Floats) -> Floats:
        """The transpose of `expand`."""
        bias, width, _ = self.coordinates.widths
        count = len(self.coordinates.nodes)
        u = eta[bias : bias + count * width].reshape(count, width)
        v = eta[bias + count * width :].reshape(count, self.coordinates.widths[2])
        both = np.einsum("kab,ka->kb", self.blocks, np.concatenate([u, v], axis=1))
        return np.concatenate([self.bias.T @ eta[:bias], both[self.real]])


def subspace(point: KinkedPoint, coordinates: Coordinates, kinks: tuple[Kink, ...]) -> Subspace:
    r"""The directions that leave none of `kinks` and change nothing by a symmetry alone.

    :math:`W_{2,k}^T u_k = w_k^T v_k` and :math:`\bar x_i^T v_k = 0`; for the softmax also
    :math:`1^T u_k = 0` and :math:`1^T \delta_2 = 0`.
    """
    network = point.network
    bias, width, d_in = coordinates.widths
    rows: list[list[Floats]] = []
    for k in coordinates.nodes:
        rows.append([np.concatenate([network.W2[:, k], -network.W[k]])])
        if network.loss == "ce":
            rows[-1].append(np.concatenate([np.ones(width), np.zeros(d_in)]))
    place = {k: j for j, k in enumerate(coordinates.nodes)}
    for kink in kinks:
        rows[place[kink.node]].append(np.concatenate([np.zeros(width), network.Xb[kink.sample]]))
    bases = [null_basis(np.array(each)) for each in rows]
    blocks = np.zeros((len(bases), width + d_in, width + d_in))
    real = np.zeros(blocks.shape[::2], dtype=bool)
    for j, basis in enumerate(bases):
        blocks[j, :, : basis.shape[1]] = basis
        real[j, : basis.shape[1]] = True
    ce = network.loss == "ce" and bias
    return Subspace(coordinates, null_basis(np.ones((1 if ce else 0, bias))), blocks, real)
