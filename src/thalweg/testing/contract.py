"""The contract every optimizer meets, and the one function that checks it."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer

from thalweg.core import check
from thalweg.core.rng import preserved_rng
from thalweg.testing import compiled, distributed, gradients, inputs, loop, resume, state
from thalweg.testing.report import (
    Clause,
    ContractReport,
    Finding,
    Verdict,
    failed,
    not_applicable,
    refused,
)
from thalweg.testing.subject import CLEAR, NotApplicable, Subject, message

CLAUSES: tuple[Clause, ...] = (
    Clause("trains", "Default hyper-parameters train a small network.", state.trains),
    Clause("state layout", "state[p] is a flat dict of tensors.", state.layout),
    Clause(
        "state from the parameter",
        "A step with zero gradients at lr=0 creates the same state as any other.",
        state.from_parameter,
    ),
    Clause("memory", "Nothing parameter-sized outlives a step but the state.", state.memory),
    Clause("resume in memory", "state_dict continues bitwise.", resume.in_memory),
    Clause("independent load", "A loaded optimizer shares no memory.", resume.independent),
    Clause("deepcopy", "copy.deepcopy continues bitwise.", resume.deep_copy),
    Clause("pickle", "A pickled optimizer continues bitwise.", resume.pickled),
    Clause(
        "resume from disk",
        "torch.save and torch.load(weights_only=True) continue bitwise.",
        resume.from_disk,
    ),
    Clause(
        "resume through DCP",
        "torch.distributed.checkpoint.state_dict continues bitwise.",
        resume.through_dcp,
    ),
    Clause(
        "DCP on disk",
        "torch.distributed.checkpoint.save and load continue bitwise.",
        resume.from_dcp_on_disk,
    ),
    Clause("state dtype", "State over bfloat16 parameters survives loading.", resume.state_dtype),
    Clause("wide state", "State wider than its parameter survives loading.", resume.wide_state),
    Clause(
        "random state",
        "Resuming does not depend on the global random state.",
        resume.random_state,
    ),
    Clause("gradients untouched", "step() leaves p.grad as it was.", gradients.untouched),
    Clause(
        "zero step", "lr=0 with zero gradients leaves every bit of p alone.", gradients.zero_step
    ),
    Clause("absent gradient", "Parameters without gradient are skipped.", gradients.absent),
    Clause("late gradient", "A first gradient may come at any step.", gradients.late),
    Clause("maximize", "Maximizing is minimizing with negated gradients.", gradients.maximize),
    Clause("closure", "step(closure) calls it with grad, returns its value.", gradients.closure),
    Clause("accumulation", "Gradients may be accumulated in place.", gradients.accumulated),
    Clause("clipping", "torch's gradient clipping reaches the step.", gradients.clipped),
    Clause("groups", "Each parameter group steps with its own lr.", loop.groups),
    Clause("added group", "add_param_group works in mid-run.", loop.added_group),
    Clause("schedulers", "torch's schedulers change the steps.", loop.schedulers),
    Clause("one cycle", "OneCycleLR cycles lr and momentum.", loop.one_cycle),
    Clause("tensor lr", "lr may be a 0-d tensor.", loop.tensor_rate),
    Clause("grad scaler", "torch.amp.GradScaler works and can skip a step.", loop.grad_scaler),
    Clause("bfloat16", "bfloat16 parameters run and stay finite.", loop.bfloat16),
    Clause("bad hyper-parameters", "Impossible values are refused.", inputs.bad_hyper),
    Clause("empty list", "An empty parameter list is refused or harmless.", inputs.empty_list),
    Clause("integer parameter", "Integer parameters are refused.", inputs.integer),
    Clause("complex parameter", "Supported or refused.", inputs.complex_numbers),
    Clause("sparse gradient", "Supported or refused.", inputs.sparse),
    Clause("0-d parameter", "Supported or refused.", inputs.scalar),
    Clause("empty parameter", "A parameter with no element is harmless.", inputs.empty),
    Clause("transposed parameter", "Storage order is no matter.", inputs.transposed),
    Clause("channels-last parameter", "Storage order is no matter.", inputs.channels_last),
    Clause("expanded gradient", "Gradients of stride 0 are read right.", inputs.expanded_gradient),
    Clause("mixed dtypes", "One group may hold several dtypes.", inputs.mixed_dtypes),
    Clause("compile", "A compiled model trains the same.", compiled.compiled_model, "named"),
    Clause("DDP", "Two processes follow one.", distributed.clause("DDP"), "distributed"),
    Clause("FSDP2", "Two shards follow one process.", distributed.clause("FSDP2"), "distributed"),
    Clause(
        "FSDP2 resume",
        "A sharded checkpoint, in memory or on disk, continues bitwise.",
        distributed.clause("FSDP2 resume"),
        "distributed",
    ),
    Clause(
        "tensor parallel",
        "Layers split by column and by row follow one process.",
        distributed.clause("tensor parallel"),
        "distributed",
    ),
)


def check_optimizer(
    cls: Callable[..., Optimizer],
    *,
    checks: Iterable[str] | None = None,
    distributed: bool = False,
    **hyper: Any,
) -> ContractReport:
    r"""Hold an optimizer class to the contract: resume, groups, dtypes, closures, odd inputs...

    Works on any `torch.optim.Optimizer` class, ours, PyTorch's or your own, in about a second.
    Each clause trains a small tanh network for 4+4 steps; saving and going on must give the same
    bits as a run that was never interrupted. Prints nothing and leaves the random generators and
    the number of threads as they were.

    Parameters
    ----------
    cls
        The optimizer class, called as ``cls(params, **hyper)``.
    checks
        Names of the clauses to check; default: all that need no further process or compiler.
        ``checks=("compile",)`` adds what is off by default.
    distributed
        Also run DDP, FSDP2 and tensor parallelism on two local processes (about 15 s). Default
        False.
    **hyper
        Hyper-parameters; the class's defaults hold for the others.

    Returns
    -------
    ContractReport
        One (clause, outcome, detail) per clause, with ``.ok``, ``.table()``,
        ``.raise_if_failed()``.

    Raises
    ------
    TypeError
        If ``cls`` does not take `hyper`.
    ValueError
        If `checks` names an unknown clause.

    Examples
    --------
    >>> import torch
    >>> report = check_optimizer(torch.optim.SGD, checks=("closure", "maximize"), momentum=0.9)
    >>> report.ok
    True
    >>> report["maximize"].detail
    'maximize=True equals minimizing with negated gradients, exactly'
    """
    names = None if checks is None else [checks] if isinstance(checks, str) else list(checks)
    known = [clause.name for clause in CLAUSES]
    for name in names or ():
        check.choice("checks", name, known)
    if names is not None:
        chosen = [clause for clause in CLAUSES if clause.name in names]
    else:
        allowed = ("always", "distributed") if distributed else ("always",)
        chosen = [clause for clause in CLAUSES if clause.when in allowed]
    with undisturbed():
        subject, problem = prepare(cls, hyper)
        if problem is not None:
            first = Finding("trains", *problem)
            rest = (
                Finding(c.name, *not_applicable("the class does not train this network"))
                for c in chosen
                if c.name != "trains"
            )
            return ContractReport(subject.name, (first, *rest))
        return ContractReport(
            subject.name, tuple(Finding(c.name, *attempt(c, subject)) for c in chosen)
        )


def attempt(clause: Clause, subject: Subject) -> Verdict:
    """The clause's verdict; an exception nobody expected is a failure with its own words."""
    try:
        return clause.check(subject)
    except NotApplicable as error:
        return not_applicable(str(error))
    except Exception as error:
        return failed(message(error), clause.statement.rstrip(".").lower())


def prepare(cls: Callable[..., Optimizer], hyper: dict[str, Any]) -> tuple[Subject, Verdict | None]:
    """How to drive this class: matrices alone or with biases, which dtype, closure or not."""
    subject = plain = Subject(cls, hyper)
    try:
        plain.start()
    except CLEAR[1:] as error:  # a TypeError is a wrong keyword: the caller's
        matrices, narrow = replace(plain, bias=False), replace(plain, dtype=torch.bfloat16)
        accepted = [other for other in (matrices, narrow) if builds(other)]
        if not accepted:
            return plain, failed(f"{message(error)} when built", "an optimizer")
        subject = accepted[0]
    run = subject.start()
    try:
        run.step(0)
    except Exception as error:
        text = str(error).lower()
        if isinstance(error, CLEAR) and "closure" in text:
            return replace(subject, closure=True), None
        if isinstance(error, CLEAR) and "dense grad" in text:
            return subject, refused(message(error))
        return subject, failed(f"{message(error)} from step()", "a step with dense gradients")
    return subject, None


def builds(subject: Subject) -> bool:
    """Whether the class can be built over the model of this subject."""
    try:
        subject.start()
    except CLEAR:
        return False
    return True


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Random generators, threads, grad mode, warnings and standard output stay the caller's."""
    threads = torch.get_num_threads()
    with (
        preserved_rng(),
        torch.enable_grad(),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)  # sums in one order: "the same bits" must mean the optimizer
        try:
            yield
        finally:
            torch.set_num_threads(threads)
