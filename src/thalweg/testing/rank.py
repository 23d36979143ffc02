"""One of the two processes of the distributed clauses; started by `thalweg.testing.distributed`.

Both ranks see the same batch, so that the averaged gradients are bit for bit those of the single
process and every difference is the optimizer's own. The layers have odd sizes and the last bias
one element, so that shards are uneven and one is empty.
"""

from __future__ import annotations

import copy
import importlib
import json
import pickle
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from thalweg.testing.subject import STEPS, loss_at, message, mlp, same_bits, seed

SIZES = (8, 15, 1)


def train(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for t in steps:
        seed(t)
        optimizer.zero_grad(set_to_none=True)
        loss_at(model, t, outputs=SIZES[-1]).backward()
        optimizer.step()


def whole(model: nn.Module) -> list[Tensor]:
    """All parameters in full; gathering is a collective, so every rank calls this."""
    return [
        (p.full_tensor() if hasattr(p, "full_tensor") else p).detach() for p in model.parameters()
    ]


def away(got: list[Tensor], expected: list[Tensor], *, bitwise: bool = False) -> str | None:
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        if not (same_bits(a, b) if bitwise else torch.allclose(a, b, rtol=1e-4, atol=1e-5)):
            return f"parameter {index} off by {(a - b).abs().max().item():.2g}"
    return None


def main(folder: str, rank: int, module: str, name: str, bias: bool, hyper: str) -> None:
    torch.set_num_threads(1)
    cls: Any = importlib.import_module(module)
    for part in name.split("."):
        cls = getattr(cls, part)
    # Bytes our own parent process wrote on the command line, from no file.
    arguments = pickle.loads(bytes.fromhex(hyper))

    def build(wrap: Callable[[nn.Module], nn.Module]) -> tuple[nn.Module, Optimizer]:
        model = wrap(mlp(SIZES, bias=bias))
        return model, cls(model.parameters(), **arguments)

    single = build(lambda model: model)
    train(*single, range(2 * STEPS))
    expected = whole(single[0])

    dist.init_process_group(
        "gloo",
        init_method=f"file://{Path(folder) / 'store'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))

    def shard(model: nn.Module) -> nn.Module:
        fully_shard(model, mesh=mesh)
        return model

    def ddp() -> str | None:
        run = build(nn.parallel.DistributedDataParallel)
        train(*run, range(2 * STEPS))
        return away(whole(run[0]), expected)

    def fsdp() -> str | None:
        run = build(shard)
        train(*run, range(2 * STEPS))
        return away(whole(run[0]), expected)

    def resume() -> str | None:
        source, twin = build(shard), build(shard)
        train(*source, range(STEPS))
        source[1].zero_grad(set_to_none=True)
        saved = copy.deepcopy(get_optimizer_state_dict(*source))
        set_optimizer_state_dict(*twin, optim_state_dict=saved)
        twin[0].load_state_dict(copy.deepcopy(source[0].state_dict()))
        for run in (source, twin):
            train(*run, range(STEPS, 2 * STEPS))
        return away(whole(twin[0]), whole(source[0]), bitwise=True)

    for stage, check in (("DDP", ddp), ("FSDP2", fsdp), ("FSDP2 resume", resume)):
        try:
            problem = check()
        except Exception as error:
            problem = message(error)
        print(json.dumps([stage, problem]), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    folder, rank, module, name, bias, hyper = sys.argv[1:]
    main(folder, int(rank), module, name, bias == "1", hyper)
