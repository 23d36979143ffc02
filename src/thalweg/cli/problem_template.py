"""A problem for `thalweg compare`: it works as it is; put your own in the four marked places.

thalweg compare --check FILE     # three steps: is it repeatable, how long will a race take?
thalweg compare FILE             # the race
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from thalweg import Training
from thalweg.data import Batches, split, standardize

# 1. The data: read once, the same rows for every seed. Here: 569 tumours, 30 numbers each.
_table = load_breast_cancer()
_train, _validation, _test = split(
    (torch.tensor(_table.data, dtype=torch.float32), torch.tensor(_table.target)), seed=0
)
_inputs = standardize(_train[0], _validation[0], _test[0])
PARTS = {
    "train": (_inputs[0], _train[1]),
    "validation": (_inputs[1], _validation[1]),
    "test": (_inputs[2], _test[1]),
}


# 2. The loss of a batch: the mean over its rows.
def loss(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target)


# 3. What decides: on "validation" while tuning, on "test" once at the end. The first name counts,
#    and small is good (if large is, say Training(..., goal="max")).
def evaluate(model: nn.Module, part: str) -> dict[str, float]:
    inputs, target = PARTS[part]
    output = model(inputs)
    wrong = output.argmax(-1) != target
    return {"loss": float(loss(output, target)), "error": float(wrong.float().mean())}


def problem(seed: int) -> Training:
    """The seed decides the initial parameters and the order of the batches, nothing else does."""
    torch.manual_seed(seed)
    # 4. The model.
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 2))
    # A torch.utils.data.DataLoader works as well; for tensors in memory this is faster.
    data = Batches(*PARTS["train"], batch_size=32, seed=seed)
    return Training(model, loss, data, evaluate=evaluate, name="tumours")
