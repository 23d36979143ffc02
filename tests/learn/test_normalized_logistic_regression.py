"""Normalized logistic regression against its guarantee, its limits and scikit-learn."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Perceptron
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.nn import functional as F

import thalweg.learn
from thalweg.core import Reason
from thalweg.core.catalogue import collect
from thalweg.learn import NormalizedLogisticRegression
from thalweg.learn.normalized_logistic_regression import Separator, gradient_step


def planted(
    seed: int, n: int = 100, d: int = 20, margin: float = 0.1
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Points whose signed distance from a random hyperplane through 0 is at least `margin`."""
    random = numpy.random.default_rng(seed)
    u = random.standard_normal(d)
    u /= numpy.linalg.norm(u)
    y = numpy.where(random.random(n) < 0.5, 1, -1)
    y[:2] = 1, -1
    X = random.standard_normal((n, d))
    X += numpy.outer(y * (margin + numpy.abs(X @ u)) - X @ u, u)
    return X, y


def few_hard(n: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """All but one point easy: ``y a`` is n-1 times (1, 0) and once (-0.5, 0.3)."""
    X = numpy.tile([1.0, 0.0], (n, 1))
    X[-1] = 0.5, -0.3
    return X, numpy.array([1] * (n - 1) + [-1])


def overlapping(seed: int = 0) -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(seed)
    return random.standard_normal((60, 3)), numpy.where(random.random(60) < 0.5, 1, -1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [NormalizedLogisticRegression(), NormalizedLogisticRegression(2.0, normalize=False)]
)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("share", [1.0, 10.0, 0.1])
def test_steps_stay_within_the_bound(share: float, fit_intercept: bool) -> None:
    n, margin = 100, 0.1
    for seed in range(50):
        X, y = planted(seed, n, margin=margin)
        R2 = (X**2).sum(axis=1).max() + fit_intercept
        step_size = share * n / R2
        model = NormalizedLogisticRegression(step_size, 100_000, fit_intercept).fit(X, y)
        assert model.separated_
        assert model.n_iter_ <= (R2 + 1.114 * (n - 1) / step_size) / margin**2


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_automatic_step_is_n_over_the_largest_squared_norm(fit_intercept: bool) -> None:
    X, y = planted(0)
    R2 = (X**2).sum(axis=1).max() + fit_intercept
    # of one step: further ones would multiply the rounding of the step size
    auto = NormalizedLogisticRegression("auto", 1, fit_intercept).fit(X, y)
    written = NormalizedLogisticRegression(100 / R2, 1, fit_intercept).fit(X, y)
    numpy.testing.assert_allclose(auto.coef_, written.coef_, rtol=1e-12)
    numpy.testing.assert_allclose(auto.intercept_, written.intercept_, rtol=1e-12)


def test_large_steps_are_the_batch_perceptron() -> None:
    X, y = overlapping()
    ya = torch.from_numpy(y[:, None] * X)
    at, t, gamma = Separator(torch.zeros(3).double(), torch.zeros(60).double()), numpy.zeros(3), 1e8
    moved = 0
    for _ in range(30):
        m = y * (X @ t)
        weights = numpy.where(m < 0, 1.0, numpy.where(m == 0, 0.5, 0.0))
        t = t + (weights * y) @ X / 60
        moved += weights.any()
        at = gradient_step(ya, at, step_size=gamma, normalize=False)
        numpy.testing.assert_allclose(at.theta.numpy() / gamma, t, rtol=0, atol=1e-6)
    assert moved == 30


def test_large_normalized_steps_add_the_mean_of_the_misclassified() -> None:
    X, y = overlapping(1)
    ya = torch.from_numpy(y[:, None] * X)
    at = Separator(torch.zeros(3).double(), torch.zeros(60).double())
    at = gradient_step(ya, at, step_size=1e8, normalize=True)
    wrong = at.m <= 0
    assert 0 < wrong.sum() < 60
    after = gradient_step(ya, at, step_size=1e8, normalize=True)
    torch.testing.assert_close((after.theta - at.theta) / 1e8, ya[wrong].mean(0), atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_a_step_follows_the_gradient_of_the_logistic_loss(seed: int, step_size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    ya = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    theta = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.softplus(-(ya @ theta)).mean(), theta)
    start = theta.detach()
    at = Separator(start, ya @ start)
    plain = gradient_step(ya, at, step_size=step_size, normalize=False)
    torch.testing.assert_close(plain.theta, start - step_size * gradient, rtol=1e-10, atol=1e-10)
    normalized = gradient_step(ya, at, step_size=step_size, normalize=True)
    mean = torch.sigmoid(-at.m).mean()
    expected = start - step_size / mean * gradient
    torch.testing.assert_close(normalized.theta, expected, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(normalized.m, ya @ normalized.theta)


def test_small_steps_have_the_direction_of_plain_gradient_descent() -> None:
    X, y = overlapping()
    with pytest.warns(ConvergenceWarning):
        ours = NormalizedLogisticRegression(1e-7, 10).fit(X, y)
    with pytest.warns(ConvergenceWarning):
        plain = NormalizedLogisticRegression(2e-7, 10, normalize=False).fit(X, y)
    numpy.testing.assert_allclose(ours.coef_, plain.coef_, rtol=1e-5)  # all weights are 1/2
    numpy.testing.assert_allclose(ours.intercept_, plain.intercept_, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 2.0**-20, 3.0, 2.0**9, 1e5])
def test_the_scale_of_the_data_does_not_matter(scale: float) -> None:
    for seed in range(5):
        X, y = planted(seed, margin=0.02)
        one = NormalizedLogisticRegression(fit_intercept=False).fit(X, y)
        other = NormalizedLogisticRegression(fit_intercept=False).fit(scale * X, y)
        assert one.n_iter_ == other.n_iter_ > 1
        if numpy.frexp(scale)[0] == 0.5:  # powers of two round nothing
            numpy.testing.assert_array_equal(other.coef_ * scale, one.coef_)


@pytest.mark.parametrize("seed", range(5))
def test_separates_what_the_perceptron_separates(seed: int) -> None:
    X, y = planted(seed, n=60, d=3)
    model = NormalizedLogisticRegression().fit(X, y)
    assert model.separated_
    assert model.score(X, y) == 1.0
    assert (y * model.decision_function(X) > 0).all()
    assert Perceptron(max_iter=5000, tol=None).fit(X, y).score(X, y) == 1.0


def test_gives_up_on_what_the_perceptron_cannot_separate() -> None:
    X, y = overlapping()
    with pytest.warns(ConvergenceWarning, match="not separated in 200 steps: .* best margin -"):
        model = NormalizedLogisticRegression(max_iter=200).fit(X, y)
    assert Perceptron(max_iter=5000, tol=None).fit(X, y).score(X, y) < 1.0
    assert not model.separated_
    assert model.n_iter_ == 200
    assert model.result_.reason is Reason.MAX_STEPS
    theta = numpy.append(model.coef_[0], model.intercept_)
    last = (y * model.decision_function(X)).min() / numpy.linalg.norm(theta)
    assert model.result_.trace["margin"][-1] == pytest.approx(last, rel=1e-9)
    assert model.result_.trace["loss"][0] == pytest.approx(numpy.log(2.0))
    loss = log_loss(y, scipy.special.expit(model.decision_function(X)))
    assert model.result_.trace["loss"][-1] == pytest.approx(loss, rel=1e-9)
    assert last <= model.best_margin_ < 0
    assert model.best_margin_ == model.result_.trace["margin"][1:].max()


@pytest.mark.parametrize(
    ("n", "normalize", "step_size", "steps"),
    [
        (10, False, 1.0, 300),
        (100, False, 1.0, 4493),
        pytest.param(1000, False, 1.0, 58199, marks=pytest.mark.slow),
        (10, False, 1e6, 8),
        (100, False, 1e6, 74),
        (1000, False, 1e6, 736),
        (10, True, 10.0, 3),
        (100, True, 100.0, 5),
        (1000, True, 1000.0, 5),
        (10, True, 1e4, 5),
        (100, True, 1e4, 5),
        (1000, True, 1e4, 5),
    ],
)
def test_few_hard_points(n: int, normalize: bool, step_size: float, steps: int) -> None:
    X, y = few_hard(n)
    model = NormalizedLogisticRegression(step_size, 100_000, False, normalize).fit(X, y)
    assert model.separated_
    assert model.n_iter_ == steps


def test_larger_steps_have_a_higher_loss_on_the_way_and_arrive_sooner() -> None:
    X, y = few_hard(100)
    small, large = (
        NormalizedLogisticRegression(step, 10_000, False, normalize=False).fit(X, y)
        for step in (1.0, 1e6)
    )
    assert large.n_iter_ < small.n_iter_ / 50
    assert large.result_.trace["loss"].max() > 100 * small.result_.trace["loss"].max()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"step_size": 0.0}, "step_size must be > 0, got 0.0"),
        ({"step_size": float("inf")}, "step_size must be > 0, got inf"),
        ({"step_size": "best"}, "step_size must be > 0 or 'auto', got 'best'"),
        ({"max_iter": 0}, "max_iter must be an integer >= 1, got 0"),
    ],
)
def test_values_out_of_range(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NormalizedLogisticRegression(**how).fit([[1.0], [2.0]], [0, 1])


def test_labels_must_be_of_two_classes() -> None:
    with pytest.raises(ValueError, match="y must have two classes, got one class"):
        NormalizedLogisticRegression().fit([[1.0], [2.0]], [1, 1])
    with pytest.raises(ValueError, match="Only binary classification is supported"):
        NormalizedLogisticRegression().fit([[1.0], [2.0], [3.0]], [0, 1, 2])


@pytest.mark.parametrize("normalize", [True, False])
def test_huge_numbers_do_not_become_nan(normalize: bool) -> None:
    X, y = planted(0)
    model = NormalizedLogisticRegression(1e200, 100_000, normalize=normalize).fit(1e50 * X, y)
    assert model.separated_
    assert numpy.isfinite(model.coef_).all()
    with pytest.warns(ConvergenceWarning):
        nothing = NormalizedLogisticRegression(fit_intercept=False, max_iter=5).fit(0 * X, y)
    assert not nothing.coef_.any()


def test_the_catalogue_lists_it() -> None:
    (entry,) = [e for e in collect(thalweg.learn) if e.name == "NormalizedLogisticRegression"]
    assert entry.place == "thalweg.learn.NormalizedLogisticRegression"


def test_importing_thalweg_does_not_import_scikit_learn() -> None:
    code = (
        "import sys, thalweg; before = 'sklearn' in sys.modules; "
        "thalweg.learn.NormalizedLogisticRegression; print(before, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
