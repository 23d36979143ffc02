"""Fill in the missing entries of a table by a low-rank matrix."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg.core import Reason, check
from thalweg.core.catalogue import Axis
from thalweg.solve.recovery import MatrixCompletion, alternating_minimization

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class LowRankCompleter(TransformerMixin, BaseEstimator):
    r"""Fill in NaN by a low-rank matrix, fitted by alternating least squares.

    .. math:: \min_{U, V} \sum_{(i, j)\ \text{seen}} (U_i^T V_j - X_{ij})^2
        + \lambda (\|U\|_F^2 + \|V\|_F^2)

    Entries that are seen stay as they are. A new row is filled in from the fitted columns' factors:
    its own factor is the ridge regression on the entries it has. The data are not centred.

    Parameters
    ----------
    rank : int or "auto", default="auto"
        Rank r, in [1, min(X.shape)]. ``"auto"`` looks for the largest gap in the spectrum.
    ridge : float, default=1e-3
        :math:`\lambda \ge 0`, relative to the mean square of the entries that are seen.
    max_iter : int, default=200
        Most sweeps over both factors, >= 1.
    tol : float, default=1e-6
        A relative change of the factors in a sweep at which to stop, >= 0.

    Attributes
    ----------
    components_ : ndarray of shape (rank, n_features)
        The factor of the columns, V transposed.
    coefficients_ : ndarray of shape (n_samples, rank)
        The factor of the training rows, U.
    rank_ : int
        The rank that was used.
    n_iter_ : int
        Sweeps made.
    n_features_in_ : int
        Columns seen in `fit`.
    result_ : Result
        The run: reason and trace.

    Raises
    ------
    ValueError
        If no entry is seen, or an argument is out of range.

    Examples
    --------
    >>> X = numpy.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0, 1.0])
    >>> X[2, 1] = numpy.nan
    >>> LowRankCompleter(rank=1, ridge=0.0).fit_transform(X)[2].round(6)
    array([ 3., -3.,  6.,  3.])

    References
    ----------
    Jain, Netrapalli, Sanghavi, STOC 2013, arXiv:1212.0467.
    """

    paper = "Jain, Netrapalli, Sanghavi, STOC 2013, arXiv:1212.0467"
    year = 2013
    family = "low-rank recovery"
    needs: ClassVar[tuple[str, ...]] = ("a table with missing entries",)
    memory = "rank per row and column + 1 per entry"
    search_space: ClassVar[dict[str, Axis]] = {}

    def __init__(
        self,
        rank: int | Literal["auto"] = "auto",
        ridge: float = 1e-3,
        max_iter: int = 200,
        tol: float = 1e-6,
    ) -> None:
        self.rank = rank
        self.ridge = ridge
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit both factors to the entries that are seen.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The table; NaN where nothing is seen.
        y : ignored

        Returns
        -------
        self : object
            A ConvergenceWarning if `max_iter` sweeps were too few.
        """
        check.number("ridge", self.ridge, ge=0)
        check.number("max_iter", self.max_iter, ge=1, integer=True)
        check.number("tol", self.tol, ge=0)
        table = numpy.asarray(
            validate_data(self, X, dtype=numpy.float64, ensure_all_finite="allow-nan")
        )
        rows, cols = numpy.nonzero(~numpy.isnan(table))
        if not len(rows):
            raise ValueError("X must hold at least one entry that is not NaN")
        values = table[rows, cols]
        rank: Any = self.rank
        if rank == "auto":
            rank = "auto" if min(table.shape) >= 4 else 1
        elif not 1 <= check.number("rank", rank, ge=1, integer=True) <= min(table.shape):
            raise ValueError(
                "rank must be <= min(n_samples = "
                f"{table.shape[0]}, n_features = {table.shape[1]}), got {rank}"
            )
        scale = float(numpy.sqrt(numpy.mean(values**2))) or 1.0
        self._penalty = float(self.ridge) * scale  # on factors in the units of X
        if not values.any():  # the zero matrix, which no method has to look for
            rank = 1 if rank == "auto" else rank
            self.coefficients_ = numpy.zeros((table.shape[0], rank))
            self.components_ = numpy.zeros((rank, table.shape[1]))
            self.rank_, self.n_iter_, self.result_ = rank, 0, None
            return self
        with warnings.catch_warnings():
            # With a ridge, fewer entries than unknowns are no obstacle.
            warnings.filterwarnings("ignore", message=".*measurements are fewer")
            problem = MatrixCompletion(
                torch.from_numpy(rows),
                torch.from_numpy(cols),
                torch.from_numpy(values / scale),
                (table.shape[0], table.shape[1]),
                rank,
                ridge=float(self.ridge),
            )
        self.result_ = alternating_minimization(
            problem, max_steps=int(self.max_iter), xtol=float(self.tol)
        )
        U, V = self.result_.x
        self.coefficients_ = scale**0.5 * U.numpy()
        self.components_ = scale**0.5 * V.numpy().T
        self.rank_ = problem.rank
        self.n_iter_ = int(self.result_.trace["step"][-1])
        if self.result_.reason in (Reason.MAX_STEPS, Reason.NONFINITE):
            warnings.warn(
                f"{self.n_iter_} sweeps did not converge: {self.result_.reason}; "
                "raise max_iter, tol or ridge",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def transform(self, X: ArrayLike) -> numpy.ndarray:
        """Fill in NaN, row by row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, of training or new.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        filled = numpy.array(
            validate_data(self, X, dtype=numpy.float64, ensure_all_finite="allow-nan", reset=False)
        )
        V = self.components_.T
        eye = numpy.eye(self.rank_)
        for row in filled:
            seen = ~numpy.isnan(row)
            if not seen.all():
                B = V[seen]
                gram = B.T @ B + self._penalty * eye
                row[~seen] = V[~seen] @ numpy.linalg.lstsq(gram, B.T @ row[seen], rcond=None)[0]
        return filled

    def predict_entries(self, rows: ArrayLike, cols: ArrayLike) -> numpy.ndarray:
        """Entries of the fitted low-rank matrix.

        Parameters
        ----------
        rows, cols : array-like of int, of one shape
            Positions in the table that was fitted.

        Returns
        -------
        ndarray of that shape
        """
        check_is_fitted(self)
        U, V = self.coefficients_, self.components_.T
        positions = []
        for name, given, size in (("rows", rows, len(U)), ("cols", cols, len(V))):
            index = numpy.asarray(given)
            if index.dtype.kind not in "iu":
                raise TypeError(f"{name} must be integers, got {index.dtype}")
            if index.size and not (index.min() >= 0 and index.max() < size):
                wrong = index.min() if index.min() < 0 else index.max()
                raise ValueError(f"{name} must be in [0, {size}), got {wrong}")
            positions.append(index)
        return (U[positions[0]] * V[positions[1]]).sum(-1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
