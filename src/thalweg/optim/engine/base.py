"""What every optimizer shares: groups, state, loading and saving, closures, input checks."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from thalweg.core import check
from thalweg.core.catalogue import Axis
from thalweg.core.result import NonFiniteError
from thalweg.optim.engine import rounding
from thalweg.optim.engine.kernel import compiler_available
from thalweg.optim.engine.sharding import local, sharded_like
from thalweg.optim.engine.update import Rule

#: Parameters in all from which compiling pays (compile=None): about 2 seconds against 5x per step.
COMPILE_FROM = 2**18


class How(TypedDict, total=False):
    """Keywords every optimizer takes: how to run the rule, not what the rule is.

    Parameters
    ----------
    maximize
        Go up instead of down. Default False.
    compile
        True: compile the rule; False: run it eagerly; None (default): compile if the model has at
        least 2**18 parameters and a compiler is there.
    rounding
        How a short parameter format receives its update: ``"nearest"`` (default),
        ``"stochastic"`` or ``"compensated"`` (bfloat16 only).
    check_finite
        Refuse gradients with an infinity or a NaN, naming the parameter. Default False.
    generator
        Where random numbers come from, for methods that draw any. Default: a generator of the
        optimizer's own, seeded with ``torch.initial_seed()``.
    """

    maximize: bool
    compile: bool | None
    rounding: str
    check_finite: bool
    generator: torch.Generator | None


class Active(NamedTuple):
    """A parameter that takes part in this step: it has a gradient."""

    group: dict[str, Any]
    p: Tensor
    g: Tensor
    state: dict[str, Any]


class RuleOptimizer(Optimizer):
    """A `torch.optim.Optimizer` made from a pure rule; subclasses say what the rule must see.

    A method declares ``slots`` (the names of its state, zero at the start unless `initial` says
    otherwise), ``rule`` and the catalogue's attributes; everything else is here.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[Rule]
    shared: ClassVar[tuple[str, ...]] = ()  # 0-d float64 numbers common to several parameters
    #: True if the rule takes `noise` (standard normal numbers) after its state.
    draws_noise: ClassVar[bool] = False
    #: Keywords of the rule that come from a reduction over all parameters, not from the group.
    reduced: ClassVar[tuple[str, ...]] = ()

    paper: ClassVar[str] = ""
    year: ClassVar[int] = 0
    family: ClassVar[str] = "first-order"
    needs: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[str] = "0 per parameter"
    search_space: ClassVar[Mapping[str, Axis]] = {}

    def __init__(
        self,
        params: ParamsT,
        defaults: dict[str, Any],
        *,
        maximize: bool = False,
        compile: bool | None = None,
        rounding: str = "nearest",
        check_finite: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        self.compile = check.choice("compile", compile, (None, True, False))
        self.rounding = check.choice("rounding", rounding, ("nearest", "stochastic", "compensated"))
        self.check_finite = bool(check_finite)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
        self.generator = generator
        self._forget()
        super().__init__(params, {**defaults, "maximize": bool(maximize)})

    def _forget(self) -> None:
        """Drop what was derived from parameters and groups; it is made anew when needed."""
        self._use_compiler: bool | None = None
        self._slots_seen: dict[int, tuple[str, ...]] = {}

    # ---- what a method may override ----

    def validate(self, group: dict[str, Any]) -> None:
        """Check the hyper-parameters of a group; raises an error that names the argument."""
        check.number("lr", group["lr"], ge=0)

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        """The state this group's parameters need; default: all of `slots`."""
        return self.slots

    def initial(self, slot: str, p: Tensor, group: dict[str, Any]) -> Tensor:
        """The first value of a slot, made from the parameter alone; default: zeros."""
        return torch.zeros_like(p, dtype=_state_dtype(p), memory_format=torch.preserve_format)

    def numbers(self, group: dict[str, Any], k: int) -> dict[str, float]:
        """The rule's numeric hyper-parameters at the parameter's k-th step (k = 1 first)."""
        return {
            name: float(value)
            for name, value in self._hyper(group, k)
            if not isinstance(value, bool | str | None)
        }

    def static(self, group: dict[str, Any]) -> dict[str, Any]:
        """The rule's hyper-parameters that choose between formulas: booleans, strings, None."""
        return {n: v for n, v in self._hyper(group, 1) if isinstance(v, bool | str | None)}

    def update(self, active: Sequence[Active]) -> None:
        """Move all parameters that have a gradient; every step count is already increased."""
        raise NotImplementedError

    # ---- the step ----

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns what `closure` returns, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        active = self._active()
        if active:
            self.update(active)
            self._remember_rng()
        return loss

    def _active(self) -> list[Active]:
        active = []
        for group in self.param_groups:
            slots = self._all_slots(group)
            n_slots, states = len(slots), self.state
            changed = self._slots_seen.get(id(group)) != slots  # momentum switched on in mid-run
            self._slots_seen[id(group)] = slots
            for p in group["params"]:
                g = p.grad
                if g is None:
                    continue
                if g.layout is not torch.strided:
                    raise TypeError(
                        f"{type(self).__name__} takes dense gradients, got a sparse one "
                        f"({g.layout}) for {self._name(group, p)}; pass sparse=False to the "
                        "embedding, or use torch.optim.SparseAdam for it"
                    )
                if self.check_finite and not bool(torch.isfinite(local(g)).all()):
                    raise NonFiniteError(
                        f"the gradient of {self._name(group, p)} is infinite or NaN"
                    )
                state = states[p]
                if changed or len(state) <= n_slots:
                    self._create(state, slots, p, group)
                active.append(Active(group, p, g, state))
        return active

    def _all_slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        slots = self.slots_of(group)
        return (*slots, "compensation") if self.rounding == "compensated" else slots

    def _create(
        self, state: dict[str, Any], slots: Sequence[str], p: Tensor, group: dict[str, Any]
    ) -> None:
        with torch.no_grad():
            for slot in slots:
                if slot in state:
                    continue
                if slot == "compensation":
                    state[slot] = torch.zeros_like(p)
                else:
                    state[slot] = self.initial(slot, p.detach(), group)
        if "step" not in state:
            state["step"] = torch.tensor(0.0)

    def _name(self, group: dict[str, Any], p: Tensor) -> str:
        where = next(i for i, q in enumerate(group["params"]) if q is p)
        names = group.get("param_names")
        label = f"parameter {names[where]!r}" if names else f"parameter {where} of its group"
        return f"{label} (shape {tuple(p.shape)})"

    def _hyper(self, group: dict[str, Any], k: int) -> list[tuple[str, Any]]:
        values: list[tuple[str, Any]] = []
        for name in _keywords(type(self).rule):
            if name in self.reduced:
                continue
            if name == "k":
                values.append((name, k))
            elif name in ("beta1", "beta2"):
                values.append((name, group["betas"][int(name[-1]) - 1]))
            else:
                values.append((name, group[name]))
        return values

    def uses_compiler(self) -> bool:
        """Whether the rule runs compiled: what `compile` says, or the size of the model."""
        if self._use_compiler is None:
            params = [p for group in self.param_groups for p in group["params"]]
            if self.compile is not None:
                self._use_compiler = self.compile
            else:
                self._use_compiler = sum(p.numel() for p in params) >= COMPILE_FROM and all(
                    compiler_available(kind) for kind in {p.device.type for p in params}
                )
        return self._use_compiler

    # ---- random numbers ----

    @property
    def _random(self) -> bool:
        return self.draws_noise or self.rounding == "stochastic"

    def _generator(self, p: Tensor) -> torch.Generator:
        if self.generator is None:
            self.generator = torch.Generator(p.device).manual_seed(torch.initial_seed())
        return self.generator

    def gaussian(self, p: Tensor) -> Tensor:
        """Standard normal numbers in the shape of the entire parameter `p`."""
        generator = self._generator(p)
        return torch.randn(
            p.shape, dtype=_state_dtype(p), device=generator.device, generator=generator
        ).to(p.device)

    def _random_bits(self, p: Tensor) -> Tensor:
        bits = rounding.random_bits(p.shape, p.device, self._generator(p))
        return sharded_like(bits, p)

    def _remember_rng(self) -> None:
        """Keep the generator's state where every kind of checkpoint finds it: with a parameter."""
        if self._random and self.generator is not None:
            first = next(iter(self.state.values()))
            first["rng_state"] = self.generator.get_state()

    def _restore_rng(self) -> None:
        for p, state in self.state.items():
            if "rng_state" in state:
                self._generator(p).set_state(state["rng_state"].cpu().to(torch.uint8))

    # ---- groups and checkpoints ----

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its hyper-parameters and parameters are checked like the first one's."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for p in group["params"]:
                self._check_parameter(group, p)
            self.validate(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise
        self._forget()

    def _check_parameter(self, group: dict[str, Any], p: Tensor) -> None:
        check.floating(f"params: {self._name(group, p)}", p)
        if self.rounding != "nearest" and p.dtype is not torch.bfloat16:
            raise ValueError(
                f"rounding={self.rounding!r} is for bfloat16 parameters, "
                f"got {p.dtype} for {self._name(group, p)}"
            )
        inner = local(p)
        if any(s == 0 and n > 1 for s, n in zip(inner.stride(), inner.shape, strict=True)):
            raise ValueError(
                f"params must not be expanded tensors (several entries in one place of memory), "
                f"got {self._name(group, p)} with strides {inner.stride()}"
            )

    def state_bytes(self) -> int:
        """Bytes of state held by this process, every tensor counted once."""
        tensors = {
            id(local(value)): local(value)
            for state in self.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        }
        return sum(t.numel() * t.element_size() for t in tensors.values())

    def state_dict(self) -> dict[str, Any]:
        """The checkpoint: tensors of the state itself, step counts copied per parameter.

        Packed parameters share one count; torch's optimizers count in place what they load.
        """
        saved = super().state_dict()
        counts = ("step", *self.shared)
        return {
            **saved,
            "state": {
                key: {n: v.clone() if n in counts else v for n, v in state.items()}
                for key, state in saved["state"].items()
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this optimizer, or of its torch.optim namesake.

        Unlike torch's, it copies the state instead of sharing it, and keeps the format in which
        the state was saved instead of casting it to the parameter's.
        """
        before = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
        seen: dict[str, Any] = {}
        first = self.register_load_state_dict_pre_hook(lambda _, given: seen.update(given))
        last = self.register_load_state_dict_post_hook(
            lambda _: self._restore(seen, before), prepend=True
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            first.remove()
            last.remove()

    def _restore(self, saved: Mapping[str, Any], before: list[dict[str, Any]]) -> None:
        for group, old, given in zip(self.param_groups, before, saved["param_groups"], strict=True):
            for name, value in old.items():  # hyper-parameters a torch.optim checkpoint lacks
                group.setdefault(name, value)
            for p, key in zip(group["params"], given["params"], strict=True):
                if key in saved["state"]:
                    state = {n: self._own(v, n, p) for n, v in saved["state"][key].items()}
                    if "step" not in state:  # torch.optim.SGD counts no steps
                        state["step"] = torch.tensor(1.0 if state else 0.0)
                    self._create(state, self._all_slots(group), p, group)
                    self.state[p] = state
        self._forget()
        self._restore_rng()

    def _own(self, value: Any, name: str, p: Tensor) -> Any:
        """A copy of a saved value, on its device, in the format in which it was saved."""
        if not isinstance(value, Tensor):
            return torch.tensor(float(value)) if name == "step" else copy.deepcopy(value)
        on_host = name in ("step", "rng_state", *self.shared)
        return value.detach().to("cpu" if on_host else p.device, copy=True)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        names = ("compile", "rounding", "check_finite", *self._own_attributes)
        state.update({name: getattr(self, name) for name in names})
        if self.generator is not None:  # a torch.Generator cannot be copied or pickled itself
            state["generator"] = (str(self.generator.device), self.generator.get_state())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        position = state.pop("generator", None)
        super().__setstate__(state)
        self._forget()
        if position is not None:
            self.generator = torch.Generator(position[0])
            self.generator.set_state(position[1])
        elif not hasattr(self, "generator"):
            self.generator = None

    #: Names of attributes that a copy of the optimizer must carry along.
    _own_attributes: ClassVar[tuple[str, ...]] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> RuleOptimizer:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin


def _state_dtype(p: Tensor) -> torch.dtype:
    return torch.float32 if p.dtype in (torch.bfloat16, torch.float16) else p.dtype


@functools.cache
def _keywords(rule: Rule) -> tuple[str, ...]:
    parameters: Iterable[inspect.Parameter] = inspect.signature(rule).parameters.values()
    return tuple(q.name for q in parameters if q.kind is inspect.Parameter.KEYWORD_ONLY)
