"""One of the two processes of the distributed clauses; started by `thalweg.testing.distributed`.

Both ranks see the same batch, so that the averaged gradients are bit for bit those of the single
process and every difference is the optimizer's own. The layers have odd sizes and the last bias
one element, so that shards are uneven and one is empty. Tensor parallelism needs even sizes, and
leaves the last layer whole: ordinary parameters beside split and replicated ones.
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

from thalweg.testing.resume import first_failure
from thalweg.testing.subject import STEPS, loss_at, message, mlp, same_bits, seed

SIZES = (8, 15, 1)
SPLIT = (8, 16, 8, 4)


def train(model: nn.Module, optimizer: Optimizer, steps: range, outputs: int = SIZES[-1]) -> None:
    """Steps on the batches that all ranks see."""
    for t in steps:
        seed(t)
        optimizer.zero_grad(set_to_none=True)
        loss_at(model, t, outputs).backward()
        optimizer.step()


def whole(model: nn.Module) -> list[Tensor]:
    """All parameters in full; gathering is a collective, so every rank calls this."""
    return [
        (p.full_tensor() if hasattr(p, "full_tensor") else p).detach() for p in model.parameters()
    ]


def away(got: list[Tensor], expected: list[Tensor], *, bitwise: bool = False) -> str | None:
    """The first parameter that is off, in words, or None."""
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        if not (same_bits(a, b) if bitwise else torch.allclose(a, b, rtol=1e-4, atol=1e-5)):
            return f"parameter {index} off by {(a - b).abs().max().item():.2g}"
    return None


def main(folder: str, rank: int, module: str, name: str, bias: bool, hyper: str) -> None:
    """Run all stages as one of the ranks, and log what was found."""
    torch.set_num_threads(1)
    cls: Any = importlib.import_module(module)
    for part in name.split("."):
        cls = getattr(cls, part)
    # Bytes our own parent process wrote on the command line, from no file.
    arguments = pickle.loads(bytes.fromhex(hyper))

    def build(
        wrap: Callable[[nn.Module], nn.Module], sizes: tuple[int, ...] = SIZES
    ) -> tuple[nn.Module, Optimizer]:
        model = wrap(mlp(sizes, bias=bias))
        return model, cls(model.parameters(), **arguments)

    def trained(
        wrap: Callable[[nn.Module], nn.Module], sizes: tuple[int, ...] = SIZES
    ) -> list[Tensor]:
        run = build(wrap, sizes)
        train(*run, range(2 * STEPS), sizes[-1])
        return whole(run[0])

    expected, expected_split = (trained(lambda model: model, sizes) for sizes in (SIZES, SPLIT))

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
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    mesh = init_device_mesh("cpu", (2,))

    def shard(model: nn.Module) -> nn.Module:
        fully_shard(model, mesh=mesh)
        return model

    def split(model: nn.Module) -> nn.Module:
        return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})

    def ddp() -> str | None:
        return away(trained(nn.parallel.DistributedDataParallel), expected)

    def fsdp() -> str | None:
        return away(trained(shard), expected)

    def tensor_parallel() -> str | None:
        return away(trained(split, SPLIT), expected_split)

    def resume() -> str | None:
        source, in_memory, on_disk = build(shard), build(shard), build(shard)
        train(*source, range(STEPS))
        source[1].zero_grad(set_to_none=True)
        saved = copy.deepcopy(get_optimizer_state_dict(*source))
        set_optimizer_state_dict(*in_memory, optim_state_dict=saved)
        checkpoint = str(Path(folder) / "checkpoint")
        place = get_optimizer_state_dict(*on_disk)
        with first_failure():
            save(get_optimizer_state_dict(*source), checkpoint_id=checkpoint)
            load(place, checkpoint_id=checkpoint)
        set_optimizer_state_dict(*on_disk, optim_state_dict=place)
        for twin in (in_memory, on_disk):
            twin[0].load_state_dict(copy.deepcopy(source[0].state_dict()))
        for run in (source, in_memory, on_disk):
            train(*run, range(STEPS, 2 * STEPS))
        for name, twin in (("in memory", in_memory), ("on disk", on_disk)):
            if gap := away(whole(twin[0]), whole(source[0]), bitwise=True):
                return f"{gap} {name}"
        return None

    stages = {"DDP": ddp, "FSDP2": fsdp, "FSDP2 resume": resume, "tensor parallel": tensor_parallel}
    for stage, check in stages.items():
        try:
            problem = check()
        except Exception as error:
            problem = message(error)
        print(json.dumps([stage, problem]), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    folder, rank, module, name, bias, hyper = sys.argv[1:]
    main(folder, int(rank), module, name, bias == "1", hyper)
