"""First-order methods of networks: a step's time, its memory, and what it sends between processes.

A read costs more than a write: bars that scale with memory traffic count *words*, the numbers per
parameter that a step must read or write at least (fused AdamW: p, g and two moments read, p and
the moments written, 7).
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from memory import peak_bytes
from optimizers import LR, Build, Step, ours, theirs
from timing import Comparison, Contender, Sample, Settings, Suite, interleaved
from torch import Tensor, nn

from thalweg import optim
from thalweg.nn import MomentumLSTM

MATRICES = [(592, 592)] * 24  # 8.4 million parameters
TINY = [(4, 5)] * 3
LENGTH, BATCH, INPUT, HIDDEN = 64, 32, 64, 128

WORDS = {"AdamW": 7, "Lion": 5, "EGDD": 11}


def package(name: str, cls: str, **how: object) -> Build:
    """An optimizer of another package, imported only if its row is measured."""

    def build(params: Sequence[Tensor], _: bool) -> Step:
        found: Callable[..., torch.optim.Optimizer] = getattr(__import__(name), cls)
        return found(params, lr=LR, **how).step

    return build


ALWAYS = float("inf")
BUILD: dict[str, Build] = {
    "Lion": ours(optim.Lion, lr=LR),
    "EGDD": ours(optim.EGDD, lr=LR),
    "AdamP": ours(optim.AdamP, lr=LR),
    "AdamP, all projected": ours(optim.AdamP, lr=LR, delta=ALWAYS),
    "SGDP": ours(optim.SGDP, lr=LR, momentum=0.9),
    "SGDP, all projected": ours(optim.SGDP, lr=LR, momentum=0.9, delta=ALWAYS),
    "NovoGrad": ours(optim.NovoGrad, lr=LR),
    "SASA": ours(optim.SASA, lr=LR),
    "SGD, momentum": ours(optim.SGD, lr=LR, momentum=0.9),
    "torch AdamW fused": theirs(torch.optim.AdamW, fused=True),
    "torch SGD foreach, momentum": theirs(torch.optim.SGD, foreach=True, momentum=0.9),
    "adamp AdamP": package("adamp", "AdamP"),
    "adamp SGDP": package("adamp", "SGDP", momentum=0.9),
    "pytorch_optimizer AdamP": package("pytorch_optimizer", "AdamP"),
    "pytorch_optimizer SGDP": package("pytorch_optimizer", "SGDP", momentum=0.9),
    "pytorch_optimizer NovoGrad": package("pytorch_optimizer", "NovoGrad"),
}


def time_steps(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Milliseconds per step; every optimizer has parameters of its own, all see one gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = TINY if settings.tiny else MATRICES
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [torch.randn(shape, generator=generator) for shape in shapes]

    def contender(name: str) -> Contender:
        params = [p.clone().requires_grad_() for p in start]

        def prepare() -> None:  # pytorch_optimizer's NovoGrad writes into the gradients
            for p, g in zip(params, gradients, strict=True):
                p.grad = g.clone()

        prepare()
        return Contender(BUILD[name](params, not settings.tiny), prepare)

    contenders = {name: contender(name) for name in BUILD if name in names}
    return interleaved(contenders, settings.rounds, settings.warm_up)


class CellLSTM(nn.Module):
    """An LSTM layer as one writes it with torch.nn.LSTMCell."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(input_size, hidden_size)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = c = x.new_zeros(x.shape[1], self.cell.hidden_size)
        outputs = []
        for x_t in x:
            h, c = self.cell(x_t, (h, c))
            outputs.append(h)
        return torch.stack(outputs), (h, c)


def time_layers(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Milliseconds of a layer, forward and backward."""
    length, batch, inputs, hidden = (
        (3, 2, 4, 5) if settings.tiny else (LENGTH, BATCH, INPUT, HIDDEN)
    )
    x = torch.randn(length, batch, inputs, generator=torch.Generator().manual_seed(0))
    layers: dict[str, nn.Module] = {
        "MomentumLSTM": MomentumLSTM(inputs, hidden),
        "torch LSTMCell in a loop": CellLSTM(inputs, hidden),
        "torch LSTM": nn.LSTM(inputs, hidden),
    }

    def both_ways(layer: nn.Module) -> None:
        layer(x)[0].sum().backward()

    contenders = {
        name: Contender(functools.partial(both_ways, layer), layer.zero_grad)
        for name, layer in layers.items()
        if name in names
    }
    return interleaved(contenders, settings.rounds, settings.warm_up)


PEAK = ("Lion", "EGDD", "AdamP, all projected", "SGDP, all projected", "NovoGrad", "SASA")


def step_memory(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Bytes at the peak of a step: state, parameters, gradients, and what comes on top."""
    found = {}
    shapes = TINY if settings.tiny else MATRICES
    for name in PEAK:
        if name not in names:
            continue
        params = [torch.ones(shape).requires_grad_() for shape in shapes]
        for p in params:
            p.grad = torch.ones_like(p)
        step = BUILD[name](params, not settings.tiny)
        step()
        optimizer = step.__self__  # type: ignore[attr-defined]
        held = optimizer.state_bytes() + sum(8 * p.numel() for p in params)
        found[_held(name)] = Sample([float(held)])
        found[name] = Sample([float(held + peak_bytes(step))])
    return found


def _held(name: str) -> str:
    return f"state, parameters and gradients of {name}"


SENDING = ("Lion", "LionK", "AdamP", "SGDP", "NovoGrad", "EGDD", "SASA")


def bytes_sent(names: Collection[str], settings: Settings) -> dict[str, Sample]:
    """Bytes that a process gives to collectives in a step; parameters are sharded over two."""
    chosen = [name for name in SENDING if name in names]
    program = Path(__file__).with_name("communication.py")
    shape = (8, 6) if settings.tiny else (512, 512)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), json.dumps([chosen, shape])],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{program.name} failed:\n{done.stderr}")
    counts = json.loads(done.stdout.splitlines()[-1])
    found = {name: Sample([float(counts[name])]) for name in chosen}
    whole = float(4 * shape[0] * shape[1])
    # A shard of p, g and of each slot: a rule that sees whole tensors gathers all of them once.
    found[NOTHING] = Sample([1.0])
    found[SCALARS] = Sample([3 * 8.0])
    found[GATHERED] = Sample([4 * whole / 2 * TENSORS])
    return found


TENSORS = 2
NOTHING = "nothing (1 byte)"
SCALARS = "three numbers"
GATHERED = "its shards of p, g and two slots"


def _scaled(name: str) -> float:
    return round(1.15 * WORDS[name] / WORDS["AdamW"], 3)


STEP, FUSED = "one step", "torch AdamW fused"
_installed = [name for name in ("adamp", "pytorch_optimizer") if find_spec(name)]
SUITES = (
    Suite(
        "one step of a first-order method, 8.4 M parameters in 24 matrices",
        "ms",
        [
            *(
                Comparison(f"{STEP}, {WORDS[name]} words to 7", name, FUSED, _scaled(name))
                for name in ("Lion", "EGDD")
            ),
            *(
                Comparison(STEP, name, FUSED, 1.5)
                for name in ("AdamP", "AdamP, all projected", "SGDP", "SGDP, all projected")
            ),
            Comparison(STEP, "NovoGrad", FUSED, 1.5),
            *(Comparison(STEP, "AdamP", f"{peer} AdamP", 0.333) for peer in _installed),
            *(Comparison(STEP, "SGDP", f"{peer} SGDP") for peer in _installed),
            *(
                Comparison(STEP, "NovoGrad", "pytorch_optimizer NovoGrad")
                for peer in _installed
                if peer == "pytorch_optimizer"
            ),
            # SASA is SALSA outside its line search; both peers keep a momentum, as it does.
            Comparison(STEP, "SASA", "SGD, momentum", 1.1),
            Comparison(STEP, "SASA", "torch SGD foreach, momentum", 1.1),
        ],
        time_steps,
    ),
    Suite(
        f"recurrent layer, forward and backward: {LENGTH} steps, batch {BATCH}, {HIDDEN} units",
        "ms",
        [
            Comparison("layer", "MomentumLSTM", "torch LSTMCell in a loop", 1.3),
            Comparison("layer", "MomentumLSTM", "torch LSTM"),
        ],
        time_layers,
    ),
    Suite(
        "peak memory of a step, 8.4 M parameters in 24 matrices",
        "MB",
        [Comparison("peak", name, _held(name), 1.1) for name in PEAK],
        step_memory,
    ),
    Suite(
        f"bytes a process sends in a step, {TENSORS} matrices of 512 x 512 on 2 processes",
        "bytes",
        [
            Comparison("sent", "Lion", NOTHING, 0.0),
            Comparison("sent", "LionK", NOTHING, 0.0),
            *(Comparison("sent", name, SCALARS, 1.0) for name in ("NovoGrad", "EGDD", "SASA")),
            *(Comparison("sent", name, GATHERED, 1.0) for name in ("AdamP", "SGDP")),
        ],
        bytes_sent,
    ),
)
