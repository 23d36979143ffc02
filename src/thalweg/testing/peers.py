"""Whom the contract table asks: every optimizer of thalweg, and of the libraries beside it."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from torch.optim import Optimizer


@dataclass(frozen=True)
class Job:
    """One optimizer to ask, named so that another process can import it.

    Parameters
    ----------
    library
        Whose it is: ``"thalweg"``, ``"torch.optim"``...
    place
        ``"module:Class"``.
    hyper
        Hyper-parameters it is built with: Python literals.

    Examples
    --------
    >>> Job("torch.optim", "torch.optim:SGD", {"momentum": 0.9}).method
    'SGD momentum=0.9'
    """

    library: str
    place: str
    hyper: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The class and its hyper-parameters, in words."""
        name = self.place.rpartition(":")[2].rpartition(".")[2]
        return " ".join([name, *(f"{key}={value}" for key, value in self.hyper.items())])


@dataclass(frozen=True)
class Library:
    """A library beside ours.

    Parameters
    ----------
    name
        As it is called in the table.
    distribution, series
        As it is installed, and the series of versions the table was written for.
    places
        The ``"module:Class"`` of each of its optimizers; imports it.
    settings
        Called before its optimizers are asked.
    how
        How it is asked, in a sentence, if that needs saying.
    """

    name: str
    distribution: str
    series: str
    places: Callable[[], list[str]]
    settings: Callable[[], None] = lambda: None
    how: str = ""

    @property
    def version(self) -> str | None:
        """The installed version, or None."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return None

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install '{self.distribution}=={self.series}.*'"


def ours() -> list[Job]:
    """Every optimizer of `thalweg.optim`, with defaults, and AdamW with each rounding.

    A hyper-parameter without default is set to the middle of the method's search space.

    Examples
    --------
    >>> [job.method for job in ours() if "AdamW" in job.place]
    ['AdamW', 'AdamW rounding=stochastic', 'AdamW rounding=compensated']
    """
    import thalweg.optim
    from thalweg.core.catalogue import collect

    entries = [
        e
        for e in collect(thalweg.optim)
        if isinstance(e.target, type) and issubclass(e.target, Optimizer)
    ]
    jobs = []
    for e in sorted(entries, key=lambda e: e.name.lower()):
        place = f"thalweg.optim:{e.name}"
        required = [
            name
            for name, parameter in inspect.signature(e.target).parameters.items()
            if name != "params"
            and parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_KEYWORD
        ]
        hyper = {k: round(e.search_space[k].at(0.5), 6) for k in required if k in e.search_space}
        jobs.append(Job("thalweg", place, hyper))
        if e.name == "AdamW":
            jobs += [Job("thalweg", place, {"rounding": r}) for r in ("stochastic", "compensated")]
    return jobs


def optimizers(module: str, names: list[str]) -> list[str]:
    """Those of `names` that are optimizers, each class once."""
    found = importlib.import_module(module)
    classes = {
        getattr(found, name): f"{module}:{name}"
        for name in names
        if inspect.isclass(getattr(found, name)) and issubclass(getattr(found, name), Optimizer)
    }
    return [place for cls, place in classes.items() if cls is not Optimizer]


def of_torch() -> list[str]:
    """torch's optimizers, as ``module:Class``."""
    import torch

    return optimizers("torch.optim", [n for n in dir(torch.optim) if n[0].isupper()])


def of_pytorch_optimizer() -> list[str]:
    """Those that pytorch-optimizer lists."""
    library = importlib.import_module("pytorch_optimizer")
    classes = map(library.load_optimizer, library.get_supported_optimizers())
    return [f"{cls.__module__}:{cls.__qualname__}" for cls in classes]


def of_heavyball() -> list[str]:
    """Those that heavyball exports."""
    return optimizers("heavyball", list(importlib.import_module("heavyball").__all__))


def eager_heavyball() -> None:
    """Switch off its compiler, which would compile for every optimizer."""
    importlib.import_module("heavyball.utils").compile_mode = None  # type: ignore[attr-defined]


# torchzero has modules, and an optimizer is a list of them: nine first-order ones, each with LR.
TORCHZERO = ("Adagrad", "Adam", "Adan", "HeavyBall", "Lion", "NAG", "RMSprop", "Shampoo", "SOAP")


def of_torchzero() -> list[str]:
    """torchzero has modules: those of `TORCHZERO` that this version has."""
    modules = importlib.import_module("torchzero").m
    return [f"torchzero.modules:{name}" for name in TORCHZERO if hasattr(modules, name)]


def composed(module: Callable[[], Any]) -> Callable[..., Optimizer]:
    """``torchzero.Optimizer(params, module(), LR(lr))`` as a class would be called."""
    torchzero: Any = importlib.import_module("torchzero")

    def build(params: Any, lr: Any = 1e-2) -> Optimizer:
        return torchzero.Optimizer(params, module(), torchzero.m.LR(lr))

    name = getattr(module, "__name__", "module")
    # No other process can import this: the angle brackets tell the clauses that would.
    build.__name__, build.__qualname__ = name, f"<{name}, LR>"
    return build


LIBRARIES: tuple[Library, ...] = (
    Library("torch.optim", "torch", "2", of_torch),
    Library("pytorch-optimizer", "pytorch_optimizer", "4.1", of_pytorch_optimizer),
    Library(
        "heavyball",
        "heavyball",
        "3.2",
        of_heavyball,
        eager_heavyball,
        "eager (heavyball.utils.compile_mode = None): it compiles its steps by default",
    ),
    Library(
        "torchzero",
        "torchzero",
        "0.4",
        of_torchzero,
        how="nine of its first-order modules, each as Optimizer(params, module(), LR(1e-2)); "
        "what needs several processes is not asked",
    ),
)


def load(job: Job) -> Callable[..., Optimizer]:
    """The class of a job, its library set as the table asks it."""
    for library in LIBRARIES:
        if library.name == job.library:
            library.settings()
    module, _, name = job.place.partition(":")
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    return composed(target) if job.library == "torchzero" else target


if __name__ == "__main__":  # in a process of its own: importing a library may set or break things
    warnings.simplefilter("ignore")
    print(json.dumps(next(x for x in LIBRARIES if x.name == sys.argv[1]).places()))
