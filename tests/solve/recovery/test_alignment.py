"""Joint alignment: products, the card's numbers, invariances, cycles, bad input."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from thalweg.core import Reason
from thalweg.numeric import Simplex
from thalweg.solve.recovery import (
    JointAlignment,
    PhaseSynchronization,
    generalized_power_method,
    projected_power_method,
)
from thalweg.solve.recovery.alignment_power import onto_simplices
from thalweg.solve.recovery.alignment_product import DifferenceProduct


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def even(m, seed=0):
    g = torch.rand(m, dtype=torch.float64, generator=seeded(seed))
    return g + g.roll(-1).flip(0)


def dense(problem, g):
    """L, entry by entry as it is defined."""
    n, m, y = problem.n, problem.m, problem.y
    L = torch.zeros(n, m, n, m, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            for a in range(m):
                for b in range(m):
                    if i != j and y[i, j] >= 0:
                        L[i, a, j, b] = g[(y[i, j] - a + b) % m] - g.mean()
    return L.reshape(n * m, n * m)


@pytest.mark.parametrize("m", [2, 3, 6])
@pytest.mark.parametrize("kind", ["frequencies", "gather"])
def test_products_are_those_with_the_dense_matrix(m, kind):
    drawn = JointAlignment.random(7, m, 0.5, density=0.8, generator=seeded(m))
    g = even(m)
    problem = JointAlignment(drawn.y, m, g)
    L = dense(problem, g)
    torch.testing.assert_close(L, L.mT)
    y = torch.where(torch.eye(7, dtype=torch.bool), -1, problem.y)
    product = DifferenceProduct(y, g, kind)
    z = torch.rand(2, 7, m, dtype=torch.float64, generator=seeded(1))
    expected = (z.flatten(1) @ L).unflatten(1, (7, m))
    torch.testing.assert_close(product(z), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(problem.differences(z[0]), expected[0], rtol=0, atol=1e-12)
    values, vectors = problem.eigenpairs
    torch.testing.assert_close(values, torch.linalg.eigvalsh(L).flip(0)[: len(values)])
    torch.testing.assert_close(L @ vectors, values * vectors, rtol=0, atol=1e-7)


def test_value_and_gap_are_their_sums_over_the_pairs():
    drawn = JointAlignment.random(7, 5, 0.5, density=0.8, generator=seeded(2))
    g = even(5)
    problem = JointAlignment(drawn.y, 5, g)
    x = torch.tensor([0, 3, 1, 4, 2, 2, 0])
    pairs = [(i, j) for i in range(7) for j in range(i) if problem.y[i, j] >= 0]
    given_away = sum(float(g.max() - g[(problem.y[i, j] - x[i] + x[j]) % 5]) for i, j in pairs)
    z = problem.start(x)
    assert float(problem.value(z)) == pytest.approx(given_away)
    best = (dense(problem, g) @ z.flatten()).reshape(7, 5).argmax(1)
    assert 0 < int((best != x).sum()) < 7  # moves some
    torch.testing.assert_close(problem.misfit(z), problem.start(best) - z)
    assert float(problem.residual(z)) == pytest.approx((2 * int((best != x).sum()) / 7) ** 0.5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.01, 1.0, 100.0]))
def test_rows_are_projected_as_by_the_set(seed, scale):
    u = scale * torch.randn(4, 6, dtype=torch.float64, generator=seeded(seed))
    rows = torch.stack([Simplex().project(row) for row in u])
    torch.testing.assert_close(onto_simplices(u), rows, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [25.0, math.inf])
def test_a_quarter_of_right_differences_is_enough(seed, scale):
    problem = JointAlignment.random(100, 10, 0.25, generator=seeded(seed))
    result = projected_power_method(problem, scale=scale)
    assert result.converged and result.trace["step"][-1] <= 2
    assert problem.error(result.x) == 0
    assert torch.equal(result.info["labels"], problem.labels(result.x))


def test_at_fifteen_percent_the_refinement_divides_the_errors_by_four():
    before, after = [], []
    for seed in range(4):
        problem = JointAlignment.random(100, 10, 0.15, generator=seeded(seed))
        result = projected_power_method(problem)
        before.append(float(problem.error(problem.start())))
        after.append(float(problem.error(result.x)))
    assert 0.05 < sum(before) / 4 < 0.3
    assert sum(after) <= sum(before) / 4


def test_a_small_scale_takes_many_steps_to_the_same_answer():
    problem = JointAlignment.random(100, 10, 0.15, generator=seeded(1))
    one, two = (projected_power_method(problem, scale=c) for c in (25.0, 10.0))
    assert two.trace["step"][-1] > 3 * one.trace["step"][-1]
    assert problem.error(one.x) == problem.error(two.x)


def test_two_shifts_are_signs():
    drawn = JointAlignment.random(30, 2, 0.5, generator=seeded(2))
    aligned = projected_power_method(drawn, scale=math.inf)
    signs = 1.0 - 2.0 * drawn.y.double()
    signs.fill_diagonal_(0)
    start = 1.0 - 2.0 * drawn.labels(drawn.start()).double()
    x = generalized_power_method(PhaseSynchronization(signs), start=start).x
    labels = 1.0 - 2.0 * aligned.info["labels"].double()
    assert float((labels * x).sum().abs()) == 30


def test_against_every_choice_of_shifts():
    problem = JointAlignment.random(6, 3, 0.8, generator=seeded(3))
    grid = torch.cartesian_prod(*[torch.arange(3)] * 6)
    values = [float(problem.value(problem.start(x))) for x in grid]
    result = projected_power_method(problem)
    assert problem.value(result.x) == pytest.approx(min(values))
    assert min(values) < sorted(values)[30]


def decided(problem, x):
    """No ties now or one step on: they go to the lowest index, which a shift moves."""
    u = problem.differences(x)
    mu = 25 / float(problem.eigenpairs[0][-1])
    after = problem.differences(onto_simplices(mu * u))
    gaps = [v.topk(2).values.diff(dim=-1).abs().min() for v in (u, after)]
    return mu > 0 and min(gaps) > 1e-9


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 500), k=st.integers(0, 4))
def test_a_shift_common_to_all_changes_nothing(seed, k):
    drawn = JointAlignment.random(12, 5, 0.6, generator=seeded(seed))
    g = even(5)
    problem, other = (JointAlignment(drawn.y, 5, g, (drawn.truth + c) % 5) for c in (0, k))
    x = problem.start("random", seeded(seed))
    assume(decided(problem, x))
    shifted = x.roll(k, -1)
    for measure in ("error", "residual", "value"):
        torch.testing.assert_close(getattr(problem, measure)(x), getattr(other, measure)(shifted))
    one = projected_power_method(problem, start=x, max_steps=1, tol=0.0)
    two = projected_power_method(problem, start=shifted, max_steps=1, tol=0.0)
    torch.testing.assert_close(one.x.roll(k, -1), two.x, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 500))
def test_own_shifts_move_the_answer(seed):
    drawn = JointAlignment.random(12, 5, 0.6, generator=seeded(seed))
    own = torch.randint(5, (12,), generator=seeded(seed + 1))
    problem = JointAlignment(drawn.y, 5, even(5))
    moved = JointAlignment((drawn.y + own[:, None] - own) % 5, 5, even(5))
    x = problem.labels(problem.start("random", seeded(seed)))
    assume(decided(problem, problem.start(x)))
    one = projected_power_method(problem, start=x, max_steps=1, tol=0.0)
    two = projected_power_method(moved, start=(x + own) % 5, max_steps=1, tol=0.0)
    turned = torch.stack([row.roll(int(k)) for row, k in zip(one.x, own, strict=True)])
    torch.testing.assert_close(two.x, turned, rtol=0, atol=1e-9)


def test_a_constant_and_a_factor_of_the_likelihood_change_nothing():
    drawn = JointAlignment.random(30, 5, 0.5, generator=seeded(4))
    g = even(5) + 3 * torch.eye(1, 5, dtype=torch.float64)[0]
    one = projected_power_method(JointAlignment(drawn.y, 5, g, drawn.truth))
    two = projected_power_method(JointAlignment(drawn.y, 5, 7 * g - 100, drawn.truth))
    assert torch.equal(one.info["labels"], two.info["labels"])
    assert drawn.error(one.x) == 0


def test_a_likelihood_uses_near_misses():
    """Differences that are off by one say where to look; counting exact hits only wastes them."""
    generator = seeded(5)
    x = torch.randint(12, (40,), generator=generator)
    noise = torch.randint(-2, 3, (40, 40), generator=generator).triu(1)
    y = (x[:, None] - x + noise - noise.mT) % 12
    near = torch.arange(12, dtype=torch.float64)
    g = -torch.minimum(near, 12 - near).square()
    with_g = JointAlignment(y, 12, g, x)
    without = JointAlignment(y, 12, truth=x)
    good, plain = (projected_power_method(p) for p in (with_g, without))
    assert with_g.error(good.x) == 0 and with_g.error(plain.x) > 0


def test_a_cycle_of_two_points_returns_the_better_one():
    """Each of two shifts follows the other: with equal ones, and 1 = their difference, forever."""
    problem = JointAlignment(torch.tensor([[0, 1], [1, 0]]), 2)
    result = projected_power_method(
        problem, scale=math.inf, start=torch.tensor([0, 0]), max_steps=20
    )
    assert result.reason is Reason.STALLED
    assert result.trace["step"][-1] <= 3
    assert result.value == float(problem.residual(result.x))
    assert projected_power_method(problem).reason is Reason.EXACT


def test_components_are_reported_and_aligned_each():
    parts = [JointAlignment.random(n, 4, 1.0, generator=seeded(n)) for n in (5, 3)]
    y = torch.full((8, 8), -1)
    y[:5, :5], y[5:, 5:] = parts[0].y, parts[1].y
    with pytest.warns(UserWarning, match="2 components"):
        problem = JointAlignment(y, 4, truth=torch.cat([p.truth for p in parts]))
    result = projected_power_method(problem)
    assert problem.error(result.x) == 0 and result.info["components"] == 2


def test_bad_input_is_named():
    good = JointAlignment.random(4, 3, 1.0, generator=seeded()).y
    y = good.clone()
    y[0, 1] = 3
    with pytest.raises(ValueError, match=r"y must be in \[0, 3\).*got 3 at \(0, 1\)"):
        JointAlignment(y, 3)
    y[0, 1] = (good[0, 1] + 1) % 3
    with pytest.raises(ValueError, match="y_ij \\+ y_ji = 0 mod m"):
        JointAlignment(y, 3)
    y[0, 1] = -1
    with pytest.raises(ValueError, match="y_ij \\+ y_ji = 0 mod m"):
        JointAlignment(y, 3)
    for g, message in (
        (torch.rand(4), "shape"),
        (torch.tensor([1.0, 0.5, 0.0]), "same for a noise and its negative"),
        (torch.ones(3), "must not be constant"),
        (torch.tensor([math.nan, 0, 0]), "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            JointAlignment(good, 3, g)
    for arguments in (
        {"truth": torch.tensor([0, 1, 2, 3])},
        {"truth": torch.rand(4, 2)},
    ):
        with pytest.raises(ValueError, match="truth must"):
            JointAlignment(good, 3, **arguments)
    with pytest.raises(ValueError, match="m must be"):
        JointAlignment(good, 1)
    with pytest.raises(ValueError, match="y must have shape"):
        JointAlignment(good[:2], 3)
    with pytest.raises(TypeError, match="y must be"):
        JointAlignment(good.double(), 3)
    with pytest.raises(ValueError, match="scale must be"):
        projected_power_method(JointAlignment(good, 3), scale=0.0)
    with pytest.raises(ValueError, match="error needs"):
        JointAlignment(good, 3).error(torch.zeros(4, dtype=torch.long))
