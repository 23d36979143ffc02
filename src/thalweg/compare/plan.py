"""The plan: every job of a race, in a file that says what was asked.

All of them are fixed before anything runs, but for the trials of a race that is tuned adaptively.

A job's id is a hash of all that its result depends on, so that order, parallelism and kills cannot
change a race, and a directory that holds another race is recognised.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

import thalweg
from thalweg.compare.contender import Contender
from thalweg.compare.errors import BadInput
from thalweg.compare.spaces import describe_axis

if TYPE_CHECKING:
    from thalweg.compare.problems import Problem

SCHEMA = "thalweg.plan/1"

Stage = Literal["tune", "measure", "default", "exclusive"]

TUNING_SEED = 0
"""Every trial runs on this seed; the measured seeds are 1, 2, ..., S."""
DEFAULT_SEEDS = 3
"""Each method also runs at its defaults, on the first few measured seeds."""

_UNITS = {
    "": "steps", "step": "steps", "steps": "steps",
    "epoch": "epochs", "epochs": "epochs",
    "s": "s", "sec": "s", "second": "s", "seconds": "s",
}  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """How long a run trains: ``300 steps``, ``20 epochs`` or ``30 s`` of training.

    Examples
    --------
    >>> Budget.parse("20epochs")
    Budget(amount=20.0, unit='epochs')
    >>> str(Budget.parse(300))
    '300steps'
    """

    amount: float
    unit: Literal["steps", "epochs", "s"]

    @classmethod
    def parse(cls, text: str | int | Budget) -> Budget:
        """From ``"300steps"``, ``"20epochs"``, ``"30s"`` or a number of steps."""
        if isinstance(text, Budget):
            return text
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:[eE]\+?\d+)?)\s*([a-z]*)\s*", str(text))
        unit = _UNITS.get(match.group(2)) if match else None
        amount = float(match.group(1)) if match else 0.0
        whole = unit != "steps" or amount == int(amount)
        if unit is None or amount <= 0 or not whole or amount == float("inf"):
            raise BadInput(
                f"budget must be a number > 0 of steps, epochs or seconds, as in 300steps, "
                f"20epochs or 30s, got {text!r}"
            )
        return cls(amount, unit)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.amount:.15g}{self.unit}"

    @property
    def words(self) -> str:
        """For a sentence: ``300 steps``, ``1 epoch``, ``30 s of training``."""
        if self.unit == "s":
            return f"{self.amount:g} s of training"
        return f"{self.amount:.15g} {self.unit[:-1] if self.amount == 1 else self.unit}"


@dataclass(frozen=True)
class Job:
    """One run: its result depends on its id alone.

    `at` is the point of a trial in the unit cube, one number per axis.
    """

    id: str
    stage: Stage
    method: str
    seed: int
    budget: str
    points: int
    values: Mapping[str, Any]
    trial: int | None = None
    at: tuple[float, ...] = ()


def versions() -> dict[str, str]:
    """The versions a result depends on."""
    return {"torch": str(torch.__version__), "thalweg": str(thalweg.__version__)}


def job(
    problem: Problem,
    contender: Contender,
    stage: Stage,
    seed: int,
    budget: Budget,
    points: int,
    values: Mapping[str, Any],
    trial: int | None = None,
    at: Sequence[float] = (),
) -> Job:
    """A job with its id: a hash of all that its result depends on."""
    told = {
        "problem": problem.hash,
        "method": contender.key,
        "values": dict(values),
        "seed": seed,
        "budget": str(budget),
        "points": points,
        "stage": stage,
        "versions": versions(),
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=repr).encode())
    return Job(
        digest.hexdigest()[:16], stage, contender.name, seed, str(budget), points,
        dict(values), trial, tuple(at),
    )  # fmt: skip


class Plan:
    """What a race directory is about: the content of its plan.json.

    Parameters
    ----------
    directory
        The race directory.
    asked
        All that two races in one directory must agree on; see `what_is_asked`.
    seeds
        Measured seeds.
    """

    def __init__(self, directory: Path, asked: dict[str, Any], seeds: int) -> None:
        self.directory = directory
        self.asked = asked
        self.seeds = seeds
        self.jobs: list[Job] = []
        self.looks: list[dict[str, Any]] = []
        self.created = _now()
        self.baseline_ms: float | None = None
        self.inspects: bool | None = None
        self.products: int | None = None  # of each certificate

    @property
    def path(self) -> Path:
        """Where the plan is kept."""
        return self.directory / "plan.json"

    @property
    def adaptive(self) -> bool:
        """Whether trials are placed by the results of earlier ones."""
        return self.asked.get("adaptive") is not None

    def open(self) -> Plan:
        """Create the directory, or go on with the race that is in it.

        Raises
        ------
        BadInput
            If the directory holds something else; the text names the field that differs.
        """
        try:
            (self.directory / "runs").mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._go_on(json.loads(self.path.read_text(encoding="utf-8")))
            elif foreign := [f.name for f in self.directory.iterdir() if not _own_file(f.name)]:
                raise BadInput(
                    f"{self.directory} is not a race directory and not empty (it holds "
                    f"{sorted(foreign)[0]!r}); give a new one"
                )
            self.write()
        except OSError as error:
            raise cannot_write(self.directory, error) from error
        except json.JSONDecodeError as error:
            raise BadInput(
                f"{self.path} is damaged ({error.msg}); delete it to begin again, "
                "finished runs are found by their ids"
            ) from error
        return self

    def _go_on(self, saved: Any) -> None:
        schema = saved.get("schema") if isinstance(saved, dict) else None
        if schema != SCHEMA:
            raise BadInput(
                f"{self.path} has schema {schema!r}, this version of thalweg writes {SCHEMA!r}; "
                "give another directory"
            )
        asked, there = json.loads(json.dumps(self.asked)), saved["asked"]
        for field in {**asked, **there}:
            mine, theirs = asked.get(field), there.get(field)
            if mine != theirs:
                raise BadInput(self._differs(field, theirs, mine))
        if self.seeds < saved["seeds"]:
            raise BadInput(
                f"{self.directory} holds a race on {saved['seeds']} seeds, got seeds = "
                f"{self.seeds}: seeds can be added, not taken away"
            )
        self.looks = saved["looks"]
        self.created = saved["created"]
        self.baseline_ms = saved.get("baseline_ms")
        self.inspects = saved.get("inspects")
        self.products = saved.get("products")

    def _differs(self, field: str, theirs: Any, mine: Any) -> str:
        advice = "give another directory, or ask for the same again"
        if field == "adaptive":
            return (
                f"{self.directory} holds another race: it is tuned {_tuned_by(theirs)} there, not "
                f"{_tuned_by(mine)}; {advice}"
            )
        if field == "problem":
            if theirs["name"] == mine["name"]:
                return (
                    f"{self.directory} holds a race on {mine['name']} as it was before: its "
                    "source, parameters or first loss have changed since; give another directory"
                )
            theirs, mine = theirs["name"], mine["name"]
        elif field == "methods":
            names = [method["spec"] for method in theirs], [method["spec"] for method in mine]
            if names[0] == names[1]:
                changed = [m["spec"] for t, m in zip(theirs, mine, strict=True) if t != m]
                return (
                    f"{self.directory} holds a race whose {', '.join(changed)} was another "
                    "version; give another directory"
                )
            theirs, mine = (", ".join(part) for part in names)
        return (
            f"{self.directory} holds another race: {field} is {theirs} there, not {mine}; {advice}"
        )

    def write(self) -> None:
        """Write plan.json, at once or not at all."""
        content = {
            "schema": SCHEMA,
            "created": self.created,
            "asked": self.asked,
            "seeds": self.seeds,
            "tuning_seed": TUNING_SEED,
            "looks": self.looks,
            "baseline_ms": self.baseline_ms,
            "inspects": self.inspects,
            "products": self.products,
            "jobs": [asdict(job) for job in self.jobs],
        }
        write_atomically(self.path, json.dumps(content, indent=1, default=repr) + "\n")

    def next_look(self) -> int:
        """The number of the look at this many seeds: the same for the same seeds."""
        earlier = [look for look in self.looks if look["seeds"] < self.seeds and look["counts"]]
        return 1 + len(earlier)

    def look(self, counts: bool) -> None:
        """Write down a look at the verdicts of this many seeds (once).

        A look that has too few seeds to say "better" spends nothing: `counts` is False.
        """
        if not any(look["seeds"] == self.seeds for look in self.looks):
            self.looks.append({"seeds": self.seeds, "counts": counts, "created": _now()})
            self.write()


def what_is_asked(
    problem: Problem, contenders: Sequence[Contender], budget: Budget, trials: int, points: int,
    reference: str | None, margin: float | None, sampler: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All that two races in one directory must agree on; `sampler` if the tuning is adaptive."""
    asked: dict[str, Any] = {
        "problem": {"name": problem.name, "source": problem.source, "hash": problem.hash},
        "methods": [
            {
                "name": c.name,
                "spec": c.spec,
                "place": c.place,
                "version": c.version,
                "axes": [
                    json.loads(json.dumps(describe_axis(n, a), default=repr))
                    for n, a in c.space.items()
                ],
            }
            for c in contenders
        ],
        "budget": str(budget),
        "trials": trials,
        "points": points,
        "reference": reference,
        "margin": margin,
        "versions": versions(),
    }
    return asked if sampler is None else {**asked, "adaptive": dict(sampler)}


def default_directory(asked: Mapping[str, Any]) -> Path:
    """``race-<problem>-<hash>`` here: the same command finds the same directory."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", asked["problem"]["name"]).strip("-") or "problem"
    return Path(f"race-{name}-{digest}")


def write_atomically(path: Path, text: str, *, sync: bool = True) -> None:
    """Write a file at once or not at all: a kill leaves the old one, or none.

    With `sync` this holds for a power failure, too; it costs some milliseconds.
    """
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def cannot_write(directory: Path, error: OSError) -> BadInput:
    """The sentence for a full disk or a read-only directory."""
    return BadInput(
        f"cannot write to {str(directory)!r}: {error.strerror or error}; what is finished is kept, "
        "and the same command goes on from there"
    )


def _tuned_by(sampler: Mapping[str, str] | None) -> str:
    """In words: an adaptive sampler with its version, on which the trials depend."""
    if sampler is None:
        return "by points of a Sobol sequence"
    return f"adaptively by {sampler['name']} {sampler['version']}"


def _own_file(name: str) -> bool:
    return name in ("runs", "ends", "report", "results.csv", "summary.json") or ".part-" in name


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
