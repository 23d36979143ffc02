"""Logistic regression by normalized gradient descent with an arbitrarily large step size."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import validate_data
from torch import Tensor

from thalweg.core import check, iterate
from thalweg.core.catalogue import Axis

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Separator(NamedTuple):
    """A hyperplane and what it says of the data."""

    theta: Tensor
    """Its normal, shape (d,)."""
    m: Tensor
    r""":math:`m_i = y_i a_i^\top \theta`, shape (n,): positive where the point is on its side."""


def gradient_step(ya: Tensor, at: Separator, *, step_size: float, normalize: bool) -> Separator:
    r"""One step of (normalized) gradient descent on the logistic loss: two products with the data.

    Parameters
    ----------
    ya
        Points times their labels, :math:`y_i a_i`, shape (n, d).
    at
        Where it starts from.
    step_size
        :math:`\gamma > 0`.
    normalize
        Divide by :math:`\sum_i w_i` rather than by n.
    """
    w = torch.sigmoid(-at.m)  # 1 / (1 + exp(m)) without overflow
    theta = at.theta + step_size * (ya.T @ w) / (w.sum() if normalize else len(w))
    return Separator(theta, ya @ theta)


def measures(at: Separator) -> dict[str, Tensor]:
    """Points that are not on their side, smallest signed distance, and logistic loss."""
    size = torch.linalg.vector_norm(at.theta)
    return {
        "misclassified": (at.m <= 0).sum(),
        "margin": torch.where(size > 0, at.m.min() / size, 0.0),
        "loss": torch.nn.functional.softplus(-at.m).mean(),
    }


class NormalizedLogisticRegression(LinearClassifierMixin, BaseEstimator):
    r"""A separating hyperplane in few passes: logistic regression with normalized large steps.

    .. math::
        w_i = \frac{1}{1 + \exp(y_i a_i^\top \theta_k)}, \qquad
        \theta_{k+1} = \theta_k + \gamma\, \frac{\sum_i w_i y_i a_i}{\sum_i w_i}, \qquad
        \theta_0 = 0

    It stops as soon as every point is on its side. On separable data it takes at most
    :math:`(R^2 + 1.114\,(n-1)/\gamma)/\mu^2` steps, with R the largest norm of a point and
    :math:`\mu` the margin (our proof): the larger the step, the fewer, though the loss on the way
    may rise. With :math:`\gamma \to \infty` the mean of the misclassified points is added.

    Parameters
    ----------
    step_size : float or "auto", default="auto"
        :math:`\gamma > 0`, in units of one over the points' squared norm. ``"auto"`` is
        :math:`n / R^2`, which makes the number of steps independent of the data's scale.
    max_iter : int, default=1000
        Most steps, >= 1; each takes two products with the data.
    fit_intercept : bool, default=True
        Append a column of ones to the data (it counts in R).
    normalize : bool, default=True
        False divides by n instead: gradient descent on the logistic loss, whose limit of large
        steps is the batch perceptron.

    Attributes
    ----------
    coef_ : ndarray of shape (1, n_features)
        The hyperplane's normal.
    intercept_ : ndarray of shape (1,)
        Its offset; 0 without an intercept.
    classes_ : ndarray of shape (2,)
        The two labels; the second is on the positive side.
    n_iter_ : int
        Steps made.
    separated_ : bool
        Whether every training point is on its side.
    best_margin_ : float
        The largest margin on the way: the smallest signed distance of a point from its side's
        border, the appended column of ones counted as a coordinate; negative if never separated.
    result_ : Result
        The run: reason, and the trace of misclassified points, margin and loss.

    Raises
    ------
    ValueError
        If `y` has not two classes, or an argument is out of range.

    Examples
    --------
    >>> import numpy
    >>> X = numpy.array([[2.0, 0.0], [3.0, 1.0], [-1.0, 0.0], [-2.0, 1.0]])
    >>> model = NormalizedLogisticRegression().fit(X, ["right", "right", "left", "left"])
    >>> model.separated_, model.n_iter_
    (True, 1)
    >>> model.predict([[1.0, 5.0]])
    array(['right'], dtype='<U5')

    References
    ----------
    Tyurin, "From logistic regression to the perceptron algorithm: exploring gradient descent with
    large step sizes", arXiv 2412.08424 (2024). The normalizer :math:`\sum_i w_i` is consistent with
    the paper's rate; its exact form there is unverified.
    """

    paper = "Tyurin, arXiv 2412.08424 (2024)"
    year = 2024
    family = "linear classification"
    needs: ClassVar[tuple[str, ...]] = ("two separable classes",)
    memory = "1 per feature + 1 per sample"
    search_space: ClassVar[dict[str, Axis]] = {}

    def __init__(
        self,
        step_size: float | Literal["auto"] = "auto",
        max_iter: int = 1000,
        fit_intercept: bool = True,
        normalize: bool = True,
    ) -> None:
        self.step_size = step_size
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.normalize = normalize

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Find a hyperplane that separates the two classes of `y`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points.
        y : array-like of shape (n_samples,)
            Their labels, of two classes.

        Returns
        -------
        self : object
            The fitted estimator. A ConvergenceWarning if the classes were not separated.
        """
        if not isinstance(self.step_size, str):
            check.number("step_size", self.step_size, gt=0)
        elif self.step_size != "auto":
            raise ValueError(f"step_size must be > 0 or 'auto', got {self.step_size!r}")
        check.number("max_iter", self.max_iter, ge=1, integer=True)
        points, labels = validate_data(self, X, y, dtype=numpy.float64)
        self.classes_, signs = _two_classes(labels)
        if self.fit_intercept:
            points = numpy.hstack([points, numpy.ones((len(points), 1))])
        ya = torch.from_numpy(signs[:, None] * points)

        step_size = self.step_size
        if step_size == "auto":
            largest = float(torch.linalg.vector_norm(ya, dim=1).max())
            # where all points are 0 no step moves
            step_size = len(ya) / largest / largest if largest > 0 else 1.0
        zero = torch.zeros(ya.shape[1], dtype=ya.dtype)
        self.result_ = iterate(
            lambda at: gradient_step(
                ya, at, step_size=float(step_size), normalize=bool(self.normalize)
            ),
            Separator(zero, ya @ zero),
            measure=measures,
            max_steps=int(self.max_iter),
        )

        theta = self.result_.x.theta.numpy()
        split = len(theta) - bool(self.fit_intercept)
        self.coef_ = theta[None, :split].copy()
        self.intercept_ = theta[split:].copy() if self.fit_intercept else numpy.zeros(1)
        self.n_iter_ = int(self.result_.trace["step"][-1])
        self.separated_ = self.result_.converged
        # the margin of theta = 0, which has no side, is not one that was reached
        self.best_margin_ = float(numpy.nanmax(self.result_.trace["margin"][1:], initial=-math.inf))
        if not self.separated_:
            warnings.warn(
                f"the classes were not separated in {self.n_iter_} steps: "
                f"{self.result_.value:.0f} of {len(ya)} points are on the wrong side, best margin "
                f"{self.best_margin_:.3g}; they may not be separable, or max_iter may be too small",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _two_classes(labels: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The two labels, and +1 where a point has the second of them, else -1."""
    check_classification_targets(labels)
    kind = type_of_target(labels, input_name="y", raise_unknown=True)
    if kind != "binary":  # the words scikit-learn's own checks ask for
        raise ValueError(
            f"Only binary classification is supported. The type of the target is {kind}."
        )
    classes, which = numpy.unique(labels, return_inverse=True)
    if len(classes) != 2:
        raise ValueError(f"y must have two classes, got one class: {classes[0]!r}")
    return classes, 2.0 * which - 1.0
