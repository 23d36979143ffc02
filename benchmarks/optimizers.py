"""One step of an optimizer against the peer its card names."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence
from importlib.util import find_spec

import bare_loop
import torch
from timing import Comparison, Contender, Sample, Settings, Suite, interleaved
from torch import Tensor

from thalweg import optim

LR = 1e-4
LARGE = [(350_000,)] * 24  # a network of 8.4 million parameters
SMALL = [(40, 50)] * 200  # 0.4 million: the calls cost more than the arithmetic
TINY = [(4, 5)] * 3

Step = Callable[[], object]
Build = Callable[[Sequence[Tensor], bool], Step]


def ours(cls: Callable[..., torch.optim.Optimizer], **how: object) -> Build:
    return lambda params, compile: cls(params, **{"compile": compile, **how}).step


def theirs(cls: Callable[..., torch.optim.Optimizer], **how: object) -> Build:
    return lambda params, _: cls(params, **{"lr": LR, **how}).step


def sgd_and_sphere_noise(params: Sequence[Tensor], _: bool) -> Step:
    """What a user writes by hand: a gradient plus a random point of the unit sphere."""
    optimizer = torch.optim.SGD(params, lr=LR)

    def step() -> None:
        gradients = [p.grad for p in params]
        noise = [torch.randn_like(p) for p in params]
        length = math.sqrt(sum(float(n.square().sum()) for n in noise))
        for p, n in zip(params, noise, strict=True):
            p.grad = n.div_(length).add_(p.grad)
        optimizer.step()
        for p, g in zip(params, gradients, strict=True):
            p.grad = g

    return step


def sgd_and_normal_noise(params: Sequence[Tensor], _: bool) -> Step:
    """Langevin dynamics by hand."""
    optimizer = torch.optim.SGD(params, lr=LR)

    @torch.no_grad()
    def step() -> None:
        optimizer.step()
        for p in params:
            p.add_(torch.randn_like(p), alpha=math.sqrt(2 * LR))

    return step


def heavyball_adamw(params: Sequence[Tensor], compile: bool) -> Step:
    import heavyball

    if not compile:
        heavyball.utils.compile_mode = None
    return heavyball.AdamW(params, lr=LR).step


def stable_adamw(params: Sequence[Tensor], _: bool) -> Step:
    import pytorch_optimizer  # its AdamW is torch's own class

    return pytorch_optimizer.StableAdamW(params, lr=LR).step


T = torch.optim
BUILD: dict[str, Build] = {
    "Adam": ours(optim.Adam, lr=LR),
    "AdamW": ours(optim.AdamW, lr=LR),
    "Adam, eager": ours(optim.Adam, lr=LR, compile=False),
    "AdamW, eager": ours(optim.AdamW, lr=LR, compile=False),
    "AMSGrad": ours(optim.AMSGrad, lr=LR),
    "RMSProp": ours(optim.RMSProp, lr=LR),
    "AdaGrad": ours(optim.AdaGrad, lr=LR),
    "AdaGradNorm": ours(optim.AdaGradNorm, lr=LR),
    "AcceleGrad": ours(optim.AcceleGrad, diameter=1.0),
    "SGD": ours(optim.SGD, lr=LR),
    "SGD, momentum": ours(optim.SGD, lr=LR, momentum=0.9),
    "PerturbedSGD": ours(optim.PerturbedSGD, lr=LR),
    "SGLD": ours(optim.SGLD, lr=LR),
    "torch SGD": theirs(T.SGD),
    "torch SGD foreach": theirs(T.SGD, foreach=True),
    "torch SGD fused, momentum": theirs(T.SGD, fused=True, momentum=0.9),
    "torch SGD + noise on the sphere": sgd_and_sphere_noise,
    "torch SGD + normal noise": sgd_and_normal_noise,
    "torch AdamW": theirs(T.AdamW),
    "torch AdamW foreach": theirs(T.AdamW, foreach=True),
    "torch AdamW fused": theirs(T.AdamW, fused=True),
    "torch Adam fused": theirs(T.Adam, fused=True),
    "torch Adam fused, amsgrad": theirs(T.Adam, fused=True, amsgrad=True),
    "torch RMSprop foreach": theirs(T.RMSprop, foreach=True),
    "torch Adagrad foreach": theirs(T.Adagrad, foreach=True),
    "AMSGrad as a bare loop in C": bare_loop.amsgrad,
    "heavyball AdamW": heavyball_adamw,
    "pytorch_optimizer StableAdamW": stable_adamw,
}
ADAPTIVE = ("Adam", "AdamW", "AMSGrad", "RMSProp", "AdaGrad")
OTHERS = ("torch AdamW", "torch AdamW foreach") + tuple(
    name
    for package, name in (
        ("heavyball", "heavyball AdamW"),
        ("pytorch_optimizer", "pytorch_optimizer StableAdamW"),
    )
    if find_spec(package)
)


def time_steps(
    shapes: Sequence[tuple[int, ...]], names: Collection[str], settings: Settings
) -> dict[str, Sample]:
    """Milliseconds per step; every optimizer has parameters of its own, all see one gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = TINY if settings.tiny else shapes
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [torch.randn(shape, generator=generator) for shape in shapes]

    def contender(name: str) -> Contender:
        params = [p.clone().requires_grad_() for p in start]

        def prepare() -> None:  # some optimizers take the gradients away or write into them
            for p, g in zip(params, gradients, strict=True):
                p.grad = g.clone()

        return Contender(BUILD[name](params, not settings.tiny), prepare)

    contenders = {name: contender(name) for name in BUILD if name in names}
    return interleaved(contenders, settings.rounds, settings.warm_up)


def _steps(name: str, shapes: Sequence[tuple[int, ...]], comparisons: list[Comparison]) -> Suite:
    return Suite(name, "ms", comparisons, functools.partial(time_steps, shapes))


STEP = "one step"
BARE = (
    [
        Comparison(STEP, "AMSGrad as a bare loop in C", "torch AdamW fused"),
        Comparison(STEP, "AMSGrad", "AMSGrad as a bare loop in C"),
    ]
    if bare_loop.COMPILER
    else []
)
_large = _steps(
    "one step, 8.4 M parameters in 24 tensors",
    LARGE,
    [
        *(Comparison(STEP, name, "torch AdamW fused", 1.15) for name in ADAPTIVE),
        # AMSGrad keeps a slot more: 5 reads and 4 writes per parameter, where AdamW has 4 and 3.
        Comparison(f"{STEP}, 9 words to 7", "AMSGrad", "torch AdamW fused", round(1.15 * 9 / 7, 3)),
        *BARE,
        Comparison(STEP, "SGD, momentum", "torch SGD fused, momentum", 1.15),
        *(Comparison(STEP, "AdamW", name) for name in OTHERS),
    ],
)
_small = _steps(
    "one step, 0.4 M parameters in 200 tensors",
    SMALL,
    [
        *(
            Comparison(STEP, name, "torch AdamW fused", 1.0)
            for name in (*ADAPTIVE, "SGD, momentum")
        ),
        Comparison(STEP, "SGD, momentum", "torch SGD fused, momentum"),
        *(Comparison(STEP, name, "torch AdamW", 1.0) for name in ("Adam, eager", "AdamW, eager")),
        *(Comparison(STEP, "AdamW", name) for name in OTHERS),
    ],
)
_cards = _steps(
    "one step, the method's own peer, 8.4 M parameters",
    LARGE,
    [
        Comparison(STEP, "SGD", "torch SGD foreach", 1.15),
        Comparison(STEP, "PerturbedSGD", "torch SGD", 2.0),
        Comparison(STEP, "PerturbedSGD", "torch SGD + noise on the sphere"),
        Comparison(STEP, "SGLD", "torch SGD", 2.0),
        Comparison(STEP, "SGLD", "torch SGD + normal noise"),
        Comparison(STEP, "AdaGradNorm", "torch SGD foreach", 1.3),
        Comparison(STEP, "AdaGrad", "torch Adagrad foreach", 1.15),
        Comparison(STEP, "RMSProp", "torch RMSprop foreach", 1.15),
        Comparison(STEP, "AcceleGrad", "torch SGD", 3.0),
        Comparison(STEP, "Adam", "torch Adam fused", 1.1),
        Comparison(STEP, "AMSGrad", "torch Adam fused, amsgrad", 1.2),
    ],
)
SUITES = (_large, _small, _cards)
