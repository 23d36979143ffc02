"""Full-matrix AdaGrad."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.optim import AdaGrad, AdaGradFull
from thalweg.optim.adagrad_full import full_matrix_direction

DOUBLE = torch.float64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def rotation(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(d, d, seed=seed))[0]


def trajectory(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    steps: int,
    method: type[torch.optim.Optimizer] = AdaGradFull,
    **options: object,
) -> Tensor:
    x = torch.nn.Parameter(start.clone())
    optimizer = method([x], **options)
    points = [x.detach().clone()]
    for _ in range(steps):
        x.grad = gradient(x.detach())
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


def along(gradients: Tensor, **options: object) -> Tensor:
    """The trajectory under a fixed stream of gradients."""
    stream = iter(gradients)
    start = torch.zeros(gradients.shape[1], dtype=gradients.dtype)
    return trajectory(lambda _: next(stream).clone(), start, len(gradients), **options)


@given(exponent=st.floats(-8, 8), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_1_first_step_is_along_the_gradient_with_length_lr(exponent: float, seed: int) -> None:
    g = 10**exponent * gaussian(1, 6, seed=seed)
    end = along(g, lr=0.3, delta=0.0)[-1]
    torch.testing.assert_close(end, -0.3 * g[0] / g.norm(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("delta", [0.0, 1e-3])
@pytest.mark.parametrize("seed", range(5))
def test_2_rotation_equivariance(delta: float, seed: int) -> None:
    """Not at delta = 1e-8: there eigenvalues that are 0 but for rounding, of root 1e-8, decide the
    steps before G has full rank, and trajectories part by 1e-5."""
    Q, start = rotation(6, seed), gaussian(6, seed=seed + 20)
    A = torch.diag(torch.logspace(0, 1, 6, dtype=DOUBLE))
    plain = trajectory(lambda x: A @ x, start, 30, lr=0.5, delta=delta)
    rotated = trajectory(lambda x: Q.T @ A @ Q @ x, Q.T @ start, 30, lr=0.5, delta=delta)
    torch.testing.assert_close(rotated, plain @ Q, rtol=0, atol=1e-8)


@pytest.mark.parametrize("delta", [0.0, 1e-8, 0.5])
def test_3_axis_aligned_gradients_give_diagonal_adagrad(delta: float) -> None:
    d, steps = 5, 40
    which = torch.randint(d, (steps,), generator=torch.Generator().manual_seed(0))
    gradients = torch.zeros(steps, d, dtype=DOUBLE)
    gradients[torch.arange(steps), which] = gaussian(steps, seed=1)
    full = along(gradients, lr=0.3, delta=delta)
    diagonal = along(gradients, lr=0.3, eps=delta, method=AdaGrad)
    torch.testing.assert_close(full, diagonal, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", [12, 13, 100])
@pytest.mark.parametrize("d", [4, 30])
def test_4_a_window_of_all_steps_equals_the_full_matrix(window: int, d: int) -> None:
    gradients = gaussian(12, d)
    full = along(gradients, lr=0.3, delta=1e-3)
    windowed = along(gradients, lr=0.3, delta=1e-3, window=window)
    torch.testing.assert_close(windowed, full, rtol=1e-8, atol=1e-9)


def test_4_a_shorter_window_forgets() -> None:
    gradients = gaussian(12, 4)
    windowed = along(gradients, lr=0.3, delta=1e-3, window=3)
    x = torch.zeros(4, dtype=DOUBLE)
    for k in range(12):
        recent = gradients[max(0, k - 2) : k + 1]
        w, V = torch.linalg.eigh(recent.T @ recent)
        root = V @ torch.diag(w.clamp_min(0).sqrt()) @ V.T
        x = x - 0.3 * torch.linalg.solve(1e-3 * torch.eye(4, dtype=DOUBLE) + root, gradients[k])
        torch.testing.assert_close(windowed[k + 1], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("delta", [1e-2, 1.0])
def test_5_agrees_with_scipy_sqrtm(delta: float) -> None:
    d, gradients = 8, gaussian(30, 8)
    mine = along(gradients, lr=0.3, delta=delta)
    # The root of a singular matrix is ill-conditioned (sqrt(1e-16) = 1e-8): start the comparison
    # where G has full rank.
    x, G = mine[10], gradients[:10].T @ gradients[:10]
    for k in range(10, 30):
        G = G + torch.outer(gradients[k], gradients[k])
        H = delta * torch.eye(d, dtype=DOUBLE) + torch.from_numpy(scipy.linalg.sqrtm(G.numpy()))
        x = x - 0.3 * torch.linalg.solve(H, gradients[k])
        torch.testing.assert_close(mine[k + 1], x, rtol=1e-10, atol=1e-10)


def test_delta_0_is_the_pseudo_inverse_at_low_rank() -> None:
    gradients = gaussian(3, 8)
    mine = along(gradients, lr=1.0, delta=0.0)
    G = gradients.T @ gradients
    w, V = torch.linalg.eigh(G)
    kept = V[:, -3:] / w[-3:].sqrt()
    expected = mine[2] - kept @ V[:, -3:].T @ gradients[2]
    torch.testing.assert_close(mine[3], expected, rtol=1e-9, atol=1e-9)


def test_direction_divides_what_a_thin_basis_misses_by_delta() -> None:
    V = torch.linalg.qr(gaussian(6, 2))[0]
    w, g = torch.tensor([4.0, 9.0], dtype=DOUBLE), gaussian(6, seed=1)
    H = V @ torch.diag(w.sqrt()) @ V.T + 0.1 * torch.eye(6, dtype=DOUBLE)
    mine = full_matrix_direction(w, V, g, 0.1)
    torch.testing.assert_close(mine, torch.linalg.solve(H, g), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_every_renews_the_decomposition_at_steps_1_and_1_plus_every(every: int) -> None:
    gradients = gaussian(20, 4)
    mine = along(gradients, lr=0.3, delta=0.1, every=every)
    G, x = torch.zeros(4, 4, dtype=DOUBLE), torch.zeros(4, dtype=DOUBLE)
    for k in range(20):
        G = G + torch.outer(gradients[k], gradients[k])
        if k % every == 0:
            w, V = torch.linalg.eigh(G)
            H = 0.1 * torch.eye(4, dtype=DOUBLE) + V @ torch.diag(w.clamp_min(0).sqrt()) @ V.T
        x = x - 0.3 * torch.linalg.solve(H, gradients[k])
        torch.testing.assert_close(mine[k + 1], x, rtol=1e-9, atol=1e-9)


def test_every_counts_the_steps_of_the_group_when_its_first_parameter_rests() -> None:
    xs = [torch.nn.Parameter(torch.zeros(1, dtype=DOUBLE)) for _ in range(2)]
    optimizer = AdaGradFull(xs, lr=1.0, delta=0.0, every=3)
    xs[0].grad = torch.ones(1, dtype=DOUBLE)
    xs[1].grad = torch.ones(1, dtype=DOUBLE)
    optimizer.step()  # decomposed: step 1
    xs[0].grad = None
    moves = []
    for _ in range(4):  # steps 2, 3: as they are; step 4: decomposed; step 5: as it is
        before = xs[1].item()
        optimizer.step()
        moves.append(before - xs[1].item())
    assert moves[:2] == pytest.approx([moves[0]] * 2, rel=1e-12)
    assert moves[2:] == pytest.approx([moves[2]] * 2, rel=1e-12)
    assert abs(moves[2] - moves[0]) > 0.01


def test_all_parameters_of_a_group_share_one_matrix_and_groups_do_not() -> None:
    shapes = [(2, 2), (), (3,), (0, 2)]
    stream = [[gaussian(*s, seed=10 * k + i) for i, s in enumerate(shapes)] for k in range(15)]
    together = along(
        torch.stack([torch.cat([g.reshape(-1) for g in gs]) for gs in stream]), lr=0.3, delta=1e-2
    )[-1]
    xs = [torch.nn.Parameter(torch.zeros(s, dtype=DOUBLE)) for s in shapes]
    apart = torch.nn.Parameter(torch.zeros(1, dtype=DOUBLE))
    optimizer = AdaGradFull([{"params": xs}, {"params": [apart], "lr": 2.0}], lr=0.3, delta=1e-2)
    for gs in stream:
        for x, g in zip(xs, gs, strict=True):
            x.grad = g.clone()
        apart.grad = torch.ones(1, dtype=DOUBLE)
        optimizer.step()
    mine = torch.cat([x.detach().reshape(-1) for x in xs])
    torch.testing.assert_close(mine, together, rtol=1e-10, atol=1e-10)
    expected = -sum(2.0 / (1e-2 + k**0.5) for k in range(1, 16))
    assert apart.item() == pytest.approx(expected, rel=1e-12)


def test_a_transposed_parameter_is_flattened_like_its_gradient() -> None:
    base = gaussian(3, 4)
    x = torch.nn.Parameter(base.clone().T)
    y = torch.nn.Parameter(base.T.contiguous())
    optimizers = AdaGradFull([x], lr=0.3), AdaGradFull([y], lr=0.3)
    for k in range(5):
        x.grad, y.grad = gaussian(3, 4, seed=k).T, gaussian(3, 4, seed=k).T.contiguous()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(x, y)


def test_bad_input_float32_is_decomposed_in_float64() -> None:
    g = gaussian(10, 5).float()
    g[:, 1] = g[:, 0] * (1 + 1e-6)  # nearly singular
    mine = along(g, lr=0.3, delta=1e-6)
    wide = along(g.double(), lr=0.3, delta=1e-6)
    assert mine.dtype is torch.float32
    torch.testing.assert_close(mine.double(), wide, rtol=1e-5, atol=1e-5)
    x = torch.nn.Parameter(torch.zeros(5))
    x.grad = g[0]
    optimizer = AdaGradFull([x])
    optimizer.step()
    assert optimizer.state[x]["matrix"].dtype is DOUBLE


def test_a_zero_gradient_moves_nothing_whatever_delta() -> None:
    for delta in (0.0, 1e-8):
        end = along(torch.zeros(3, 4, dtype=DOUBLE), delta=delta)[-1]
        assert torch.equal(end, torch.zeros(4, dtype=DOUBLE))


def test_bad_input_too_many_parameters() -> None:
    big = torch.nn.Parameter(torch.zeros(4097))
    with pytest.raises(ValueError, match=r"max_dim=4096 entries .*, got 4097; use AdaGrad"):
        AdaGradFull([big])
    AdaGradFull([big], max_dim=4097)
    AdaGradFull([torch.nn.Parameter(torch.zeros(4096))])
    with pytest.raises(ValueError, match=r"max_dim=3 .*, got 4"):
        AdaGradFull([torch.nn.Parameter(torch.zeros(2)) for _ in range(2)], max_dim=3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", -1.0, "lr must be >= 0, got -1.0"),
        ("delta", -1e-9, "delta must be >= 0, got -1e-09"),
        ("every", 0, "every must be an integer >= 1, got 0"),
        ("every", 1.5, "every must be an integer >= 1, got 1.5"),
        ("window", 0, "window must be an integer >= 1, got 0"),
        ("max_dim", 0, "max_dim must be an integer >= 1, got 0"),
        ("delta", float("nan"), "delta must be >= 0, got nan"),
    ],
)
def test_bad_values_are_named(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        AdaGradFull([torch.nn.Parameter(torch.zeros(1))], **{name: value})


def test_every_does_not_go_with_a_window() -> None:
    with pytest.raises(ValueError, match=r"^every must be 1 with a window, got 2"):
        AdaGradFull([torch.nn.Parameter(torch.zeros(1))], every=2, window=3)


@pytest.mark.parametrize("options", [{}, {"every": 4}, {"window": 5}])
@pytest.mark.parametrize("stop", [1, 6, 9])
def test_a_loaded_state_continues_bitwise(options: dict[str, int], stop: int) -> None:
    def advance(x: torch.nn.Parameter, optimizer: AdaGradFull, steps: range) -> None:
        for k in steps:
            x.grad = gaussian(4, seed=k)
            optimizer.step()

    x = torch.nn.Parameter(torch.zeros(4, dtype=DOUBLE))
    optimizer = AdaGradFull([x], **options)
    advance(x, optimizer, range(stop))
    saved = copy.deepcopy(optimizer.state_dict())
    y = torch.nn.Parameter(x.detach().clone())
    other = AdaGradFull([y], **options)
    other.load_state_dict(saved)
    advance(x, optimizer, range(stop, 20))
    advance(y, other, range(stop, 20))
    assert torch.equal(x, y)


def test_maximize_goes_up_by_the_same_step() -> None:
    gradients = gaussian(10, 4)
    assert torch.equal(along(-gradients, maximize=True), along(gradients))


@pytest.mark.parametrize("rounding", ["stochastic", "compensated"])
def test_bfloat16_does_not_lose_small_steps_with(rounding: str) -> None:
    """Below 1.0 steps of 0.0025 / sqrt(k) are lost from k = 2 on: half the spacing is 2**-9."""

    def end(rounding: str) -> Tensor:
        x = torch.nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
        optimizer = AdaGradFull(
            [x],
            lr=0.02,
            rounding=rounding,
            generator=torch.Generator().manual_seed(0) if rounding == "stochastic" else None,
        )
        for _ in range(60):
            x.grad = torch.ones_like(x)
            optimizer.step()
        return x.detach().double()

    exact = 1 - sum(0.02 / 8 / k**0.5 for k in range(1, 61))
    assert float(end("nearest").mean()) - exact > 0.02
    assert float(end(rounding).mean()) == pytest.approx(exact, abs=6e-3)


def steps_to(method: type[torch.optim.Optimizer], lr: float, most: int, fall: float) -> float:
    """Steps until f is `fall` times its start: quadratic, d = 20, condition 1e4, rotated."""
    d = 20
    Q = rotation(d, 0)
    A = Q.T @ torch.diag(torch.logspace(-4, 0, d, dtype=DOUBLE)) @ Q
    x = torch.nn.Parameter(gaussian(d, seed=1))
    optimizer = method([x], lr=lr)
    first = float(x.detach() @ A @ x.detach())
    for k in range(most):
        with torch.no_grad():
            x.grad = A @ x
        if float(x.detach() @ x.grad) <= fall * first:
            return k
        optimizer.step()
    return float("inf")


def test_headline_rotated_quadratic() -> None:
    """Full: 50 steps at lr 3 and 78 at lr 1; the diagonal form needs more than 20 times that."""
    full = min(steps_to(AdaGradFull, lr, 200, 1e-6) for lr in (1.0, 3.0))
    assert full <= 100
    most = int(20 * full)
    assert all(steps_to(AdaGrad, lr, most, 1e-6) >= most for lr in (0.3, 1.0, 3.0))


@pytest.mark.slow
def test_headline_rotated_quadratic_diagonal_over_5000_steps() -> None:
    assert all(steps_to(AdaGrad, lr, 5000, 1e-6) >= 5000 for lr in (0.1, 0.3, 1.0, 3.0, 10.0))
