"""What kind of point one run has reached: made again, certified, measured; in whatever process."""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thalweg.compare.contender import Contender
from thalweg.compare.errors import one_line
from thalweg.compare.plan import Job
from thalweg.compare.run import end_point, one_thread

if TYPE_CHECKING:
    from thalweg.compare.problems import Problem
    from thalweg.core import Training
    from thalweg.curvature.objective import Objective

TRACE_PRODUCTS = 8
NOISE, PAIRS = 0.05, 4
"""Of the sharpness: noise as long as this share of the parameters, drawn so often and mirrored."""


def inspected(
    job: Job, contender: Contender, problem: Problem, steps: int, products: int
) -> tuple[str, dict[str, Any], bytes | None]:
    """The id of a run, what is found at its end point, and the point as a safetensors file.

    What is found depends on the arguments alone (but for ``seconds``).

    Parameters
    ----------
    job, contender, problem
        The run, as it was made.
    steps
        How many it made.
    products
        Hessian-vector products for the certificate.
    """
    start = time.perf_counter()
    told: dict[str, Any] = {"seed_of_run": job.seed, "checkpoint": f"ends/{job.id}.safetensors"}
    state = None
    try:
        training = end_point(job, contender, problem, steps)
        state = _file_of(training.model)
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is among the certificate's reasons
            told |= _measured(training, products)
    except Exception as error:  # of the user's model: the race stands
        told["refused"] = one_line(error) if not isinstance(error, ValueError) else str(error)
    return job.id, {**told, "seconds": time.perf_counter() - start}, state


def _file_of(model: torch.nn.Module) -> bytes:
    from safetensors.torch import save

    state = {k: v.detach().cpu().clone().contiguous() for k, v in tensors_of(model).items()}
    return save(state)


def _measured(training: Training, products: int) -> dict[str, Any]:
    """Certificate, trace and sharpness of a point, as plain numbers."""
    from thalweg.curvature.certify import certify
    from thalweg.curvature.operators import hessian
    from thalweg.curvature.sharpness import average_case
    from thalweg.curvature.trace import trace
    from thalweg.inspect.advice import HEADLINES
    from thalweg.inspect.record import estimate

    objective = objective_of(training)
    certificate = certify(objective, budget=products)
    found = certificate.to_dict()
    spread = trace(hessian(objective), max_products=TRACE_PRODUCTS)
    size = float(objective.start.norm()) or 1.0
    rise = average_case(objective, NOISE * size / math.sqrt(objective.d), pairs=PAIRS)
    return {
        **found,
        "headline": HEADLINES[certificate.verdict],
        "budget": products,
        "products": certificate.products + spread.n_products,
        "trace": estimate(spread),
        "sharpness": estimate(rise),
    }


def objective_of(training: Training) -> Objective:
    """The training loss over all rows, read in order."""
    from thalweg.curvature.objective import Objective
    from thalweg.inspect.inspection import read_in_order

    return Objective(read_in_order(training)[0])


def tensors_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones under each of their names."""
    return {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
