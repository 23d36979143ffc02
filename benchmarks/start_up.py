"""What happens once in a process: imports and compilations, each measured in fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from importlib.util import find_spec

from timing import Comparison, Sample, Settings, Suite

#: What is imported after torch.
IMPORTS = {
    "import thalweg": "import thalweg",
    "from thalweg import optim": "from thalweg import optim",
    "import heavyball": "import heavyball",
    "import pytorch_optimizer": "import pytorch_optimizer",
}
RULES = {
    "SGD": "SGD(p, lr=1e-4)",
    "SGD, momentum": "SGD(p, lr=1e-4, momentum=0.9)",
    "Adam": "Adam(p)",
    "AdamW": "AdamW(p)",
    "AMSGrad": "AMSGrad(p)",
    "RMSProp": "RMSProp(p)",
    "AdaGrad": "AdaGrad(p)",
    "AdaGradNorm": "AdaGradNorm(p)",
    "PerturbedSGD": "PerturbedSGD(p)",
    "SGLD": "SGLD(p)",
    "AcceleGrad": "AcceleGrad(p, diameter=1.0)",
    "Lion": "Lion(p)",
    "EGDD": "EGDD(p)",
    "AdamP": "AdamP(p)",
    "NovoGrad": "NovoGrad(p)",
    "SASA": "SASA(p)",
}

_IMPORT = """
import time, torch
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
"""

#: The first compilation of a process loads torch's compiler, whatever is compiled; this is that
#: alone, and a rule when it is already there.
ANYTHING, LATER = "torch.compile of x + 1", "Adam, after another rule"

# The first step compiles; what is over and above the later ones is the compiler.
_COMPILE = """
import time, torch
from thalweg.optim import *
torch.set_num_threads({threads})
p = [torch.ones(2**18).requires_grad_()]
p[0].grad = torch.ones_like(p[0])

def anything():
    compiled = torch.compile(lambda x: x + 1)
    return lambda: compiled(p[0].grad)

def step(optimizer):
    optimizer.compile = True
    return optimizer.step

for make in {makes}:
    run = eval(make)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
print(times[0] - min(times[1:]))
"""

_COMPILATIONS = """
import json, torch
from thalweg.optim import *
from thalweg.optim.engine.flat import _compiled as flat
from thalweg.optim.engine.tensorwise import _compiled as whole
torch.set_num_threads({threads})
found = {{}}
for name, make in {rules}.items():
    before = len(flat) + len(whole)
    for size in {sizes}:  # below and above the size up to which tensors are packed
        p = [torch.ones(size, 3).requires_grad_(), torch.ones(size).requires_grad_()]
        optimizer = eval(make)
        optimizer.compile = True
        for k in range(4):
            for group in optimizer.param_groups:
                group["lr"] = 1e-4 / (k + 1)
            for q in p:
                q.grad = torch.ones_like(q)
            optimizer.step()
    found[name] = len(flat) + len(whole) - before
print(json.dumps(found))
"""


def fresh(program: str, settings: Settings) -> str:
    """The last line that `program` prints in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"a fresh process failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def import_seconds(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Seconds of an import on top of torch's; the first round only writes the byte code."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS if name in names}
    for turn in range(settings.processes + (not settings.tiny)):
        for name, values in times.items():
            seconds = float(fresh(_IMPORT.format(statement=IMPORTS[name]), settings))
            if turn or settings.tiny:
                values.append(seconds)
    return {name: Sample(values) for name, values in times.items()}


def compile_seconds(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Seconds of a rule's first step beyond a later one's; the first round fills the disk cache."""
    programs = {name: [f"step({rule})"] for name, rule in RULES.items()}
    programs |= {ANYTHING: ["anything()"], LATER: [f"step({RULES[n]})" for n in ("SGD", "Adam")]}
    times: dict[str, list[float]] = {name: [] for name in programs if name in names}
    for turn in range(settings.processes + (not settings.tiny)):
        for name, values in times.items():
            program = _COMPILE.format(makes=programs[name], threads=settings.threads)
            seconds = float(fresh(program, settings))
            if turn or settings.tiny:
                values.append(seconds)
    return {name: Sample(values) for name, values in times.items()}


def compilations(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """How often a rule was compiled for several sizes and learning rates."""
    rules = {name: make for name, make in RULES.items() if name in names}
    sizes = (50, 30_000) if settings.tiny else (1, 7, 50, 4000, 30_000, 400_000)
    program = _COMPILATIONS.format(rules=rules, sizes=sizes, threads=settings.threads)
    counts = json.loads(fresh(program, settings))
    return {name: Sample([float(count)]) for name, count in counts.items()}


#: Rules that are several loops. EGDD: the sums that its scale needs, in rows and over packed
#: tensors, and the update. AdamP: matrices, vectors, and both with lengths of 1. NovoGrad: tensors
#: with numbers of their own, one by one and packed.
LOOPS = {"EGDD": 3.0, "AdamP": 4.0, "NovoGrad": 2.0}

_peers = [name for name in IMPORTS if "thalweg" not in name and find_spec(name.split()[1])]
SUITES = (
    Suite(
        "import, on top of torch",
        "s",
        [
            Comparison("import", "import thalweg", limit=0.15),
            Comparison("import", "from thalweg import optim", limit=0.15),
            *(Comparison("import", "from thalweg import optim", name) for name in _peers),
        ],
        import_seconds,
    ),
    Suite(
        "seconds to compile, warm disk cache",
        "s",
        [
            *(Comparison("first in its process", name, limit=3.0) for name in RULES),
            Comparison("first in its process", "Adam", ANYTHING),
            Comparison("first in its process", "AdamP", ANYTHING),
            Comparison("first in its process", ANYTHING, limit=3.0),
            Comparison("later in a process", LATER, limit=3.0),
            Comparison("later in a process", LATER, "Adam"),
        ],
        compile_seconds,
    ),
    Suite(
        "compilations over 12 shapes and 4 learning rates",
        "compilations",
        [Comparison("compile", name, limit=LOOPS.get(name, 1)) for name in RULES],
        compilations,
    ),
)
