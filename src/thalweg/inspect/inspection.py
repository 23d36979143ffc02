"""`inspect`: everything there is to say about one point, within a budget, as one page."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from torch.utils.data import DataLoader, RandomSampler

from thalweg.core import check
from thalweg.core.problem import Training
from thalweg.curvature.certificate import Certificate
from thalweg.curvature.certify import certify
from thalweg.curvature.density import Density
from thalweg.curvature.directional import DirectionalSharpness, directional
from thalweg.curvature.landscape import Slice
from thalweg.curvature.objective import Objective
from thalweg.curvature.operators import How, hessian
from thalweg.curvature.spectrum import ExtremeEigenvalues
from thalweg.curvature.trace import trace as trace_of
from thalweg.inspect import advice, measure
from thalweg.inspect.cost import Ledger, Spent, Tell
from thalweg.inspect.layers import Layer, measure_layers
from thalweg.numeric.estimate import OperatorEstimate

BUDGET = 600
SHARES = {"certificate": 0.4, "ends": 0.14, "density": 0.16, "trace": 0.1, "layers": 0.2}
"""What each measurement may take of the budget of Hessian-vector products."""


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found at a point.

    Attributes
    ----------
    name
        Of the problem.
    certificate
        The verdict and what it rests on.
    headline, next_step
        The verdict in a sentence, and what to do now.
    ends, density, trace
        Of the Hessian; None where it could not be measured (see `skipped`).
    sharpness
        A `Measure` per kind.
    slices
        ``"top"``, ``"bottom"`` (along the extreme eigenvectors) and ``"plane"`` (of two
        filter-normalized directions), those that could be measured.
    layers
        A `Layer` per module that holds parameters.
    descent
        Slope and curvature along the gradient; None where it is zero.
    cost
        A `Spent` per measurement.
    skipped
        What could not be measured, and why.
    notes
        What to know of the data beside the certificate's assumptions.
    budget, seed
        As asked.
    """

    name: str
    certificate: Certificate
    headline: str
    next_step: str
    ends: ExtremeEigenvalues | None
    density: Density | None
    trace: OperatorEstimate | None
    sharpness: tuple[measure.Measure, ...]
    slices: dict[str, Slice]
    layers: tuple[Layer, ...]
    descent: DirectionalSharpness | None
    cost: tuple[Spent, ...]
    skipped: dict[str, str]
    notes: tuple[str, ...]
    budget: int
    seed: int
    created: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    )

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain numbers and words, schema ``thalweg.inspection/1``."""
        from thalweg.inspect.record import as_record

        return as_record(self)

    def write(
        self, directory: str | os.PathLike[str], *, single_file: bool = False, command: str = ""
    ) -> Path:
        """Write the page, and inspection.json beside it; return the page's path.

        Parameters
        ----------
        directory
            Made if it is not there.
        single_file
            Put everything into the one page (about 5 MB).
        command
            What made the inspection, for the page to repeat.
        """
        from thalweg.inspect.page import write

        return write(self.to_dict(), directory, single_file=single_file, command=command)

    def __str__(self) -> str:
        lines = [f"{self.headline} {self.next_step}", str(self.certificate)]
        if self.trace is not None:
            lines.append(f"  trace {self.trace}")
        return "\n".join(lines)


def inspect(
    training: Training,
    *,
    budget: int = BUDGET,
    gradient_tolerance: float | None = None,
    curvature_tolerance: float | None = None,
    seed: int = 0,
    name: str | None = None,
    on_event: Tell | None = None,
    **how: Unpack[How],
) -> Inspection:
    r"""Say what kind of point the model is at, and measure what is around it.

    A certificate (`thalweg.certify`), both ends of the spectrum of the Hessian and its density,
    its trace, sharpness, slices of the loss, and the layers one by one. Nothing of the user's is
    changed.

    Parameters
    ----------
    training
        The network, its loss and its data. A ``DataLoader`` that shuffles is read in order: the
        loss over all rows does not depend on it.
    budget
        Hessian-vector products in all, >= 40. Default 600, of which 40 % go to the certificate.
        Checks around it, and the slices and sharpness, come on top; `Inspection.cost` says what
        was spent.
    gradient_tolerance, curvature_tolerance
        :math:`\epsilon` and :math:`\beta` of the certificate. Defaults: `thalweg.certify`'s.
    seed
        Of everything random, >= 0. Equal seeds, equal inspections.
    name
        How the page calls the problem. Default: the training's name.
    on_event
        Called with a dict when a measurement has begun, after each of its products, and when it
        has ended or was given up (``kind``: ``"begun"``, ``"products"``, ``"ended"``,
        ``"skipped"``): its name (``measurement``), its ``products``, ``passes`` and ``seconds``
        so far, the products in all (``spent``) and the ``budget``. Default: nothing is called.
    **how
        ``mode``, ``weight``, ``memory``, ``group``: see `thalweg.curvature.Objective`.

    Returns
    -------
    Inspection
        ``print`` it, or ``write`` its page.

    Raises
    ------
    ValueError
        For an argument out of range, a stochastic loss (with the likely cause), or a loss or
        gradient that is not finite.
    TypeError
        For parameters in half precision or of several types.

    Warns
    -----
    UserWarning
        If `curvature_tolerance` is below what the budget can resolve.

    Examples
    --------
    >>> import torch
    >>> start = torch.tensor([0.5, 0.5], dtype=torch.float64)
    >>> found = inspect(Training.from_function(lambda x: ((x - 0.5) ** 2).sum(), start))
    >>> found.certificate.verdict.name, found.trace.value
    ('LOCAL_MINIMUM', 4.0)
    """
    if not isinstance(training, Training):
        raise TypeError(f"training must be a Training, got {type(training).__name__}")
    budget = int(check.number("budget", budget, ge=40, integer=True))
    check.number("seed", seed, ge=0, integer=True)
    training, notes = read_in_order(training)
    objective = Objective(training, **how)
    allowed = {part: max(2, int(share * budget)) for part, share in SHARES.items()}
    ledger = Ledger(tell=on_event, budget=budget)
    with ledger.on("Certificate") as spent:
        certificate = certify(
            objective,
            gradient_tolerance=gradient_tolerance,
            curvature_tolerance=curvature_tolerance,
            budget=allowed["certificate"],
            seed=seed,
        )
        spent.products += certificate.products
        spent.passes += 3  # two to see that the loss is deterministic, one for its value
    H = hessian(objective)
    ends = ledger.measured(
        "Ends of the spectrum", lambda s: measure.both_ends(H, allowed["ends"], s, seed)
    )
    density = ledger.measured(
        "Density", lambda s: measure.whole_density(H, allowed["density"], s, seed)
    )
    trace = ledger.measured("Trace", lambda s: _trace(H, allowed["trace"], s, seed))
    above = ends.upper_bound if ends is not None else math.inf
    layers = ledger.measured(
        "Layers", lambda s: measure_layers(objective, H, allowed["layers"], s, seed, above)
    )
    descent = None
    if certificate.gradient_norm > 0:
        descent = ledger.measured("Along the gradient", lambda s: _descent(objective, s))
    sharp = ledger.measured("Sharpness", lambda s: measure.sharpness(objective, budget, s, seed))
    too_large = measure.too_large_for_keskar(objective.d)
    if too_large is not None:
        ledger.skipped["Sharpness of Keskar et al."] = too_large
    slices = _slices(objective, certificate, ends, ledger, budget, seed)
    return Inspection(
        name=name or training.name,
        certificate=certificate,
        headline=advice.HEADLINES[certificate.verdict],
        next_step=advice.next_step(certificate, descent, SHARES["certificate"]),
        ends=ends,
        density=density,
        trace=trace,
        sharpness=tuple(sharp or ()),
        slices=slices,
        layers=tuple(layers or ()),
        descent=descent,
        cost=tuple(ledger.rows),
        skipped=ledger.skipped,
        notes=notes,
        budget=budget,
        seed=seed,
    )


def read_in_order(training: Training) -> tuple[Training, tuple[str, ...]]:
    """The same training with a shuffling ``DataLoader`` read in order, and what was done.

    Examples
    --------
    >>> import torch
    >>> data = DataLoader([(torch.ones(2), torch.ones(1))] * 4, batch_size=2, shuffle=True)
    >>> training = Training(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss, data)
    >>> read_in_order(training)[1]
    ('the loader shuffles its rows; they were read in order, every row once',)
    """
    data: Any = training.data
    shuffles = (
        isinstance(data, DataLoader)
        and type(data.sampler) is RandomSampler
        and not data.sampler.replacement
        and data.sampler.num_samples == len(data.sampler.data_source)
        and data.batch_size is not None
    )
    if not shuffles:
        return training, ()
    ordered: DataLoader[Any] = DataLoader(
        data.dataset,
        batch_size=data.batch_size,
        shuffle=False,
        num_workers=data.num_workers,
        collate_fn=data.collate_fn,
    )
    note = "the loader shuffles its rows; they were read in order, every row once"
    return dataclasses.replace(training, data=ordered), (note,)


def _trace(H: Any, budget: int, spent: Spent, seed: int) -> OperatorEstimate:
    import torch

    found = trace_of(H, max_products=budget, generator=torch.Generator().manual_seed(seed))
    spent.products += found.n_products
    return found


def _descent(objective: Objective, spent: Spent) -> DirectionalSharpness:
    spent.products, spent.passes = spent.products + 1, spent.passes + 2
    return directional(objective, objective.gradient())


def _slices(
    objective: Objective, certificate: Certificate, ends: ExtremeEigenvalues | None,
    ledger: Ledger, budget: int, seed: int,
) -> dict[str, Slice]:  # fmt: skip
    points = 41 if budget >= 200 else 21
    found = {}
    if ends is not None:
        for key, at in (("top", -1), ("bottom", 0)) if objective.d > 1 else (("top", -1),):
            found[key] = ledger.measured(
                f"Slice, {key} eigenvector",
                lambda s, at=at: measure.along(
                    objective, ends.vectors[:, at], float(ends.values[at]), certificate.loss, s,
                    points,
                ),
            )  # fmt: skip
    found["plane"] = ledger.measured(
        "Slice, plane", lambda s: measure.plane(objective, s, seed, 17 if budget >= 200 else 9)
    )
    return {key: slice for key, slice in found.items() if slice is not None}
