"""Adaptive tuning: each trial of a method is placed by what its earlier trials have found.

Nothing is kept between two trials but the runs themselves: every question is put to a fresh study
that is told all finished trials. So a race that is stopped and started again asks what it would
have asked, and there is no file that could disagree with the runs.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from thalweg.compare.contender import Contender
from thalweg.compare.errors import BadInput
from thalweg.compare.plan import TUNING_SEED
from thalweg.compare.schedule import derived
from thalweg.compare.tune import values_at

SAMPLERS = ("optuna",)


def sampler_of(adaptive: str | None) -> dict[str, str] | None:
    """What the plan says about the sampler: its name and its version; None for Sobol points.

    Parameters
    ----------
    adaptive
        ``"optuna"``, or None.

    Raises
    ------
    BadInput
        If there is no such sampler, or its package is not installed.

    Examples
    --------
    >>> sampler_of("optuna")["name"]
    'optuna'
    """
    if adaptive is None:
        return None
    if adaptive not in SAMPLERS:
        raise BadInput(
            f"adaptive must be 'optuna', or left out for points of a Sobol sequence, "
            f"got {adaptive!r}"
        )
    try:
        import optuna
    except ImportError as error:
        raise BadInput("adaptive 'optuna' needs `pip install optuna`") from error
    return {"name": adaptive, "version": str(optuna.__version__)}


def first_trials(trials: int) -> int:
    """How many of the trials are the method's Sobol points: a third, rounded up.

    Examples
    --------
    >>> [first_trials(trials) for trials in (0, 1, 12, 16)]
    [0, 1, 4, 6]
    """
    return math.ceil(trials / 3)


def next_trial(
    contender: Contender, points: Sequence[Sequence[float]], ranks: Sequence[int]
) -> tuple[tuple[float, ...], dict[str, Any]]:
    r"""Where the next trial of a method goes: a draw of optuna's tree-structured Parzen estimator.

    The trials are split at a quantile of their results; with the density :math:`\ell` of the good
    ones and :math:`g` of the others the next point is

    .. math:: \arg\max_{u \in C} \ell(u) / g(u), \qquad C \text{ drawn from } \ell .

    The space is the unit cube that the Sobol points fill; an axis maps it to its values. The draw
    depends on the method, the number of the trial, and the trials before it.

    Parameters
    ----------
    contender
        The method; its space has d >= 1 axes.
    points
        The points of its finished trials in the unit cube, in their order; at least one.
    ranks
        How many trials are better than each, see `thalweg.compare.tune.ranks`. The estimator looks
        at the order of the results only, so a trial that diverged is simply among the last.

    Returns
    -------
    (point in the unit cube, values)

    Examples
    --------
    >>> from thalweg.compare.methods import resolve
    >>> u, values = next_trial(resolve("torch.optim:SGD[momentum=0]")[0], [(0.2,), (0.7,)], [0, 1])
    >>> 0 <= u[0] <= 1, list(values)
    (True, ['lr'])

    References
    ----------
    Bergstra, Bardenet, Bengio & Kégl, "Algorithms for hyper-parameter optimization", NeurIPS 2011;
    Akiba et al., "Optuna", KDD 2019.
    """
    import optuna

    side = optuna.distributions.FloatDistribution(0.0, 1.0)
    cube: dict[str, Any] = dict.fromkeys(contender.space, side)
    # Not the name in the race: a method that is entered twice shares its runs.
    method = json.dumps([contender.place, dict(contender.fixed)], sort_keys=True, default=repr)
    sampler = optuna.samplers.TPESampler(
        seed=derived(TUNING_SEED, f"trial {len(points)} of {method}"),
        n_startup_trials=1,  # its start is the Sobol points, never its own random ones
    )
    with _quiet(optuna):
        study = optuna.create_study(sampler=sampler, direction="minimize")
        study.add_trials(
            [
                optuna.create_trial(
                    params=dict(zip(cube, map(float, point), strict=True)),
                    distributions=cube,
                    value=float(rank),
                )
                for point, rank in zip(points, ranks, strict=True)
            ]
        )
        asked = study.ask(cube).params
    u = tuple(float(asked[name]) for name in cube)
    return u, values_at(contender.space, u)


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without the line that a study was created; the user's own verbosity comes back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
