"""`Tracker`: curvature on the way down, on a fixed probe batch, written as training goes on."""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.objective import Mode, Objective
from thalweg.curvature.operators import Operator, hessian
from thalweg.curvature.trace import trace
from thalweg.inspect.record import estimate, finite

QUANTITIES = (
    "step",
    "loss",
    "gradient_norm",
    "highest",
    "lowest",
    "trace",
    "trace_low",
    "trace_high",
    "directional_sharpness",
)
"""What a line of the file holds."""


class Tracker:
    r"""Measure the curvature every few steps of a training loop, on one fixed batch.

    At step t, with H the Hessian of the probe's loss and :math:`s = x_t - x_{t-1}` the step just
    made: the loss, :math:`\|g\|`, the extreme eigenvalues of H, an estimate of tr H with its
    interval, and

    .. math:: \frac{s^T H s}{\|s\|^2}

    the directional sharpness: what the optimizer meets along the way it goes. Each measurement is
    a line of a file at once, so a killed run loses none; a `Tracker` on the same file goes on.

    Parameters
    ----------
    model
        The network being trained. Nothing of it is changed: not its mode, ``.grad``, buffers or
        the random generators, so the training is the same with a tracker and without.
    loss
        As in `thalweg.Training`.
    probe
        A batch as in `thalweg.Training`. Every measurement is on it.
    every
        Steps between two measurements, >= 1. Default 100.
    path
        The file, one JSON object a line. Default ``"tracker.jsonl"``.
    products
        Hessian-vector products for each end of the spectrum and measurement, >= 2. Default 8:
        the search begins at the eigenvectors found before. Another ``products`` go to the trace.
    mode
        ``"eval"`` (default) or ``"train"``; see `thalweg.curvature.Objective`.
    name
        How the page calls the run. Default: the model's class.

    Attributes
    ----------
    steps
        Calls of `step` so far.
    rows
        What was measured: a dict per measurement, with the keys of `QUANTITIES`.

    Raises
    ------
    ValueError
        For an argument out of range, or a file that is no tracker's.

    Examples
    --------
    >>> import tempfile
    >>> model = nn.Linear(2, 1)
    >>> probe = (torch.eye(2), torch.zeros(2, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/curves.jsonl"
    ...     tracker = Tracker(model, nn.functional.mse_loss, probe, every=2, path=path)
    ...     for _ in range(4):
    ...         optimizer.zero_grad()
    ...         nn.functional.mse_loss(model(probe[0]), probe[1]).backward()
    ...         optimizer.step()
    ...         measured = tracker.step()
    >>> [row["step"] for row in tracker.rows], round(tracker.rows[-1]["highest"], 4)
    ([2, 4], 3.0)

    References
    ----------
    Cohen, Kaur, Li, Kolter & Talwalkar, "Gradient descent on neural networks typically occurs at
    the edge of stability", ICLR 2021 (arXiv 2103.00065), for what such curves show.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        probe: Any,
        *,
        every: int = 100,
        path: str | os.PathLike[str] = "tracker.jsonl",
        products: int = 8,
        mode: Mode = "eval",
        name: str | None = None,
    ) -> None:
        self.every = int(check.number("every", every, ge=1, integer=True))
        self.products = int(check.number("products", products, ge=2, integer=True))
        self.training = Training(model, loss, [probe], name=name or type(model).__name__)
        self.mode: Mode = check.choice("mode", mode, ("eval", "train"))
        self.path = Path(path)
        self.rows = _read(self.path)
        self.steps = int(self.rows[-1]["step"]) if self.rows else 0
        self._objective: Objective | None = None
        self._before: Tensor | None = None
        self._vectors: Tensor | None = None  # of the highest and the lowest eigenvalue

    def step(self) -> dict[str, Any] | None:
        """Count a training step; measure at every `every`-th, and return what was found.

        Call it once after each ``optimizer.step()``.
        """
        self.steps += 1
        due = self.steps % self.every == 0
        if due or (self.steps + 1) % self.every == 0:
            objective = self._of()
            row = self._measured(objective) if due else None
            self._before = objective.start if (self.steps + 1) % self.every == 0 else None
            return row
        return None

    def measure(self) -> dict[str, Any]:
        """Measure now, whatever the step."""
        return self._measured(self._of())

    def page(
        self,
        directory: str | os.PathLike[str] = "tracked",
        *,
        budget: int = 200,
        single_file: bool = False,
    ) -> Path:
        """Write the page: the curves so far, and an inspection of where the model is now.

        Parameters
        ----------
        directory
            Made if it is not there. Default ``"tracked"``.
        budget
            Of the inspection, on the probe batch; 0 for the curves alone. Default 200.
        single_file
            Put everything into the one page (about 5 MB).

        Returns
        -------
        Path
            Of ``index.html``.
        """
        from thalweg.inspect.inspection import inspect
        from thalweg.inspect.page import write

        if budget:
            found = inspect(self.training, budget=budget, mode=self.mode)
            note = "the data are the tracker's probe batch alone"
            record = found.to_dict()
            record["notes"] = [note, *record["notes"]]
        else:
            import thalweg

            record = {
                "name": self.training.name,
                "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
                "versions": {"thalweg": thalweg.__version__, "torch": str(torch.__version__)},
                "headline": f"{len(self.rows)} measurements over {self.steps:,} steps.",
            }
        curves = {key: [row.get(key) for row in self.rows] for key in QUANTITIES}
        return write(record, directory, single_file=single_file, curves=curves)

    # -- measuring ---------------------------------------------------------------------------

    def _of(self) -> Objective:
        """The probe's loss, at what the model holds when it is asked."""
        if self._objective is None:
            self._objective = Objective(self.training, mode=self.mode)
        return self._objective

    def _measured(self, objective: Objective) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(QUANTITIES)
        row["step"] = self.steps
        try:
            value, gradient = objective.value_and_gradient()
            row["loss"], row["gradient_norm"] = finite(value), finite(float(gradient.norm()))
            self._curvature(objective, hessian(objective), row)
        except ValueError as error:  # not finite: training has diverged, and goes on as it will
            row["refused"] = str(error)
        self.rows.append(row)
        _append(self.path, row)
        return row

    def _curvature(self, objective: Objective, H: Operator, row: dict[str, Any]) -> None:
        row["highest"], row["lowest"] = self._ends(H)
        generator = torch.Generator().manual_seed(self.steps)
        found = estimate(trace(H, max_products=self.products, generator=generator))
        row["trace"], row["trace_low"], row["trace_high"] = (
            found["value"], found["low"], found["high"],
        )  # fmt: skip
        if self._before is not None:
            s = objective.start - self._before
            norm = float(s.norm())
            if norm > 0:
                unit = s / norm
                row["directional_sharpness"] = finite(float(unit.double() @ (H @ unit).double()))

    def _ends(self, H: Operator) -> tuple[float, float]:
        """Ritz values of both ends, from the Krylov spaces of the eigenvectors found before."""
        d = H.shape[0]
        if self._vectors is None:
            generator = torch.Generator().manual_seed(0)
            starts = torch.randn(d, 2, generator=generator, dtype=torch.float64)
            self._vectors = starts.to(H.device, H.dtype)
        found = ritz_ends(H, self._vectors, self.products)
        self._vectors = found[1]
        return found[0]


def ritz_ends(H: Operator, starts: Tensor, steps: int) -> tuple[tuple[float, float], Tensor]:
    r"""Extreme Ritz pairs of the block Krylov space of two vectors.

    .. math:: \mathcal K = \operatorname{span}\{V, H V, \dots, H^{k-1} V\}

    Parameters
    ----------
    H
        Symmetric.
    starts
        V, (d, 2).
    steps
        k; each costs two products.

    Returns
    -------
    ((highest, lowest), (d, 2))
        Values inside the spectrum, and their unit vectors.

    Examples
    --------
    >>> f = Training.from_function(lambda x: x[0] ** 2 - x[1] ** 2, torch.zeros(2))
    >>> values, vectors = ritz_ends(hessian(f), torch.eye(2), 2)
    >>> values
    (2.0, -2.0)
    """
    basis: list[Tensor] = []
    images: list[Tensor] = []
    block, _ = torch.linalg.qr(starts.double())
    for _ in range(max(1, steps)):
        if block.shape[1] == 0:
            break
        image = (H @ block.to(H.dtype)).double()
        basis.append(block)
        images.append(image)
        Q = torch.cat(basis, 1)
        if Q.shape[1] >= Q.shape[0]:
            break
        block = image
        for _ in range(2):  # twice is enough
            block = block - Q @ (Q.T @ block)
        block, R = torch.linalg.qr(block)
        size = float(image.norm())
        kept = R.diagonal().abs() > 1e-7 * max(size, 1e-300)
        block = block[:, kept][:, : Q.shape[0] - Q.shape[1]]
    Q, HQ = torch.cat(basis, 1), torch.cat(images, 1)
    T = Q.T @ HQ
    values, Z = torch.linalg.eigh((T + T.T) / 2)
    vectors = Q @ Z[:, [-1, 0]]
    return (float(values[-1]), float(values[0])), vectors.to(H.dtype)


def _read(path: Path) -> list[dict[str, Any]]:
    """The measurements in a file; a last line that a kill has cut short is dropped."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if lines and not text.endswith("\n"):
        lines = lines[:-1]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError:
        rows = [None]
    if not all(isinstance(row, dict) and "step" in row for row in rows):
        raise ValueError(f"path must be a new file or a tracker's, got {str(path)!r}")
    return [{**dict.fromkeys(QUANTITIES), **row} for row in rows]


def _append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in row.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
