"""Slices: parabolas of quadratics, invariance under rescaling, planes, lines, and bit-exactness."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thalweg.core.problem import Training
from thalweg.curvature import Objective, hessian, landscape
from thalweg.curvature.landscape import (
    eigen_directions,
    line,
    orthogonalized,
    random_direction,
    trajectory_plane,
)


def seed(n: int) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def network(first: Tensor | None = None, second: Tensor | None = None) -> Training:
    """ReLU, three layers, no biases; hidden neurons rescaled by c, the next layer by 1/c."""
    model = nn.Sequential(
        nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 6, bias=False), nn.ReLU(),
        nn.Linear(6, 3, bias=False),
    ).double()  # fmt: skip
    generator = seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) / 2)
        for c, i in ((first, 0), (second, 2)):
            if c is not None:
                model[i].weight.mul_(c[:, None])
                model[i + 2].weight.div_(c)
    X = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (30,), generator=generator)
    return Training(model, nn.functional.cross_entropy, [(X, y)])


def along(training: Training, norm: str) -> Tensor:
    return landscape.slice(training, random_direction(training, norm), points=9).values


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_a_quadratic_gives_an_exact_parabola(n: int) -> None:
    A = torch.randn(6, 6, dtype=torch.float64, generator=seed(n))
    A = A + A.T
    x, D, E = torch.randn(3, 6, dtype=torch.float64, generator=seed(n + 1))
    training = Training.from_function(lambda x: 0.5 * x @ A @ x, x)
    found = landscape.slice(training, [D, E], extent=[2.0, (-0.5, 1.5)], points=5)
    assert found.axes[0].tolist() == [-2, -1, 0, 1, 2]
    assert found.axes[1].tolist() == [-0.5, 0, 0.5, 1, 1.5]
    for i, a in enumerate(found.axes[0]):
        for j, b in enumerate(found.axes[1]):
            z = x + a * D + b * E
            assert float(found.values[i, j]) == pytest.approx(float(0.5 * z @ A @ z), abs=1e-10)
    assert float(found.values[2, 1]) == found.centre
    assert torch.allclose(found.quadratic, found.values, atol=1e-9)
    assert float(found.curvature[0, 1]) == pytest.approx(float(D @ A @ E), abs=1e-10)
    one = landscape.slice(training, D, extent=2.0, points=5)
    assert torch.equal(one.values, found.values[:, 1])
    assert torch.allclose(one.quadratic, one.values, atol=1e-9)


@pytest.mark.parametrize("norm", ["filter", "layer", "element"])
def test_the_centre_is_the_loss_and_the_model_does_not_move(norm: str) -> None:
    training = network()
    model = training.model
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    found = landscape.slice(training, [random_direction(training, norm)] * 2, points=3)
    assert float(found.values[1, 1]) == found.centre == Objective(training).value()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and found.mode == "eval"


@pytest.mark.parametrize("norm", ["filter", "layer", "element"])
@given(st.floats(0.01, 100), st.floats(0.01, 100))
@settings(max_examples=10, deadline=None)
def test_invariant_to_rescaling_layers(norm: str, c: float, e: float) -> None:
    ones = torch.ones(7, dtype=torch.float64)
    scaled = network(c * ones, e * ones[:6])
    assert torch.allclose(along(scaled, norm), along(network(), norm), rtol=1e-12, atol=1e-12)


neurons = st.lists(st.floats(0.1, 10.0), min_size=13, max_size=13)


@given(neurons)
@settings(max_examples=10, deadline=None)
def test_the_element_norm_is_invariant_to_rescaling_neurons(c: list[float]) -> None:
    scaled = network(*torch.tensor(c, dtype=torch.float64).split([7, 6]))
    assert torch.allclose(along(scaled, "element"), along(network(), "element"), atol=1e-12)


@pytest.mark.parametrize("norm", ["filter", "layer"])
def test_the_filter_norm_is_not_invariant_to_rescaling_neurons(norm: str) -> None:
    scaled = network(*torch.linspace(0.2, 5, 13, dtype=torch.float64).split([7, 6]))
    assert (along(scaled, norm) - along(network(), norm)).abs().max() > 1e-3


def test_filters_of_every_layout() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.ConvTranspose2d(4, 5, 2), nn.BatchNorm2d(5), nn.Linear(6, 2)
    )
    training = Training(model, lambda out, y: out.sum(), [(torch.ones(1, 3, 3, 3), None)])
    objective = Objective(training)
    for biases in ("ignore", "scale"):
        D = objective.unflatten(random_direction(objective, biases=biases))
        x = objective.unflatten(objective.start)
        for name, others in (("0.weight", (1, 2, 3)), ("1.weight", (0, 2, 3)), ("3.weight", 1)):
            sizes = [torch.linalg.vector_norm(t[name], dim=others) for t in (D, x)]
            assert torch.allclose(*sizes)
        for name in ("0.bias", "2.weight", "2.bias", "3.bias"):
            size = float(x[name].norm()) if biases == "scale" else 0.0
            assert float(D[name].norm()) == pytest.approx(size, rel=1e-5)
    whole = objective.unflatten(random_direction(objective, "layer"))
    assert float(whole["1.weight"].norm()) == pytest.approx(float(x["1.weight"].norm()), rel=1e-5)
    entries = objective.unflatten(random_direction(objective, "element"))
    assert bool((entries["3.bias"] != 0).all())


def test_eigen_directions_have_the_extreme_curvatures() -> None:
    training = network()
    found = landscape.slice(training, eigen_directions(training), points=2)
    values = torch.linalg.eigvalsh(hessian(training).dense())
    expected = torch.diag(values[[-1, 0]])
    assert torch.allclose(found.curvature, expected, atol=1e-8 * float(values.abs().max()))


def test_orthogonalized() -> None:
    a, b = torch.randn(2, 9, dtype=torch.float64, generator=seed(0))
    first, second = orthogonalized(a, b)
    assert torch.equal(first, a) and abs(float(first @ second)) < 1e-12
    assert float(second.norm()) == pytest.approx(float(b.norm()))
    assert torch.linalg.matrix_rank(torch.stack([a, b, second])) == 2
    with pytest.raises(ValueError, match="first and second must not be parallel"):
        orthogonalized(a, -2 * a)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_a_trajectory_in_a_plane_is_recovered(n: int) -> None:
    generator = seed(n)
    basis, _ = torch.linalg.qr(torch.randn(40, 2, dtype=torch.float64, generator=generator))
    coordinates = torch.randn(12, 2, dtype=torch.float64, generator=generator)
    origin = torch.randn(40, dtype=torch.float64, generator=generator)
    points = list(origin + coordinates @ basis.T)
    plane = trajectory_plane(points)
    D = torch.stack(plane.directions)
    assert torch.allclose(D @ D.T, torch.eye(2, dtype=torch.float64), atol=1e-10)
    assert torch.allclose(plane.centre + plane.path @ D, torch.stack(points), atol=1e-8)
    assert float(plane.explained.sum()) == pytest.approx(1, abs=1e-9)
    assert plane.explained[0] >= plane.explained[1]
    assert bool((plane.path[0] >= 0).all()) and plane.path[-1].abs().max() < 1e-12


def test_the_plane_is_the_nearest() -> None:
    points = torch.randn(20, 30, dtype=torch.float64, generator=seed(0)).cumsum(0)
    plane = trajectory_plane(list(points))
    M = points - points[-1]
    singular = torch.linalg.svdvals(M)
    assert torch.allclose(plane.explained, (singular[:2] / singular.norm()) ** 2, atol=1e-10)


def test_the_loss_on_the_plane_is_that_on_the_path() -> None:
    training = network()
    objective = Objective(training)
    D, E = torch.randn(2, objective.d, dtype=torch.float64, generator=seed(1)) / 10
    points = [objective.start + a * D + b * E for a, b in ((3, 0), (2, 1), (0, 2), (0, 0))]
    plane = trajectory_plane(points)
    (a, b) = plane.path[1].tolist()
    found = landscape.slice(
        objective, plane.directions, centre=plane.centre, path=plane.path, points=2,
        extent=[(a, a + 1), (b, b + 1)],
    )  # fmt: skip
    assert float(found.values[0, 0]) == pytest.approx(objective.value(points[1]), rel=1e-10)
    assert found.path is not None and found.path.shape == (4, 2)


def test_a_line_between_two_solutions() -> None:
    objective = Objective(network())
    x0, x1 = objective.start, -objective.start
    found = line(objective, x0, x1, points=5)
    assert found.ends == (objective.value(x0), objective.value(x1))
    assert (float(found.values[0]), float(found.values[-1])) == found.ends  # to the bit
    assert float(found.values[2]) == pytest.approx(math.log(3))  # a network of zeros
    beyond = line(objective, x0, x1, extent=(-0.5, 1.5), points=9)
    assert torch.allclose(beyond.values[2:7], found.values)


def test_the_ends_of_a_line_are_the_solutions_to_the_bit() -> None:
    points = []

    def f(x: Tensor) -> Tensor:
        points.append(x.detach().clone())
        return (x**2).sum()

    x0, x1 = torch.randn(2, 50, generator=seed(0))  # x0 + (x1 - x0) is not x1 in floating point
    line(Training.from_function(f, torch.zeros(50)), x0, x1, points=3)
    assert sum(torch.equal(p, x1) for p in points) == sum(torch.equal(p, x0) for p in points) == 2


def test_the_barrier_is_measured_from_the_chord() -> None:
    training = Training.from_function(lambda x: ((x**2 - 1) ** 2 + x).sum(), torch.zeros(1))
    one = torch.ones(1)
    assert line(training, -one, one).barrier == pytest.approx(1.0)
    convex = Training.from_function(lambda x: (x**2).sum(), torch.zeros(1))
    assert line(convex, -one, 3 * one).barrier == 0
    # what lies beyond the ends is no barrier
    assert line(convex, -one, one, extent=(-3, 4)).barrier == 0


def test_batch_normalization_with_the_statistics_of_the_batch() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    X = torch.randn(20, 3, generator=seed(0), dtype=torch.float64)
    training = Training(model, nn.functional.mse_loss, [(5 * X, X[:, :1])])
    D = random_direction(training)
    with pytest.warns(UserWarning, match="batch"):
        batch = Objective(training, mode="train")
    buffers = [b.clone() for b in model.buffers()]
    found = landscape.slice(batch, D, points=3)
    running = landscape.slice(training, D, points=3)
    assert (found.mode, running.mode) == ("train", "eval")
    assert (found.values - running.values).abs().max() > 1e-3
    assert all(torch.equal(b, c) for b, c in zip(model.buffers(), buffers))


def test_refused() -> None:
    training = network()
    D = random_direction(training)
    for call, message in (
        (lambda: landscape.slice(training, [D, D, D]), "directions must be one or two vectors"),
        (lambda: landscape.slice(training, D[1:]), r"directions\[0\] must be of shape \(95,\)"),
        (lambda: landscape.slice(training, D * math.inf), r"directions\[0\] must be finite"),
        (lambda: landscape.slice(training, D, centre=D[1:]), r"centre must be of shape \(95,\)"),
        (lambda: landscape.slice(training, D, points=1), "points must be an integer >= 2, got 1"),
        (lambda: landscape.slice(training, D, extent=-1.0), "extent must be > 0, or a pair"),
        (lambda: landscape.slice(training, D, extent=[1.0, 1.0]), "one range per direction"),
        (lambda: landscape.slice(training, D, path=torch.ones(3, 2)), r"path must be of shape"),
        (lambda: random_direction(training, "filtre"), r"did you mean 'filter'"),
        (lambda: random_direction(training, biases="none"), "biases must be one of"),
        (lambda: trajectory_plane([D]), "trajectory must hold at least two points, got 1"),
        (lambda: trajectory_plane([D, D[1:]]), "trajectory must hold vectors of one shape"),
        (lambda: trajectory_plane([D, 2 * D, 0 * D]), "must span a plane with the centre"),
        (lambda: trajectory_plane([D / 0, D]), "trajectory must be finite"),
        (lambda: line(training, D, D[1:]), r"second must be of shape \(95,\)"),
        (lambda: line(training, D, D, extent=(1.0, 0.0)), "extent must be > 0, or a pair"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
