"""Two processes with a shard of the data each find what one finds with all of it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from thalweg import Training
from thalweg.curvature import certify
from thalweg.inspect import inspect

ROWS = slice(0, 9), slice(9, None)
"""Of 24, and in batches of another size: shards need not be equal."""


def network(kind: str) -> Training:
    """Where its gradient is small: the mean over all rows is needed to see that."""
    torch.manual_seed(0)
    x = torch.randn(24, 4, dtype=torch.float64)
    y = torch.randint(0, 3, (24,))
    unit = nn.ReLU() if kind == "kinks" else nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 6), unit, nn.Linear(6, 3)).double()
    training = Training(model, nn.functional.cross_entropy, [(x, y)], name=kind)
    if kind == "stationary":

        class Decayed(nn.Module):
            """A ridge, so that there is a strict minimum to find."""

            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))

            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                return inputs @ self.weight.T

        decayed = Decayed()

        def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(output, target) + 0.1 * (decayed.weight**2).sum()

        training = Training(decayed, loss, [(x, y)], name=kind)
        optimizer = torch.optim.LBFGS(
            decayed.parameters(), max_iter=200, tolerance_grad=1e-10, tolerance_change=0,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            f = loss(decayed(x), y)
            f.backward()
            return f

        optimizer.step(closure)
    return training


def shard(training: Training, rank: int) -> Training:
    ((x, y),) = training.data
    mine = x[ROWS[rank]], y[ROWS[rank]]
    batches = list(zip(mine[0].split(4), mine[1].split(4), strict=True))
    return Training(training.model, training.loss, batches, name=training.name)


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    """Numbers to rounding, everything else exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            if key not in NOT_COMPARED:
                assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    elif isinstance(expected, float):
        # the error of a count of eigenvalues is the root of a difference of its shares
        least = 1e-5 if ".nullity" in where else 1e-10
        assert found == pytest.approx(expected, rel=1e-6, abs=least), where
    else:
        assert found == expected, where


NOT_COMPARED = {
    # rounding itself, and sentences with numbers of that size
    "gradient_noise", "hessian_noise", "assumptions", "reasons", "sentence",
    # directions have a sign, and steps along them with it
    "direction", "created", "seconds",
    "versions",
}  # fmt: skip


@pytest.mark.distributed
@pytest.mark.timeout(150)
def test_two_processes_find_what_one_finds() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", str(Path(__file__))]
    both = [
        subprocess.Popen(
            [*command, str(rank), str(port)], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=140)[1].decode() for process in both]
        assert [process.returncode for process in both] == [0, 0], "\n".join(told)
    finally:
        for process in both:
            process.kill()


def _one_of_two(rank: int, port: int) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        world = dist.group.WORLD
        for kind, eps, budget, verdict in (
            ("smooth", 1e-4, 60, "NOT_STATIONARY"),
            ("smooth", 10.0, 60, None),
            ("stationary", 1e-6, 60, "LOCAL_MINIMUM"),
            ("stationary", 1e-6, 4, None),  # Lanczos, and its random start
            ("kinks", 10.0, 60, None),
        ):
            alone = network(kind)
            expected = certify(alone, budget=budget, gradient_tolerance=eps)
            found = certify(shard(alone, rank), budget=budget, gradient_tolerance=eps, group=world)
            assert verdict is None or found.verdict.name == verdict, found
            assert_same(found.to_dict(), expected.to_dict(), f"certify {kind}")
        alone = network("smooth")
        expected = inspect(alone, budget=60).to_dict()
        found = inspect(shard(alone, rank), budget=60, group=world).to_dict()
        assert_same(found, expected, "inspect")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    _one_of_two(int(sys.argv[1]), int(sys.argv[2]))
