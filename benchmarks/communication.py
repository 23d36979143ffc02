"""Bytes that one of two processes hands to collectives in a step; called by `first_order.py`.

``python communication.py '[["Lion"], [512, 512]]'`` prints ``{"Lion": 0}``.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from thalweg import optim

TENSORS = 2
COLLECTIVES = "_c10d_functional"  # what DTensors call; each calls one of c10d inside


class Counter(TorchDispatchMode):
    """Adds up the bytes of the tensors that collectives are called with."""

    sent = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = func.name().partition("::")
        if space == COLLECTIVES and not name.startswith(("wait", "_wrap")):
            given = args[0] if isinstance(args[0], list | tuple) else [args[0]]
            self.sent += sum(t.numel() * t.element_size() for t in given if isinstance(t, Tensor))
        return func(*args, **(kwargs or {}))


def work(rank: int, port: int, names: Sequence[str], shape: Sequence[int]) -> None:
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    found = {}
    for name in names:
        torch.manual_seed(0)
        params = [
            torch.nn.Parameter(distribute_tensor(torch.randn(*shape), mesh, [Shard(0)]))
            for _ in range(TENSORS)
        ]
        optimizer = getattr(optim, name)(params, lr=1e-3, compile=False)
        for _ in range(2):
            for p in params:
                p.grad = distribute_tensor(torch.randn(*shape), mesh, [Shard(0)])
            with Counter() as counter:
                optimizer.step()
        found[name] = counter.sent
    if rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def main() -> None:
    names, shape = json.loads(sys.argv[1])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.set_num_threads(1)
    mp.spawn(work, args=(port, names, shape), nprocs=2)


if __name__ == "__main__":
    main()
