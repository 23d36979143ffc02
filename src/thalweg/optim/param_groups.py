"""Parameter groups by role: what a matrix, an embedding, a head, a norm and a bias need differs."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, overload

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from thalweg.core import check

Role = Literal["matrix", "embedding", "head", "norm", "bias"]
ROLES: tuple[Role, ...] = get_args(Role)

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)  # nn.RMSNorm is newer than torch 2.4's minimum
_OUTPUTS = (nn.Linear, nn.Bilinear, _ConvNd)


class ParamGroups(Sequence[dict[str, Any]]):
    """Parameter groups for any optimizer of torch's kind; printing shows the table.

    Every access hands out copies of the groups: an optimizer writes its own lr into the groups it
    is given, and the next one must not find it there.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        self._groups = [dict(group) for group in groups]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return list(self)[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for group in self._groups:
            names = {"param_names": list(group["param_names"])}
            yield {**group, "params": list(group["params"]), **names}

    def __len__(self) -> int:
        return len(self._groups)

    def table(self) -> str:
        """One line for each role: tensors, numbers in them, options, and their names."""
        head = ("role", "tensors", "parameters", "options", "names")
        rows = [head, *map(_row, self._groups)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
        return "\n".join(
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    row[1].rjust(widths[1]),
                    row[2].rjust(widths[2]),
                    row[3].ljust(widths[3]),
                    row[4],
                ]
            ).rstrip()
            for row in rows
        )

    def __repr__(self) -> str:
        return self.table()


def param_groups(
    model: nn.Module,
    *,
    head: str | nn.Module | None = "last",
    roles: Mapping[str, Role] | None = None,
    options: Mapping[Role, Mapping[str, Any]] | None = None,
) -> ParamGroups:
    """Split a model's parameters by role; norms and biases get no weight decay.

    A role follows from the type of the module that owns the parameter:

    - *embedding*: of ``nn.Embedding`` and ``nn.EmbeddingBag``;
    - *norm*: of batch, layer, group, instance and RMS norms, and of any class whose name ends in
      "Norm" (their biases too);
    - *bias*: any other parameter with fewer than two dimensions;
    - *head*: the weight of the output layer;
    - *matrix*: all others (convolution kernels too).

    A tied parameter counts once, in the role of the first module that owns it. Frozen parameters
    (``requires_grad=False``) are left out, and so are roles that nothing has.

    Parameters
    ----------
    model
        The model.
    head
        The output layer: its name in ``model.named_modules()``, the module itself, ``"last"`` (the
        default: the last linear or convolution module of the model), or None if there is none.
    roles
        Exceptions: patterns of parameter names (``"*.pos_embedding"``) to roles. Every pattern
        must match a parameter.
    options
        Hyper-parameters of roles: ``{"embedding": {"lr": 1e-3}}``.

    Returns
    -------
    ParamGroups
        Groups with the keys ``"params"``, ``"param_names"``, ``"role"``, for norm and bias
        ``"weight_decay": 0.0``, and the `options`. Optimizers keep keys they do not know, so that
        ``group["role"]`` is there in ``optimizer.param_groups`` and in checkpoints.

    Raises
    ------
    TypeError
        If `model` is no module.
    ValueError
        For an unknown role, a head that is not in the model, a pattern that matches nothing, or a
        model with nothing to train.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    >>> groups = param_groups(model)
    >>> groups
    role    tensors  parameters  options         names
    matrix        1          32                  0.weight
    head          1          16                  3.weight
    norm          2          16  weight_decay=0  1.weight, 1.bias
    bias          2          10  weight_decay=0  0.bias, 3.bias
    >>> optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)
    >>> [(group["role"], group["weight_decay"]) for group in optimizer.param_groups]
    [('matrix', 0.1), ('head', 0.1), ('norm', 0.0), ('bias', 0.0)]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for role in (*(roles or {}).values(), *(options or {})):
        check.choice("role", role, ROLES)
    output = _output(model, head)
    patterns = dict(roles or {})
    members: dict[Role, list[tuple[str, nn.Parameter]]] = {role: [] for role in ROLES}
    seen: set[int] = set()
    matched: set[str] = set()
    for module_name, module in model.named_modules():
        for own_name, p in module.named_parameters(recurse=False):
            if id(p) in seen:
                continue
            seen.add(id(p))
            name = f"{module_name}.{own_name}" if module_name else own_name
            role = _role(module, p, output)
            for pattern, wanted in patterns.items():
                if fnmatch.fnmatchcase(name, pattern):
                    role = wanted
                    matched.add(pattern)
            if p.requires_grad:
                members[role].append((name, p))
    if idle := [pattern for pattern in patterns if pattern not in matched]:
        raise ValueError(
            f"roles must match names of parameters, got {idle[0]!r}, which matches none"
        )
    if not any(members.values()):
        raise ValueError("model must have parameters that require a gradient, got none")
    return ParamGroups(
        _group(role, found, (options or {}).get(role, {}))
        for role, found in members.items()
        if found
    )


def _output(model: nn.Module, head: str | nn.Module | None) -> nn.Module | None:
    modules = dict(model.named_modules())
    if head is None:
        return None
    if isinstance(head, nn.Module):
        if not any(module is head for module in modules.values()):
            raise ValueError(f"head must be a module of the model, got another {head}")
        return head
    if head in modules:
        return modules[head]
    if head == "last":
        return next((m for m in reversed(modules.values()) if isinstance(m, _OUTPUTS)), None)
    names = [name for name in modules if name]
    raise ValueError(
        "head must be 'last', None, or the name of a module, "
        f"got {head!r}{check.did_you_mean(head, names)}"
    )


def _role(module: nn.Module, p: nn.Parameter, output: nn.Module | None) -> Role:
    if isinstance(module, _EMBEDDINGS):
        return "embedding"
    if isinstance(module, _NORMS) or type(module).__name__.endswith("Norm"):
        return "norm"
    if p.dim() < 2:
        return "bias"
    if output is not None and any(part is module for part in output.modules()):
        return "head"
    return "matrix"


def _group(
    role: Role, members: Sequence[tuple[str, nn.Parameter]], options: Mapping[str, Any]
) -> dict[str, Any]:
    decay = {"weight_decay": 0.0} if role in ("norm", "bias") else {}
    return {
        "params": [p for _, p in members],
        "param_names": [name for name, _ in members],
        "role": role,
        **decay,
        **options,
    }


def _row(group: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    known = ("params", "param_names", "role")
    options = ", ".join(
        f"{name}={value:g}" if isinstance(value, int | float) else f"{name}={value}"
        for name, value in group.items()
        if name not in known
    )
    names = group["param_names"]
    listed = ", ".join(names[:4]) + (f", ... {len(names) - 4} more" if len(names) > 4 else "")
    count = sum(p.numel() for p in group["params"])
    return group["role"], str(len(names)), f"{count:,}".replace(",", " "), options, listed
