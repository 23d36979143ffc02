"""The graph of measured pairs: its components, within which things are known."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core import check


def components(rows: Tensor, cols: Tensor, n: int) -> Tensor:
    """For each node of an undirected graph the number of its component.

    Examples
    --------
    >>> components(torch.tensor([0, 3]), torch.tensor([2, 1]), 4)
    tensor([0, 1, 0, 1])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = torch.ones(len(rows)).numpy()
    graph = coo_array((ones, (rows.cpu().numpy(), cols.cpu().numpy())), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    return torch.as_tensor(labels, dtype=torch.long, device=rows.device)


def warn_of_components(labels: Tensor, name: str, what: str) -> None:
    """Say that the graph is not connected, and name what nothing is known about."""
    sizes = labels.bincount()
    if len(sizes) == 1:
        return
    alone = [k for k, label in enumerate(labels.tolist()) if sizes[label] == 1]
    lonely = f" (without any measurement: {alone[:10]})" if alone else ""
    check.warn(
        f"the graph of {name} has {len(sizes)} components, of sizes "
        f"{sizes.sort(descending=True).values[:10].tolist()}{lonely}: {what} are known within each "
        "only"
    )
