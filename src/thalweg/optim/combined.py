"""Several optimizers as one: matrices by one rule, everything else by another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thalweg.optim.engine.sharding import local

Group = dict[str, Any]


class Combined(Optimizer):
    r"""One optimizer object made of several, each with its own parameters.

    .. math::
        x = (x^{(1)}, \dots, x^{(m)}), \qquad
        x^{(i)}_{k+1} = x^{(i)}_k - u_i\bigl(g^{(i)}_k;\, \text{state}_i\bigr)

    where :math:`u_i` is the move of the i-th optimizer. Its ``param_groups`` are the members' own,
    the same dicts, so that a learning rate scheduler moves all of them, each from its own lr; its
    ``state`` reads and writes theirs. Checkpoints have the layout of any `torch.optim.Optimizer`:
    ``torch.load(weights_only=True)`` and ``torch.distributed.checkpoint`` load them. Any optimizer
    whose ``state_dict`` holds ``"state"`` (by parameter) and ``"param_groups"`` can be a member.

    Parameters
    ----------
    optimizers
        The members, in the order in which they step; at least one. No parameter may be in two.

    Raises
    ------
    TypeError
        If a member is no `torch.optim.Optimizer`; from ``state_dict()``, if one saves more than
        torch's optimizers do.
    ValueError
        If there is no member, or a parameter is in two (named); from ``add_param_group``, without
        a target; from ``load_state_dict``, for a checkpoint of other groups.

    Notes
    -----
    ``step(closure)`` calls the closure once, before any member steps. Members that call it
    themselves (SALSA's line search, LBFGS) cannot be combined: they say that they miss it. Members
    that draw random numbers do so from equal seeds unless each is given its ``generator``.

    Examples
    --------
    Lion for the matrices, AdamW for embeddings, norms, biases and the head:

    >>> import torch
    >>> from torch import nn
    >>> from thalweg.optim import AdamW, Combined, Lion, param_groups
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    >>> groups = param_groups(model)
    >>> matrices = [group for group in groups if group["role"] == "matrix"]
    >>> rest = [group for group in groups if group["role"] != "matrix"]
    >>> optimizer = Combined([Lion(matrices, lr=1e-4, weight_decay=0.1), AdamW(rest, lr=1e-3)])
    >>> scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    >>> model(torch.ones(1, 4)).sum().backward()
    >>> optimizer.step()
    >>> scheduler.step()
    >>> [(group["role"], group["lr"]) for group in optimizer.param_groups]
    [('matrix', 5e-05), ('head', 0.0005), ('norm', 0.0005), ('bias', 0.0005)]
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        members = list(optimizers)
        for member in members:
            if not isinstance(member, Optimizer):
                raise TypeError(
                    f"optimizers must be torch.optim.Optimizer objects, got {type(member).__name__}"
                )
        if not members:
            raise ValueError("optimizers must hold at least one optimizer, got none")
        _check_disjoint(members)
        self.members = members
        # Place of each group: (member, number there). New ones come last, as schedulers expect.
        self._places: list[tuple[int, int]] = []
        self._built = False
        super().__init__(self.param_groups, _common_defaults(members))
        self._built = True

    # ---- groups and state: the members' own ----

    @property
    def param_groups(self) -> list[Group]:
        """The members' groups, the same dicts; those added later come last."""
        for i, member in enumerate(self.members):
            known = sum(where == i for where, _ in self._places)
            self._places += [(i, j) for j in range(known, len(member.param_groups))]
        return [self.members[i].param_groups[j] for i, j in self._places]

    @param_groups.setter
    def param_groups(self, groups: Sequence[Group]) -> None:
        if not self._built:  # torch's constructor starts with an empty list
            return
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"param_groups must be {len(self.param_groups)} groups, got {len(groups)}; "
                "use add_param_group(group, to=...)"
            )
        for (i, j), group in zip(self._places, groups, strict=True):
            self.members[i].param_groups[j] = group

    @property
    def state(self) -> Any:
        """The members' state, a mapping by parameter."""
        return _State(self.members)

    @state.setter
    def state(self, values: MutableMapping[Tensor, Any]) -> None:
        if self._built:
            for member in self.members:
                member.state.clear()
            self.state.update(values)

    def add_param_group(self, param_group: Group, *, to: int | Optimizer | None = None) -> None:
        """Add a group to the member `to`: its number, or the optimizer itself.

        Raises
        ------
        ValueError
            If `to` names no member, or a parameter of the group is in another one.
        """
        if not self._built:  # called by torch's constructor, for groups the members have already
            return
        if to is None and len(self.members) == 1:
            to = 0
        listed = ", ".join(f"{i} ({type(m).__name__})" for i, m in enumerate(self.members))
        if isinstance(to, Optimizer):
            number = next((i for i, member in enumerate(self.members) if member is to), None)
        else:
            number = to if to in range(len(self.members)) else None
        if number is None:
            got = type(to).__name__ if isinstance(to, Optimizer) else repr(to)
            raise ValueError(
                "to must say which optimizer gets the parameter group, as in "
                f"add_param_group(group, to=0): one of {listed}, got {got}"
            )
        member = self.members[number]
        member.add_param_group(param_group)
        try:
            _check_disjoint(self.members)
        except ValueError:
            member.param_groups.pop()
            raise

    # ---- steps ----

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Every member takes a step; returns what `closure` returns, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss

    def train(self) -> None:
        """Call ``train()`` of the members that have one: put back where gradients are taken."""
        self._switch("train")

    def eval(self) -> None:
        """Call ``eval()`` of the members that have one: put their output into the model."""
        self._switch("eval")

    def _switch(self, mode: str) -> None:
        for member in self.members:
            if callable(switch := getattr(member, mode, None)):
                switch()

    def state_bytes(self) -> int:
        """Bytes of state held by this process, every tensor counted once."""
        values = chain.from_iterable(state.values() for state in self.state.values())
        tensors = {id(t): t for t in (local(v) for v in values if isinstance(v, Tensor))}
        return sum(t.numel() * t.element_size() for t in tensors.values())

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """The checkpoint: parameters numbered through all groups, as in torch."""
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        parts = [_plain(member) for member in self.members]
        state: dict[int, Any] = {}
        groups: list[Group] = []
        first = 0
        for (i, j), group in zip(self._places, self.param_groups, strict=True):
            own = parts[i]["param_groups"][j]
            numbers = list(range(first, first + len(group["params"])))
            first += len(numbers)
            groups.append({**own, "params": numbers})
            for number, key in zip(numbers, own["params"], strict=True):
                if key in parts[i]["state"]:
                    state[number] = parts[i]["state"][key]
        saved: dict[str, Any] = {"state": state, "param_groups": groups}
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            replaced = post_hook(self, saved)
            saved = saved if replaced is None else replaced
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint: every member loads its part."""
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = pre_hook(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        sizes = [len(group["params"]) for group in self.param_groups]
        saved = state_dict["param_groups"]
        got = [len(group["params"]) for group in saved]
        if got != sizes:
            raise ValueError(
                f"state_dict must have parameter groups of {sizes} parameters, got {got}"
            )
        for i, member in enumerate(self.members):
            places = sorted((j, at) for at, (where, j) in enumerate(self._places) if where == i)
            groups = [saved[at] for _, at in places]
            keys = set(chain.from_iterable(group["params"] for group in groups))
            part = {key: value for key, value in state_dict["state"].items() if key in keys}
            member.load_state_dict({"state": part, "param_groups": groups})
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def __getstate__(self) -> dict[str, Any]:
        names = ("defaults", "members", "_places", "_built")
        return {name: self.__dict__[name] for name in names}


class _State(MutableMapping[Tensor, Any]):
    """The state of several optimizers, each parameter's where its optimizer keeps it."""

    def __init__(self, members: Sequence[Optimizer]) -> None:
        self._members = members
        self._owners = {
            p: member
            for member in members
            for group in member.param_groups
            for p in group["params"]
        }

    def __getitem__(self, p: Tensor) -> Any:
        return self._owners[p].state[p]

    def __setitem__(self, p: Tensor, value: Any) -> None:
        self._owners[p].state[p] = value

    def __delitem__(self, p: Tensor) -> None:
        del self._owners[p].state[p]

    def __contains__(self, p: object) -> bool:  # a look-up in a defaultdict would make the entry
        return any(p in member.state for member in self._members)

    def __iter__(self) -> Iterator[Tensor]:
        return chain.from_iterable(member.state for member in self._members)

    def __len__(self) -> int:
        return sum(len(member.state) for member in self._members)


def _check_disjoint(members: Sequence[Optimizer]) -> None:
    owners: dict[Tensor, Optimizer] = {}
    for member in members:
        for number, group in enumerate(member.param_groups):
            for where, p in enumerate(group["params"]):
                other = owners.setdefault(p, member)
                if other is not member:
                    names = group.get("param_names")
                    name = f"{names[where]!r}" if names else f"{where} of group {number}"
                    raise ValueError(
                        f"optimizers must not share parameters, got parameter {name} "
                        f"(shape {tuple(p.shape)}) of {type(member).__name__} "
                        f"in {type(other).__name__} too"
                    )


def _common_defaults(members: Sequence[Optimizer]) -> dict[str, Any]:
    """What schedulers ask for, such as "betas": the hyper-parameters that all members have."""
    first, *others = (member.defaults for member in members)
    return {k: v for k, v in first.items() if all(k in defaults for defaults in others)}


def _plain(member: Optimizer) -> dict[str, Any]:
    saved = member.state_dict()
    numbers = set(chain.from_iterable(group["params"] for group in saved["param_groups"]))
    odd = [*(saved.keys() - {"state", "param_groups"}), *(saved["state"].keys() - numbers)]
    if odd:
        raise TypeError(
            "optimizers must keep their state by parameter, "
            f"got {type(member).__name__} with {odd[0]!r} in its state_dict"
        )
    return saved
