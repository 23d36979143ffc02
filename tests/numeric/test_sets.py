from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from thalweg.numeric import Affine, Box, Halfspace, L1Ball, L2Ball, NuclearBall, Set, Simplex

D = 6
SHAPE = (2, 3)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    unit = torch.rand(shape, generator=generator, dtype=torch.float64)
    return low + (high - low) * unit


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _box(generator: torch.Generator) -> Set:
    low = _normal(generator, *SHAPE)
    return Box(low, low + _uniform(generator, 0.0, 2.0, *SHAPE))


def _l2_ball(generator: torch.Generator) -> Set:
    return L2Ball(float(_uniform(generator, 0.2, 4.0)), center=_normal(generator, *SHAPE))


def _l1_ball(generator: torch.Generator) -> Set:
    return L1Ball(float(_uniform(generator, 0.2, 8.0)))


def _simplex(generator: torch.Generator) -> Set:
    return Simplex(float(_uniform(generator, 0.2, 8.0)))


def _halfspace(generator: torch.Generator) -> Set:
    return Halfspace(_normal(generator, *SHAPE), float(_normal(generator)))


def _hyperplane(generator: torch.Generator) -> Set:
    return Affine(_normal(generator, 1, D), float(_normal(generator)))


def _affine(generator: torch.Generator) -> Set:
    return Affine(_normal(generator, 3, D), _normal(generator, 3))


def _nuclear_ball(generator: torch.Generator) -> Set:
    return NuclearBall(float(_uniform(generator, 0.2, 4.0)))


Make = Callable[[torch.Generator], Set]
WEIGHTED: list[Make] = [_box, _l2_ball, _l1_ball, _simplex, _halfspace, _hyperplane, _affine]
ALL: list[Make] = [*WEIGHTED, _nuclear_ball]


def _name(make: Make) -> str:
    return make.__name__.strip("_")


def _draw(make: Make, seed: int) -> tuple[Set, Tensor, Tensor | None]:
    """A random set, point and weights (two decades wide); points fall inside and outside."""
    generator = torch.Generator().manual_seed(seed)
    X = make(generator)
    y = _normal(generator, *SHAPE) * _uniform(generator, 0.1, 3.0)
    weights = 10 ** _uniform(generator, -1.0, 1.0, *SHAPE)
    return X, y, None if make is _nuclear_ball else weights


def _feasible(X: Set, generator: torch.Generator) -> Tensor:
    """A point of X that does not come from its own projection or oracle."""
    z = _normal(generator, *SHAPE)
    match X:
        case Box(low, high):
            return low + (high - low) * torch.rand(SHAPE, generator=generator, dtype=torch.float64)
        case L2Ball(radius, center):
            return center + z / z.norm() * radius * _uniform(generator, 0.0, 1.0)
        case L1Ball(radius):
            return z / z.abs().sum() * radius * _uniform(generator, 0.0, 1.0)
        case Simplex(total):
            return z.abs() / z.abs().sum() * total
        case Halfspace(a, b):
            return z + a * (b - (a * z).sum() - _uniform(generator, 0.0, 2.0)) / a.square().sum()
        case Affine(A, b):
            b = torch.as_tensor(b, dtype=torch.float64).reshape(-1)
            return z + (torch.linalg.pinv(A) @ (b - A @ z.flatten())).reshape(SHAPE)
        case NuclearBall(radius):
            return z / torch.linalg.matrix_norm(z, "nuc") * radius * _uniform(generator, 0.0, 1.0)
    raise AssertionError(X)


# --- projection: brute force -------------------------------------------------------------------


def _slsqp(X: Set, y: np.ndarray, h: np.ndarray) -> np.ndarray:
    """The projection by a general solver, which knows the set only as constraints."""
    signs = np.eye(D)  # x = signs @ z
    start, bounds, constraints = np.zeros(D), None, []  # constraints: (type, function, jacobian)
    match X:
        case Box(low, high):
            bounds = list(zip(low.flatten().tolist(), high.flatten().tolist(), strict=True))
        case L2Ball(radius, center):
            c = center.flatten().numpy()
            start = c
            constraints = [
                ("ineq", lambda z: radius**2 - ((z - c) ** 2).sum(), lambda z: -2 * (z - c))
            ]
        case L1Ball(radius):  # x = p - n with p, n >= 0
            signs, start = np.hstack([np.eye(D), -np.eye(D)]), np.zeros(2 * D)
            bounds = [(0, np.inf)] * (2 * D)
            constraints = [("ineq", lambda z: radius - z.sum(), lambda z: -np.ones(2 * D))]
        case Simplex(total):
            start, bounds = np.full(D, total / D), [(0, np.inf)] * D
            constraints = [("eq", lambda z: z.sum() - total, lambda z: np.ones(D))]
        case Halfspace(a, b):
            normal = a.flatten().numpy()
            constraints = [("ineq", lambda z: b - normal @ z, lambda z: -normal)]
        case Affine(A, b):
            matrix, right = A.numpy(), np.atleast_1d(np.asarray(b))
            constraints = [("eq", lambda z: matrix @ z - right, lambda z: matrix)]
    # In u = sqrt(h) z the objective is round, which SLSQP needs to be accurate to 1e-6.
    scale = 1 / np.sqrt(np.tile(h, len(start) // D))
    u = minimize(
        lambda u: (h * (signs @ (scale * u) - y) ** 2).sum(),
        start / scale,
        jac=lambda u: 2 * scale * (signs.T @ (h * (signs @ (scale * u) - y))),
        bounds=bounds if bounds is None else np.array(bounds) / scale[:, None],
        constraints=[
            {
                "type": kind,
                "fun": lambda u, fun=fun: fun(scale * u),
                "jac": lambda u, jac=jac: jac(scale * u) * scale,
            }
            for kind, fun, jac in constraints
        ],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    ).x
    return signs @ (scale * u)


@pytest.mark.parametrize("make", WEIGHTED, ids=_name)
def test_projection_agrees_with_slsqp(make: Make) -> None:
    moved = 0
    for seed in range(200):
        X, y, weights = _draw(make, seed)
        x = X.project(y, weights)
        expected = _slsqp(X, y.flatten().numpy(), weights.flatten().numpy())
        np.testing.assert_allclose(x.flatten().numpy(), expected, rtol=0, atol=1e-6)
        moved += not torch.equal(x, y)
    assert moved >= 80  # most draws lie outside, or the comparison would be empty


@pytest.mark.parametrize("make", ALL, ids=_name)
@pytest.mark.parametrize("weighted", [True, False])
def test_projection_certificate(make: Make, weighted: bool) -> None:
    """x = P(y) if and only if x is in X and <h (y - x), z - x> <= 0 for every z in X.

    The oracle gives the z that is worst, so this proves optimality: the squared distance of x to
    the projection, in the metric of h, is at most the value tested.
    """
    for seed in range(200):
        X, y, weights = _draw(make, seed)
        weights = weights if weighted else None
        h = torch.ones_like(y) if weights is None else weights
        x = X.project(y, weights)
        assert X.contains(x, tol=1e-11)
        normal = h * (y - x)
        if torch.equal(x, y):
            continue  # inside, hence its own projection
        generator = torch.Generator().manual_seed(seed)
        others = [_feasible(X, generator) for _ in range(5)]
        for z in [X.minimize_linear(-normal), *others]:
            assert (normal * (z - x)).sum() <= 1e-14 * max(1.0, float((h * y.square()).sum()))


@pytest.mark.parametrize("make", WEIGHTED, ids=_name)
def test_equal_weights_give_the_euclidean_projection(make: Make) -> None:
    for seed in range(50):
        X, y, _ = _draw(make, seed)
        expected = X.project(y)
        for value in (2.3e-308, 1e-8, 37.0, 1e308):
            x = X.project(y, torch.full_like(y, value))
            torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", ALL, ids=_name)
def test_projection_is_idempotent(make: Make) -> None:
    for seed in range(50):
        X, y, weights = _draw(make, seed)
        x = X.project(y, weights)
        torch.testing.assert_close(X.project(x, weights), x, rtol=0, atol=1e-11)


@pytest.mark.parametrize("make", ALL, ids=_name)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    values=st.lists(st.floats(-1e3, 1e3), min_size=2 * D, max_size=2 * D),
    decades=st.lists(st.floats(-4, 4), min_size=D, max_size=D),
)
def test_projection_is_nonexpansive(
    make: Make, seed: int, values: list[float], decades: list[float]
) -> None:
    X, _, weights = _draw(make, seed)
    y, z = torch.tensor(values, dtype=torch.float64).reshape(2, *SHAPE)
    if weights is not None:
        weights = 10 ** torch.tensor(decades, dtype=torch.float64).reshape(SHAPE)
    h = torch.ones_like(y) if weights is None else weights

    def norm(x: Tensor) -> float:
        return float((h * x.square()).sum().sqrt())

    rounding = 1e-11 * (norm(y) + norm(z) + norm(torch.ones_like(y)))
    assert norm(X.project(y, weights) - X.project(z, weights)) <= norm(y - z) + rounding


# --- projection: closed forms and hard cases ---------------------------------------------------


def test_simplex_with_weights_of_very_different_size() -> None:
    y, h = torch.tensor([0.5, 1.5]).double(), torch.tensor([1.0, 1e-8]).double()
    nu = (y.sum() - 1) / (1 / h).sum()  # both entries stay positive
    torch.testing.assert_close(Simplex().project(y, h), y - nu / h, rtol=1e-14, atol=0)
    single = Simplex().project(y.float(), h.float())
    torch.testing.assert_close(single, (y - nu / h).float(), rtol=1e-6, atol=0)


def test_simplex_ignores_a_common_offset() -> None:
    y = torch.tensor([0.75, 0.5, -1.0]).double()
    assert torch.equal(Simplex().project(y + 2.0**50), Simplex().project(y))


def test_simplex_of_ties_is_uniform() -> None:
    x = Simplex(total=2.0).project(torch.full((8,), -3.0))
    assert torch.equal(x, torch.full((8,), 0.25))


def test_l2_ball_with_weights_over_sixteen_decades() -> None:
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        h = 10 ** _uniform(generator, -16.0, 0.0, 20)
        y = _normal(generator, 20) * 10 ** _normal(generator, 20)
        X = L2Ball(radius=0.3)
        x = X.project(y, h)
        assert abs(float(x.norm()) / 0.3 - 1) <= 1e-12
        normal = h * (y - x)
        gap = (normal * (X.minimize_linear(-normal) - x)).sum()
        assert gap <= 1e-11 * normal.norm() * 0.3


def test_affine_with_nearly_dependent_rows() -> None:
    A = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1e-4]], dtype=torch.float64)
    b = torch.tensor([1.0, 1.0 + 2e-4], dtype=torch.float64)  # the third coordinate must be 2
    x = Affine(A, b).project(torch.tensor([3.0, 1.0, 0.0]).double())
    torch.testing.assert_close(x, torch.tensor([1.5, -0.5, 2.0]).double(), rtol=0, atol=1e-9)


def test_hyperplane_is_the_boundary_of_the_halfspace() -> None:
    for seed in range(50):
        X, y, weights = _draw(_halfspace, seed)
        assert isinstance(X, Halfspace)
        if not X.contains(y, tol=0.0):
            hyperplane = Affine(X.a.reshape(1, -1), X.b)
            torch.testing.assert_close(hyperplane.project(y, weights), X.project(y, weights))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_halfspace_whose_coefficients_cannot_be_squared(scale: float) -> None:
    a = torch.tensor([3.0, 4.0]).double()
    x = Halfspace(scale * a, b=5.0 * scale).project(torch.tensor([6.0, 8.0]).double())
    torch.testing.assert_close(x, torch.tensor([0.6, 0.8]).double())


def test_halfspace_takes_a_flat_normal_vector() -> None:
    y = torch.arange(6.0).reshape(2, 3)
    a = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0, 1.0])
    flat, shaped = Halfspace(a, 1.0), Halfspace(a.reshape(2, 3), 1.0)
    assert torch.equal(flat.project(y), shaped.project(y))


def test_nuclear_ball_shrinks_the_singular_values() -> None:
    generator = torch.Generator().manual_seed(0)
    U, _ = torch.linalg.qr(_normal(generator, 5, 3))
    V, _ = torch.linalg.qr(_normal(generator, 4, 3))
    x = NuclearBall(radius=2.0).project(
        U @ torch.diag(torch.tensor([3.0, 2.0, 0.5])).double() @ V.T
    )
    expected = U @ torch.diag(torch.tensor([1.5, 0.5, 0.0])).double() @ V.T
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


def test_box_with_open_sides() -> None:
    y = torch.tensor([-2.0, 3.0])
    assert torch.equal(Box(0.0, float("inf")).project(y), torch.tensor([0.0, 3.0]))
    assert torch.equal(Box(-float("inf"), 1.0).project(y), torch.tensor([-2.0, 1.0]))


@pytest.mark.parametrize(
    "X",
    [
        Box(-1.0, 1.0),
        L2Ball(3.0),
        L2Ball(3.0, center=torch.full((2, 3), 0.1)),
        L1Ball(3.0),
        Halfspace(torch.ones(2, 3), 3.0),
        NuclearBall(3.0),
    ],
    ids=repr,
)
def test_a_point_inside_is_returned_bitwise_in_a_new_tensor(X: Set) -> None:
    y = torch.tensor([[0.1, -0.2, 0.3], [1 / 3, 0.0, -1 / 7]])
    metrics = [None] if isinstance(X, NuclearBall) else [None, torch.rand(2, 3) + 0.1]
    for weights in metrics:
        x = X.project(y, weights)
        assert torch.equal(x, y)
        x += 1
        assert float(y[0, 0]) == pytest.approx(0.1)


# --- linear minimization oracle ----------------------------------------------------------------


def _vertices(X: Set) -> Tensor:
    eye = torch.eye(D, dtype=torch.float64)
    match X:
        case Box(low, high):
            ends = torch.stack([low.flatten(), high.flatten()])
            choices = torch.tensor(list(itertools.product([0, 1], repeat=D)))
            return ends[choices, torch.arange(D)]
        case L1Ball(radius):
            return torch.cat([radius * eye, -radius * eye])
        case Simplex(total):
            return total * eye
    raise AssertionError(X)


@pytest.mark.parametrize("make", [_box, _l1_ball, _simplex], ids=_name)
def test_oracle_is_the_best_vertex(make: Make) -> None:
    for seed in range(100):
        X, g, _ = _draw(make, seed)
        x = X.minimize_linear(g)
        values = _vertices(X) @ g.flatten()
        assert X.contains(x, tol=1e-14)
        torch.testing.assert_close((g * x).sum(), values.min(), rtol=1e-13, atol=1e-13)


def test_oracle_of_the_l2_ball_reaches_the_dual_norm() -> None:
    for seed in range(100):
        X, g, _ = _draw(_l2_ball, seed)
        assert isinstance(X, L2Ball) and X.center is not None
        x = X.minimize_linear(g)
        assert X.contains(x, tol=1e-14)
        torch.testing.assert_close((g * x).sum(), (g * X.center).sum() - X.radius * g.norm())


def test_oracle_of_the_nuclear_ball_reaches_the_dual_norm() -> None:
    for seed in range(100):
        X, g, _ = _draw(_nuclear_ball, seed)
        assert isinstance(X, NuclearBall)
        x = X.minimize_linear(g)
        assert X.contains(x, tol=1e-14)
        assert torch.linalg.matrix_rank(x) == 1
        value = -X.radius * torch.from_numpy(np.asarray(np.linalg.norm(g.numpy(), 2)))
        torch.testing.assert_close((g * x).sum(), value)


@pytest.mark.parametrize("make", ALL, ids=_name)
def test_no_feasible_point_beats_the_oracle(make: Make) -> None:
    for seed in range(50):
        X, g, _ = _draw(make, seed)
        generator = torch.Generator().manual_seed(seed)
        if isinstance(X, Halfspace):
            g = -float(_uniform(generator, 0.0, 2.0)) * X.a
        elif isinstance(X, Affine):
            g = (X.A.T @ _normal(generator, X.A.shape[0])).reshape(SHAPE)
        best = (g * X.minimize_linear(g)).sum()
        assert X.contains(X.minimize_linear(g), tol=1e-12)
        for _ in range(20):
            assert (g * _feasible(X, generator)).sum() >= best - 1e-11


@pytest.mark.parametrize("make", ALL, ids=_name)
def test_every_point_minimizes_the_zero_function(make: Make) -> None:
    X, _, _ = _draw(make, 0)
    assert X.contains(X.minimize_linear(torch.zeros(SHAPE, dtype=torch.float64)), tol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_oracle_of_the_l2_ball_at_extreme_gradients(scale: float) -> None:
    x = L2Ball(5.0).minimize_linear(scale * torch.tensor([3.0, -4.0]).double())
    torch.testing.assert_close(x, torch.tensor([-3.0, 4.0]).double())


@pytest.mark.parametrize(
    ("X", "g", "message"),
    [
        (Halfspace(torch.tensor([1.0, 1.0]), 0.0), [1.0, 1.0], "negative multiple of `a`"),
        (Halfspace(torch.tensor([1.0, 1.0]), 0.0), [-1.0, -1.1], "negative multiple of `a`"),
        (Affine(torch.tensor([[1.0, 1.0]]), 0.0), [1.0, 1.1], "in the row space of A"),
        (Box(0.0, float("inf")), [1.0, -1.0], "open"),
    ],
    ids=["halfspace inward", "halfspace oblique", "affine", "box"],
)
def test_oracle_refuses_an_infinite_minimum(X: Set, g: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^g must be .*{message}.*-inf"):
        X.minimize_linear(torch.tensor(g))


# --- tensors of every kind ---------------------------------------------------------------------


def _sets_of_size(d: int) -> list[Set]:
    ones = torch.ones(d)
    return [
        Box(-0.5, 0.5),
        L2Ball(0.5),
        L1Ball(0.5),
        Simplex(),
        Halfspace(ones, 0.1),
        Affine(ones[None], 1.0),
    ]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (2, 1, 3, 2)])
def test_shapes_are_restored(shape: tuple[int, ...]) -> None:
    y = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.1
    for X in _sets_of_size(y.numel()):
        if isinstance(X, Halfspace):
            X = Halfspace(torch.ones(shape), X.b)
        x = X.project(y, weights)
        assert x.shape == y.shape and X.contains(x)
        flat = X if not isinstance(X, Halfspace) else Halfspace(torch.ones(y.numel()), X.b)
        expected = flat.project(y.flatten(), weights.flatten())
        torch.testing.assert_close(x.flatten(), expected, rtol=0, atol=1e-7)
        g = -torch.ones(shape)
        assert X.minimize_linear(g).shape == shape and X.contains(X.minimize_linear(g))


def test_non_contiguous_tensors() -> None:
    y = (torch.randn(3, 2, generator=torch.Generator().manual_seed(0)) + 1).T
    weights = torch.rand(3, 2, generator=torch.Generator().manual_seed(1)).add(0.1).T
    strided = torch.randn(2, 6, generator=torch.Generator().manual_seed(2))[:, ::2]
    expanded = torch.tensor([[1.0], [2.0]]).expand(2, 3)
    for point in (y, strided, expanded):
        assert not point.is_contiguous()
        for X in [*_sets_of_size(6), NuclearBall(0.5)]:
            h = None if isinstance(X, NuclearBall) else weights
            dense = None if h is None else h.contiguous()
            assert torch.equal(X.project(point, h), X.project(point.contiguous(), dense))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    y = (2 * _normal(generator, 4, 5)).to(dtype)
    weights = (_uniform(generator, 0.1, 1.0, 4, 5)).to(dtype)
    for X in [*_sets_of_size(20), NuclearBall(0.5)]:
        if isinstance(X, Halfspace):
            X = Halfspace(torch.ones(4, 5), 0.1)
        h = None if isinstance(X, NuclearBall) else weights
        x = X.project(y, h)
        assert x.dtype == dtype
        exact = X.project(y.double(), None if h is None else h.double())
        # no more than the rounding of the answer (float32 arithmetic for the nuclear ball)
        rounding = torch.finfo(dtype).eps * (1.0 if dtype != torch.float32 else 16.0)
        torch.testing.assert_close(x.double(), exact, rtol=rounding, atol=rounding)
        g = -torch.ones(4, 5, dtype=dtype)
        assert X.minimize_linear(g).dtype == dtype


def test_long_float32_vectors_meet_the_constraint() -> None:
    y = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(200_000, generator=torch.Generator().manual_seed(1)) + 1e-3
    for X in (Simplex(100.0), L1Ball(100.0), L2Ball(10.0)):
        for h in (None, weights):
            x = X.project(y, h)
            assert X.contains(x, tol=1e-7)
            assert not X.contains(1.001 * x, tol=1e-7)


def test_autograd_is_left_out() -> None:
    y = torch.ones(3, requires_grad=True)
    for X in _sets_of_size(3):
        assert not X.project(y).requires_grad
        assert not X.minimize_linear(-y).requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", ALL, ids=_name)
def test_gpu_agrees_with_cpu(make: Make) -> None:
    for seed in range(20):
        X, y, weights = _draw(make, seed)
        x = X.project(y.cuda(), None if weights is None else weights.cuda())
        assert x.is_cuda and X.contains(x, tol=1e-11)
        torch.testing.assert_close(x.cpu(), X.project(y, weights), rtol=0, atol=1e-11)
        zero = X.minimize_linear(torch.zeros_like(y).cuda())
        assert zero.is_cuda and X.contains(zero, tol=1e-11)


@pytest.mark.parametrize("make", ALL, ids=_name)
def test_sets_are_frozen_and_survive_copies(make: Make) -> None:
    X, y, weights = _draw(make, 3)
    for again in (copy.deepcopy(X), pickle.loads(pickle.dumps(X))):
        assert torch.equal(again.project(y, weights), X.project(y, weights))
    with pytest.raises(AttributeError):
        X.radius = 2.0  # type: ignore[attr-defined]
    hash(X)


# --- membership --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "inside", "outside"),
    [
        (Box(0.0, 1.0), [0.0, 1.0], [0.0, 1.01]),
        (Box(0.0, 1.0), [0.5, 0.5], [-0.01, 0.5]),
        (L2Ball(5.0), [3.0, 4.0], [3.0, 4.01]),
        (L2Ball(5.0, torch.tensor([1.0, 0.0])), [4.0, 4.0], [3.0, 4.6]),
        (L1Ball(1.0), [-0.5, 0.5], [-0.5, 0.51]),
        (Simplex(), [0.25, 0.75], [0.25, 0.74]),
        (Simplex(), [0.0, 1.0], [-0.01, 1.01]),
        (Halfspace(torch.tensor([1.0, 2.0]), 3.0), [1.0, 1.0], [1.0, 1.01]),
        (Affine(torch.tensor([[1.0, 2.0]]), 3.0), [1.0, 1.0], [1.0, 0.99]),
        (NuclearBall(2.0), [[1.0, 0.0], [0.0, -1.0]], [[1.0, 0.0], [0.0, -1.01]]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Set) else "",
)
def test_contains(X: Set, inside: list, outside: list) -> None:
    assert X.contains(torch.tensor(inside))
    assert not X.contains(torch.tensor(outside))
    assert X.contains(torch.tensor(outside), tol=0.1)
    for value in (float("nan"), float("inf"), -float("inf")):
        assert not X.contains(torch.full(torch.tensor(inside).shape, value), tol=1.0)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("X", [L2Ball, L1Ball, NuclearBall])
@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("inf")])
def test_radius_must_be_positive(X: type, radius: float) -> None:
    with pytest.raises(ValueError, match=f"^radius must be > 0, got {radius}"):
        X(radius)


@pytest.mark.parametrize("total", [0.0, -1.0, float("nan")])
def test_total_must_be_positive(total: float) -> None:
    with pytest.raises(ValueError, match=f"^total must be > 0, got {total}"):
        Simplex(total)


ONE, TWO, NAN = torch.ones(1), torch.ones(2), torch.tensor([1.0, float("nan")])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(1.0, 0.0), "low must be <= high, got low=1.0, high=0.0"),
        (lambda: Box(torch.tensor([0.0, 2.0]), 1.0), "low must be <= high"),
        (lambda: Box(float("inf"), float("inf")), "low must be < inf and high > -inf"),
        (lambda: Box(float("nan"), 1.0), "low must be a finite number, got nan"),
        (lambda: Box(0.0, NAN), "high must not be NaN"),
        (lambda: Box(ONE, TWO), r"low and high must have one shape, got \(1,\) and \(2,\)"),
        (lambda: L2Ball(1.0, NAN), "center must not be NaN"),
        (lambda: L2Ball(1.0, TWO / 0), "center must be finite"),
        (lambda: Halfspace(torch.zeros(2), 1.0), "a must have a nonzero entry"),
        (lambda: Halfspace(NAN, 1.0), "a must not be NaN"),
        (lambda: Halfspace(TWO, float("inf")), "b must be a finite number, got inf"),
        (lambda: Affine(TWO, 1.0), r"A must be 2-D \(m, d\) and not empty, got shape \(2,\)"),
        (lambda: Affine(torch.ones(2, 2, 2), TWO), "A must be 2-D"),
        (lambda: Affine(torch.ones(0, 2), torch.ones(0)), "A must be 2-D"),
        (lambda: Affine(NAN[None], 1.0), "A must not be NaN"),
        (lambda: Affine(torch.eye(2), 1.0), r"b must have shape \(2,\), .* got \(\)"),
        (lambda: Affine(torch.eye(2), torch.ones(3)), r"b must have shape \(2,\), .* got \(3,\)"),
        (lambda: Affine(torch.eye(2), NAN), "b must not be NaN"),
        (lambda: Affine(torch.zeros(1, 2), 1.0), "A must have full row rank"),
        (lambda: Affine(torch.ones(3, 2), torch.ones(3)), "A must have full row rank"),
    ],
)
def test_sets_that_make_no_sense(make: Callable[[], Set], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_rank_deficient_equations_name_the_row() -> None:
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        A = torch.randn(4, 9, generator=generator).to(torch.bfloat16).to(dtype)
        A[2] = A[0] - 2 * A[1]  # exact: bfloat16 entries leave room
        with pytest.raises(ValueError, match=r"full row rank, .* row 2 depends"):
            Affine(A, torch.ones(4))
        Affine(A[[0, 1, 3]], torch.ones(3))


def test_weights_too_wide_for_the_equations() -> None:
    X = Affine(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]).double(), torch.ones(2))
    y = torch.zeros(3).double()
    with pytest.raises(ValueError, match=r"full row rank, .* row 1 .* `weights`"):
        X.project(y, torch.tensor([1e-20, 1.0, 1.0]).double())


@pytest.mark.parametrize("make", ALL, ids=_name)
def test_points_that_make_no_sense(make: Make) -> None:
    X, y, _ = _draw(make, 0)
    for method, name in ((X.project, "y"), (X.minimize_linear, "g")):
        for value in (float("nan"), float("inf"), -float("inf")):
            broken = y.clone()
            broken[1, 1] = value
            with pytest.raises(ValueError, match=f"^{name} must be finite, got .* in 1 of 6"):
                method(broken)
    for method, name in ((X.project, "y"), (X.minimize_linear, "g"), (X.contains, "x")):
        with pytest.raises(ValueError, match=rf"^{name} must have at least one .*\(0, 3\)"):
            method(torch.zeros(0, 3))
        with pytest.raises(TypeError, match=f"^{name} must be a real floating-point tensor"):
            method(torch.ones(SHAPE, dtype=torch.int64))
        with pytest.raises(TypeError, match=f"^{name} must be a tensor, got list"):
            method([1.0, 2.0])
    with pytest.raises(ValueError, match=r"^tol must be >= 0, got -1"):
        X.contains(y, tol=-1)


@pytest.mark.parametrize("make", WEIGHTED, ids=_name)
def test_weights_that_make_no_sense(make: Make) -> None:
    X, y, weights = _draw(make, 0)
    for value in (0.0, -1.0, float("nan"), float("inf")):
        broken = weights.clone()
        broken[0, 1] = value
        with pytest.raises(ValueError, match=r"^weights must be > 0 and finite"):
            X.project(y, broken)
    with pytest.raises(
        ValueError, match=r"^weights must have the shape of y, \(2, 3\), got \(6,\)"
    ):
        X.project(y, weights.flatten())
    with pytest.raises(TypeError, match=r"^weights must be a tensor"):
        X.project(y, 1.0)  # type: ignore[arg-type]
    broken = weights.clone()
    broken[0, 0] = 1e-300
    with pytest.raises(ValueError, match=r"^weights must span a ratio"):
        X.project(y, broken)


@pytest.mark.parametrize(
    ("make", "name"),
    [(_box, "low"), (_l2_ball, "center"), (_halfspace, "a")],
)
def test_points_of_another_shape(make: Make, name: str) -> None:
    X, _, _ = _draw(make, 0)
    for method in (X.project, X.minimize_linear, X.contains):
        with pytest.raises(ValueError, match=rf"^{name} must have the shape .* got \(2, 3\)"):
            method(torch.ones(3, 3))


def test_points_that_do_not_fit_the_equations() -> None:
    X = Affine(torch.ones(1, 4), 0.0)
    for method, name in ((X.project, "y"), (X.minimize_linear, "g"), (X.contains, "x")):
        with pytest.raises(ValueError, match=rf"^{name} must have 4 elements, .* \(2, 3\)"):
            method(torch.ones(2, 3))


def test_nuclear_ball_wants_a_matrix_and_no_weights() -> None:
    X = NuclearBall(1.0)
    for method, name in ((X.project, "y"), (X.minimize_linear, "g"), (X.contains, "x")):
        with pytest.raises(ValueError, match=rf"^{name} must be 2-D for NuclearBall, .* \(3,\)"):
            method(torch.ones(3))
    with pytest.raises(ValueError, match=r"^weights must be None for NuclearBall, .* invariant"):
        X.project(torch.ones(2, 2), torch.ones(2, 2))
