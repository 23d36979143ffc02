"""Lanczos runs after both ends of a spectrum, side by side, restarted when memory is short."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.numeric.krylov.bounds import RunEnds
from thalweg.numeric.krylov.lanczos import Lanczos, multiply
from thalweg.numeric.krylov.restart import thick_restart
from thalweg.numeric.krylov.ritz import ends
from thalweg.numeric.operator import LinearOperator


class EndsRun:
    """One Lanczos process after the k lowest and k highest pairs, within a number of vectors.

    Parameters
    ----------
    start
        ``(n, b)``.
    k
        Pairs at each end.
    room
        Vectors the basis may have, at least ``2 k + 2 b``.
    capacity
        Vectors to make room for at once.
    """

    def __init__(self, start: Tensor, k: int, room: int, capacity: int = 0) -> None:
        self.process = Lanczos(start, capacity)
        self.k = k
        self.room = room
        self._first_cycle: RunEnds | None = None

    def take(self, W: Tensor) -> None:
        """One step; before it, a thick restart if the basis is full."""
        process = self.process
        b = process.V.shape[1]
        if process.m + b > self.room:
            if self._first_cycle is None:
                self._first_cycle = self._ends_now()
            each = max(self.k, (self.room - b) // 4)  # half of the room stays, for both ends alike
            thick_restart(process, min(each, (self.room - b) // 2), min(each, (self.room - b) // 2))
        process.step(W)

    def ends(self) -> RunEnds:
        """What the bounds are made of: the steps before the first restart."""
        return self._ends_now() if self._first_cycle is None else self._first_cycle

    def converged(self, tol: float) -> bool:
        """Whether all wanted residuals are at most `tol` times the largest absolute Ritz value."""
        values, _, residuals = self.process.ritz()
        wanted = residuals[ends(len(values), self.k)]
        enough = len(values) >= min(2 * self.k, self.process.n)
        return enough and float(wanted.max()) <= tol * float(values.abs().max())

    def extreme_vectors(self) -> Tensor:
        """``(n, 2 k)``: the Ritz vectors of both ends; fewer if the space is smaller."""
        values, Z, _ = self.process.ritz()
        return self.process.vectors(Z[:, ends(len(values), self.k)])

    def _ends_now(self) -> RunEnds:
        t = torch.linalg.eigvalsh(self.process.T)
        return RunEnds(float(t[0]), float(t[-1]), self.process.coupling, self.process.steps)


def advance(
    operator: LinearOperator, runs: Sequence[EndsRun], steps: int, tol: float | None
) -> None:
    """Take every run to `steps` steps, or until all have converged; products are made together."""
    every = 4  # looking costs an eigendecomposition of T
    while True:
        active = [run for run in runs if run.process.active and run.process.steps < steps]
        if not active:
            return
        if (
            tol is not None
            and active[0].process.steps % every == 0
            and active[0].process.steps > 0
            and all(run.converged(tol) for run in runs)
        ):
            return
        products = multiply(operator, torch.cat([run.process.V for run in active], dim=1))
        widths = [run.process.V.shape[1] for run in active]
        for run, W in zip(active, products.split(widths, dim=1)):
            run.take(W)


def room(operator: LinearOperator, memory: int, starts: int, block: int, k: int) -> int:
    """Vectors per run that fit in `memory` bytes.

    Raises
    ------
    ValueError
        If they are too few for a restart.
    """
    n = operator.shape[0]
    size = n * operator.dtype.itemsize * starts
    fits, needed = int(memory // size), min(2 * k + 2 * block, n)
    if fits < needed:
        raise ValueError(
            f"memory must be >= {needed * size} bytes for k = {k}, block = {block}, starts = "
            f"{starts} and n = {n}, got {memory}"
        )
    return fits
