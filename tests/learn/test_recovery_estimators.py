"""The completer and robust PCA: scikit-learn's contract, and what they recover."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from thalweg.learn import LowRankCompleter, RobustPCA


def low_rank(shape: tuple[int, int], rank: int, seed: int = 0) -> numpy.ndarray:
    random = numpy.random.default_rng(seed)
    return random.standard_normal((shape[0], rank)) @ random.standard_normal((rank, shape[1]))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [LowRankCompleter(), LowRankCompleter(rank=1, ridge=0.1), RobustPCA(n_components=1)]
)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("rank", ["auto", 3])
def test_missing_entries_are_filled_in(rank: Any) -> None:
    X = low_rank((60, 50), 3)
    hidden = numpy.random.default_rng(1).random(X.shape) < 0.4
    given = numpy.where(hidden, numpy.nan, X)
    model = LowRankCompleter(rank=rank, ridge=0.0, tol=1e-10).fit(given)
    assert model.rank_ == 3
    filled = model.transform(given)
    numpy.testing.assert_array_equal(filled[~hidden], X[~hidden])
    numpy.testing.assert_allclose(filled, X, atol=1e-3)
    rows, cols = numpy.nonzero(hidden)
    numpy.testing.assert_allclose(model.predict_entries(rows, cols), X[rows, cols], atol=1e-3)
    # A new row of the same space, seen in eight places.
    new = (low_rank((60, 50), 3) @ numpy.linalg.pinv(X) @ X)[:1] * 2
    part = new.copy()
    part[:, 8:] = numpy.nan
    numpy.testing.assert_allclose(model.transform(part), new, atol=1e-2)


def test_training_rows_are_filled_in_as_predicted() -> None:
    X = low_rank((30, 20), 2) + 0.1 * low_rank((30, 20), 20, seed=1)
    hidden = numpy.random.default_rng(2).random(X.shape) < 0.3
    given = 100 * numpy.where(hidden, numpy.nan, X)
    model = LowRankCompleter(rank=2, ridge=0.3, tol=1e-12, max_iter=2000).fit(given)
    rows, cols = numpy.nonzero(hidden)
    numpy.testing.assert_allclose(
        model.transform(given)[rows, cols], model.predict_entries(rows, cols), rtol=1e-4, atol=1e-4
    )


def test_the_completer_refuses_bad_input() -> None:
    X = low_rank((6, 5), 1)
    for how, message in (
        ({"rank": 6}, r"^rank must be <= min\(n_samples = 6, n_features = 5\), got 6"),
        ({"rank": 0}, r"^rank must be"),
        ({"ridge": -1.0}, r"^ridge must be >= 0"),
        ({"max_iter": 0}, r"^max_iter must be"),
    ):
        with pytest.raises(ValueError, match=message):
            LowRankCompleter(**how).fit(X)
    with pytest.raises(ValueError, match="not NaN"):
        LowRankCompleter().fit(numpy.full((5, 5), numpy.nan))
    model = LowRankCompleter(rank=1).fit(X)
    with pytest.raises(ValueError, match=r"^cols must be in \[0, 5\), got 5"):
        model.predict_entries([0], [5])
    with pytest.raises(TypeError, match=r"^rows must be integers"):
        model.predict_entries([0.5], [1])
    with pytest.raises(NotFittedError):
        LowRankCompleter().predict_entries([0], [0])


def test_gross_errors_do_not_turn_the_components() -> None:
    X = low_rank((120, 80), 3)
    gross = numpy.random.default_rng(3).random(X.shape) < 0.03
    broken = numpy.where(gross, X + 100, X)
    model = RobustPCA(n_components=3, alpha=0.1).fit(broken)
    numpy.testing.assert_allclose(model.low_rank_, X, atol=1e-4)
    assert model.residual_ < 1e-6
    V = model.components_
    numpy.testing.assert_allclose(V @ V.T, numpy.eye(3), atol=1e-10)
    numpy.testing.assert_allclose(model.singular_values_, numpy.linalg.svd(X)[1][:3], rtol=1e-4)
    scores = model.transform(broken)
    numpy.testing.assert_allclose(model.inverse_transform(scores), X, atol=1e-3)
    assert numpy.array_equal(
        model.get_feature_names_out(), ["robustpca0", "robustpca1", "robustpca2"]
    )
    assert make_pipeline(RobustPCA(n_components=2)).fit_transform(broken[:20]).shape == (20, 2)


def test_robust_pca_refuses_bad_input() -> None:
    X = low_rank((6, 5), 2)
    with pytest.raises(ValueError, match=r"^n_components must be <= min\(n_samples = 6"):
        RobustPCA(n_components=6).fit(X)
    with pytest.raises(ValueError, match=r"^alpha must be < 0.5 / factor"):
        RobustPCA(alpha=0.3).fit(X)
