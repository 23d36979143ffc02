"""Principal components of data some of whose entries are grossly wrong."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar, Self

import numpy
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg.core import Reason, check
from thalweg.core.catalogue import Axis
from thalweg.solve import recovery
from thalweg.solve.recovery.robust_pca import keep_largest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class RobustPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Split X into a matrix of low rank and gross errors in a small share of each row and column.

    .. math:: X \approx U V^T + S, \qquad V^T V = I

    The data are not centred: subtract a robust location (say the median of each column) first, or
    spend one component on the mean.

    Parameters
    ----------
    n_components : int, default=2
        The rank, in [1, min(X.shape)].
    alpha : float, default=0.1
        The largest share of gross entries in any row or column, in [0, 0.25).
    max_iter : int, default=200
        Most steps, >= 1.
    tol : float, default=1e-7
        Stop where what is neither low-rank nor gross falls below this share of X, or the factors
        move by less; >= 0.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Orthonormal rows that span the rows of the low-rank part, the strongest first.
    singular_values_ : ndarray of shape (n_components,)
        Of the low-rank part.
    low_rank_, sparse_ : ndarray of shape (n_samples, n_features)
        The two parts of the training data.
    residual_ : float
        Share of X (in the Frobenius norm) that is in neither part; near 0 certifies exact data.
    n_iter_ : int
        Steps made.
    n_features_in_ : int
        Columns seen in `fit`.
    result_ : Result
        The run: reason and trace.

    Examples
    --------
    >>> random = numpy.random.default_rng(0)
    >>> X = numpy.outer(random.standard_normal(40), random.standard_normal(30))
    >>> broken = X.copy()
    >>> broken[::8, ::7] += 100
    >>> model = RobustPCA(n_components=1, alpha=0.2).fit(broken)
    >>> bool(abs(model.low_rank_ - X).max() < 1e-4)
    True

    References
    ----------
    Yi, Park, Chen, Caramanis, NeurIPS 2016, arXiv:1605.07784.
    """

    paper = "Yi, Park, Chen, Caramanis, NeurIPS 2016, arXiv:1605.07784"
    year = 2016
    family = "low-rank recovery"
    needs: ClassVar[tuple[str, ...]] = ("a table",)
    memory = "3 per entry"
    search_space: ClassVar[dict[str, Axis]] = {}

    def __init__(
        self, n_components: int = 2, alpha: float = 0.1, max_iter: int = 200, tol: float = 1e-7
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Find the two parts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The data.
        y : ignored

        Returns
        -------
        self : object
            A ConvergenceWarning if `max_iter` steps were too few.
        """
        table = torch.tensor(validate_data(self, X, dtype=numpy.float64))
        check.number("max_iter", self.max_iter, ge=1, integer=True)
        check.number("tol", self.tol, ge=0)
        check.number("n_components", self.n_components, ge=1, integer=True)
        if self.n_components > min(table.shape):
            raise ValueError(
                f"n_components must be <= min(n_samples = {table.shape[0]}, n_features = "
                f"{table.shape[1]}), got {self.n_components}"
            )
        problem = recovery.RobustPCA(table, int(self.n_components), float(self.alpha))
        self.result_ = recovery.robust_pca(
            problem, max_steps=int(self.max_iter), tol=float(self.tol), xtol=float(self.tol)
        )
        x = self.result_.x
        R_U = torch.linalg.qr(x.U).R
        Q_V, R_V = torch.linalg.qr(x.V)
        _, sigma, Wh = torch.linalg.svd(R_U @ R_V.mT)
        components = (Q_V @ Wh.mT).mT
        # the sign of a component is nobody's: its largest entry is positive
        largest = components.abs().argmax(1, keepdim=True)
        components = components * components.gather(1, largest).sign()
        self.components_ = components.numpy()
        self.singular_values_ = sigma.numpy()
        self.low_rank_ = x.low_rank.dense().numpy()
        self.sparse_ = x.S.numpy()
        self.residual_ = float(problem.residual(x.low_rank))
        self.n_iter_ = int(self.result_.trace["step"][-1])
        self._n_features_out = len(self.components_)
        if self.result_.reason in (Reason.MAX_STEPS, Reason.NONFINITE):
            warnings.warn(
                f"{self.n_iter_} steps did not converge: {self.result_.reason}; "
                "raise max_iter, tol or alpha",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def transform(self, X: ArrayLike) -> numpy.ndarray:
        r"""Coordinates on the components, with the gross entries of each row left out.

        .. math:: u \leftarrow V^T (x - s), \qquad s = T_{2\alpha}(x - V u)

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, of training or new.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        check_is_fitted(self)
        rows = torch.tensor(validate_data(self, X, dtype=numpy.float64, reset=False))
        V = torch.from_numpy(self.components_).mT
        u = rows @ V
        for _ in range(int(self.max_iter)):
            # every row for itself: as a batch of matrices of one row
            gross = keep_largest((rows - u @ V.mT)[:, None, :], 2 * float(self.alpha))[:, 0]
            new = (rows - gross) @ V
            still = bool(((new - u).norm(dim=1) <= self.tol * new.norm(dim=1)).all())
            u = new
            if still:
                break
        return u.numpy()

    def inverse_transform(self, X: ArrayLike) -> numpy.ndarray:
        """Rows from their coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        return numpy.asarray(X) @ self.components_
