"""Clauses on stopping and going on: every way to save must continue with the same bits."""

from __future__ import annotations

import contextlib
import copy
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from thalweg.testing.report import Verdict, failed, not_applicable, noted, passed, refused
from thalweg.testing.subject import STEPS, Run, Subject, describe, difference, leaves, message, seed

SAME = "the same bits as the uninterrupted run"


def continues(subject: Subject, transfer: Callable[[Run], Run]) -> Verdict:
    """Train, carry the run over, train on; compare with a run that was never interrupted."""
    expected = subject.trained(2 * STEPS).tensors()
    other = transfer(subject.trained())
    gap = difference(other.train(range(STEPS, 2 * STEPS)).tensors(), expected)
    return failed(gap, SAME) if gap else passed(f"{STEPS}+{STEPS} steps give {SAME}")


def other_rate(run: Run) -> dict[str, float]:
    """Another lr for the optimizer that is loaded into: the saved one must win."""
    lr = run.optimizer.param_groups[0].get("lr")
    return {} if lr is None else {"lr": 0.5 * float(lr)}


def in_memory(subject: Subject) -> Verdict:
    """load_state_dict(state_dict()) into an optimizer that was built with another lr."""

    def transfer(run: Run) -> Run:
        twin = run.twin(**other_rate(run))
        twin.optimizer.load_state_dict(run.optimizer.state_dict())
        return twin

    return continues(subject, transfer)


def independent(subject: Subject) -> Verdict:
    """Look for state tensors of both optimizers that share storage."""
    source = subject.trained()
    twin = source.twin()
    twin.optimizer.load_state_dict(source.optimizer.state_dict())
    memory = [
        {
            v.untyped_storage().data_ptr(): k
            for k, v in leaves(list(run.optimizer.state.values()))
            if isinstance(v, Tensor) and v.numel()
        }
        for run in (source, twin)
    ]
    common = memory[0].keys() & memory[1].keys()
    # "[0].exp_avg" and "[0].old_dirs[3]" are known as exp_avg and old_dirs
    shared = sorted({memory[0][ptr].split(".", 1)[-1].split("[")[0] for ptr in common})
    if shared:
        return noted(
            f"after load_state_dict both optimizers share the memory of {', '.join(shared)} "
            "(torch.optim does): deepcopy the state_dict if the first one trains on"
        )
    return passed("the loaded optimizer shares no memory with its source")


def deep_copy(subject: Subject) -> Verdict:
    """Copy model and optimizer together."""
    return continues(subject, lambda run: Run(subject, *copy.deepcopy((run.model, run.optimizer))))


def pickled(subject: Subject) -> Verdict:
    """Pickle model and optimizer together."""
    if "<locals>" in getattr(subject.cls, "__qualname__", ""):
        return not_applicable("the class is defined inside a function, which pickle cannot name")

    def transfer(run: Run) -> Run:
        return Run(subject, *pickle.loads(pickle.dumps((run.model, run.optimizer))))

    return continues(subject, transfer)


def from_disk(subject: Subject) -> Verdict:
    """torch.save, and torch.load with weights_only=True."""

    def transfer(run: Run) -> Run:
        twin = run.twin()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimizer.pt"
            torch.save(run.optimizer.state_dict(), path)
            twin.optimizer.load_state_dict(torch.load(path, weights_only=True))
        return twin

    try:
        return continues(subject, transfer)
    except pickle.UnpicklingError as error:
        # torch puts a page of advice around the one phrase that says what it would not load
        why = str(error).partition("WeightsUnpickler error:")[2].partition("\n")[0].strip()
        return failed(why or message(error), "a state_dict that weights_only=True loads")


def through_dcp(subject: Subject) -> Verdict:
    """The state dict of torch.distributed.checkpoint, by parameters' names."""
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    def transfer(run: Run) -> Run:
        run.optimizer.zero_grad(set_to_none=True)
        saved = copy.deepcopy(get_optimizer_state_dict(run.model, run.optimizer))
        twin = run.twin()
        set_optimizer_state_dict(twin.model, twin.optimizer, saved)
        twin.model.load_state_dict(run.model.state_dict())
        return twin

    try:
        return continues(subject, transfer)
    except Exception as error:
        if subject.closure:
            return refused(f"needs a closure: {message(error)}")
        raise


def from_dcp_on_disk(subject: Subject) -> Verdict:
    """A folder of torch.distributed.checkpoint, read into tensors that are there."""
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save

    def transfer(run: Run) -> Run:
        run.optimizer.zero_grad(set_to_none=True)
        twin = run.twin()
        with tempfile.TemporaryDirectory() as folder:
            saved = get_optimizer_state_dict(run.model, run.optimizer)
            # It is read into tensors that are there: those of an optimizer after a zero step.
            place = get_optimizer_state_dict(twin.model, twin.optimizer)
            with first_failure():
                save(saved, checkpoint_id=folder, no_dist=True)
                load(place, checkpoint_id=folder, no_dist=True)
        set_optimizer_state_dict(twin.model, twin.optimizer, place)
        twin.model.load_state_dict(run.model.state_dict())
        return twin

    try:
        return continues(subject, transfer)
    except Exception as error:
        if subject.closure:
            return refused(f"needs a closure: {message(error)}")
        raise


@contextlib.contextmanager
def first_failure() -> Iterator[None]:
    """What went wrong, instead of torch's collection of it, which is no Exception."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None


def state_dtype(subject: Subject) -> Verdict:
    """Save and load over bfloat16 parameters."""
    expected = subject.trained(2 * STEPS, torch.bfloat16).tensors()
    source = subject.trained(dtype=torch.bfloat16)
    twin = source.twin()
    twin.optimizer.load_state_dict(source.optimizer.state_dict())
    gap = difference(twin.tensors(), source.tensors())
    gap = gap or difference(twin.train(range(STEPS, 2 * STEPS)).tensors(), expected)
    if gap:
        return failed(
            f"{gap} with bfloat16 parameters", "state to keep its dtype and bits in load_state_dict"
        )
    return passed("state over bfloat16 parameters loads with its dtype and continues exactly")


def wide_state(subject: Subject) -> Verdict:
    """Widen the state by hand, save and load: its dtype must survive."""
    floating = 0
    for narrow, wide in ((torch.bfloat16, torch.float32), (torch.float32, torch.float64)):
        source = subject.trained(dtype=narrow)
        for state in source.optimizer.state.values():
            for name, value in state.items():
                if not isinstance(value, Tensor) or not value.is_floating_point() or name == "step":
                    continue
                floating += 1
                if value.dtype == narrow:
                    state[name] = value.to(wide)
        twin = source.twin()
        twin.optimizer.load_state_dict(source.optimizer.state_dict())
        for (name, have), (_, want) in zip(
            twin.tensors().items(), source.tensors().items(), strict=True
        ):
            if have.dtype != want.dtype:
                return noted(
                    f"{describe(want)} {name} loads as {describe(have)}: load_state_dict casts to "
                    "the parameter's dtype (torch.optim does)"
                )
    if not floating:
        return not_applicable("no floating-point state")
    return passed(
        "float32 state over bfloat16 and float64 over float32 parameters keep their dtype"
    )


def random_state(subject: Subject) -> Verdict:
    """Save, change the global seed, load, and go on."""

    def seeded() -> Run:
        run = subject.start()
        seed(1)
        return run

    expected = seeded().train(range(2 * STEPS), reseed=False).tensors()
    source = seeded().train(range(STEPS), reseed=False)
    saved = copy.deepcopy(source.optimizer.state_dict())
    seed(2)
    twin = source.twin()
    twin.optimizer.load_state_dict(saved)
    gap = difference(twin.train(range(STEPS, 2 * STEPS), reseed=False).tensors(), expected)
    if gap:
        return failed(
            f"{gap} when resumed under another global seed",
            "the state of the random generator in the state_dict",
        )
    return passed("resumes exactly whatever the global random state")
