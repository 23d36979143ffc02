"""What an inspection may spend: the largest budget that fits, and never one that does not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg import Training
from thalweg.compare.price import Price, affordable, makespan, measured_price

costs = st.lists(st.floats(0, 10), max_size=8)


@given(costs, st.integers(1, 5))
def test_the_makespan_lies_between_the_bounds_of_list_scheduling(
    costs: list[float], workers: int
) -> None:
    made = makespan(costs, workers)
    longest, share = max(costs, default=0.0), sum(costs) / workers
    assert max(longest, share) <= made + 1e-9
    assert made <= share + (1 - 1 / workers) * longest + 1e-9  # Graham 1969
    assert makespan(costs, 1) == pytest.approx(sum(costs))


@given(
    st.floats(1e-4, 1.0), st.floats(0, 1.0), costs, st.integers(1, 3), st.floats(0, 500),
)  # fmt: skip
def test_the_largest_budget_that_fits(
    product: float, gradient: float, remade: list[float], workers: int, seconds: float
) -> None:
    price = Price(product, 2 * product, gradient, once=0.1)

    def cost(products: int) -> float:
        return 0.1 + makespan([price.end_point(products, r) for r in remade], workers)

    found = affordable(price, remade, workers, seconds, 8, 400)
    if found is None:
        assert cost(8) > seconds
    else:
        assert 8 <= found <= 400 and cost(found) <= seconds
        assert found == 400 or cost(found + 1) > seconds


def test_a_price_is_measured_and_leaves_the_model_alone() -> None:
    model = nn.Linear(3, 1)
    before = [p.detach().clone() for p in model.parameters()]
    training = Training(model, nn.functional.mse_loss, [(torch.ones(4, 3), torch.ones(4, 1))])
    price = measured_price(training)
    assert min(price.product, price.fresh, price.gradient) > 0 and price.once >= 0
    assert all(map(torch.equal, before, [p.detach() for p in model.parameters()]))
    assert price.end_point(100, 1.0) > price.end_point(8, 1.0) > 1.0
