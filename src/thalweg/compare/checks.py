"""`check_problem`: what a race relies on, proved on three steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from thalweg.compare.errors import BadInput, one_line, own_traceback
from thalweg.compare.plan import Budget
from thalweg.compare.problems import Problem, build, load, measured
from thalweg.compare.run import one_thread
from thalweg.compare.schedule import batches
from thalweg.core import Training, seeded_rng
from thalweg.core.problem import Split

_SPLITS: tuple[Split, ...] = ("validation", "test")


def check_problem(problem: str | Callable[[int], Any] | None = None) -> dict[str, Any]:
    """Three steps of a problem: what a race relies on, proved before hours are spent.

    Two calls with one seed give the same losses; evaluation changes nothing (parameters, buffers,
    train/eval mode, the random generators, the batches that follow).

    Parameters
    ----------
    problem
        As for `compare`.

    Returns
    -------
    dict
        ``name, metric, goal, parameters, losses`` (three steps), ``validation``, ``test``,
        ``step_seconds``, ``evaluation_seconds`` and ``race_seconds``: the estimated time of the
        default race (six methods, one worker). Of a problem for solvers: see
        `thalweg.compare.solver_check.check_solvers`.

    Raises
    ------
    BadInput
        With one sentence that says what is wrong.
    """
    loaded = load(problem)
    if loaded.facts.get("kind") == "solver":
        from thalweg.compare.solver_check import check_solvers

        return check_solvers(loaded)
    plain, seconds, _ = _three_steps(loaded, evaluating=False)
    again, _, _ = _three_steps(loaded, evaluating=False)
    if plain != again:
        raise BadInput(
            f"{loaded.name}: two runs with one seed differ within three steps, {plain} and {again}"
        )
    watched, _, evaluation = _three_steps(loaded, evaluating=True)
    if plain != watched:
        raise BadInput(
            f"{loaded.name}: the losses of three steps change when evaluate is called in between, "
            f"{plain} and {watched}; evaluate must not advance what the batches are drawn from"
        )
    training = build(loaded, 0)
    default = Budget.parse("420steps")
    runs = 6 * (12 + 10 + 3)
    return {
        "name": loaded.name,
        **{k: loaded.facts[k] for k in ("metric", "goal", "parameters")},
        "losses": plain,
        "validation": measured(loaded, training, "validation"),
        "test": measured(loaded, training, "test") if loaded.facts["has_test"] else None,
        "step_seconds": seconds,
        "evaluation_seconds": evaluation,
        "race_seconds": runs * (default.amount * seconds + 30 * evaluation),
    }


def _three_steps(problem: Problem, *, evaluating: bool) -> tuple[list[float], float, float]:
    """Losses of three SGD steps; seconds of a step, and of an evaluation."""
    training = build(problem, 0)
    losses: list[float] = []
    spent, evaluation = [], 0.0
    with one_thread(), seeded_rng(0):
        training.model.train()
        stream = batches(training.data, 0)
        for k in range(3):
            start = time.perf_counter()
            if evaluating:
                _changes_nothing(problem, training)
            evaluation = (time.perf_counter() - start) / len(_SPLITS)
            start = time.perf_counter()
            try:
                losses.append(_step(training, next(stream)[1]))
            except Exception as error:
                raise BadInput(
                    f"{problem.name}: step {k + 1} raised {one_line(error)}", own_traceback(error)
                ) from error
            spent.append(time.perf_counter() - start)
            if not math.isfinite(losses[-1]):
                raise BadInput(f"{problem.name}: the loss of step {k + 1} is {losses[-1]}")
    return losses, min(spent), evaluation


def _step(training: Training, batch: Any) -> float:
    """One small gradient step; the loss before it."""
    loss = training.batch_loss(batch)
    trained = [p for p in training.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    with torch.no_grad():
        for p, g in zip(trained, gradients, strict=True):
            if g is not None:
                p.sub_(g, alpha=1e-3)
    return loss.item()


def _changes_nothing(problem: Problem, training: Training) -> None:
    before = {n: t.detach().clone() for n, t in training.model.state_dict(keep_vars=True).items()}
    mode = [m.training for m in training.model.modules()]
    for split in _SPLITS:
        try:
            training.measure(split)
        except Exception as error:
            raise BadInput(
                f"{problem.name}: evaluate(model, {split!r}) raised {one_line(error)}",
                own_traceback(error),
            ) from error
    for name, tensor in training.model.state_dict(keep_vars=True).items():
        if not torch.equal(tensor.detach(), before[name]):
            raise BadInput(
                f"{problem.name}: evaluate changes the model ({name}); it must only read it"
            )
    if mode != [m.training for m in training.model.modules()]:
        raise BadInput(f"{problem.name}: evaluate leaves the model in another train/eval mode")
