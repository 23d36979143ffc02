"""Ten million parameters are inspected within 4 GiB, all of the process counted."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from thalweg import Training
from thalweg.inspect import inspect
from thalweg.inspect.layers import _signs

LIMIT = 4.0  # GiB
BUDGET = 250  # products: 35 for the ends, more than the 26 vectors that fit, so there are restarts


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_million_parameters_within_four_gib() -> None:
    command = [sys.executable, "-W", "ignore", str(Path(__file__))]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    parameters, peak, skipped = told.stdout.strip().split(" ", 2)
    assert int(parameters) > 9_900_000
    assert 0.2 < float(peak) < LIMIT
    assert skipped == "Sharpness of Keskar et al."  # scipy's search alone would take 3.4 GiB


def test_signs_do_not_depend_on_how_many_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large:
        d, device, dtype = 2**23, torch.device("cpu"), torch.float32

    parts = [*_signs(Large, 6, torch.Generator().manual_seed(0))]  # type: ignore[arg-type]
    assert [part.shape[1] for part in parts] == [4, 2]
    generator = torch.Generator().manual_seed(0)
    for column in torch.cat(parts, 1).T:
        expected = torch.randint(0, 2, (Large.d,), generator=generator, dtype=torch.int8)
        assert torch.equal(column, 2.0 * expected - 1.0)


def _peak() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(512, 2048), nn.Tanh(), nn.Linear(2048, 2048), nn.Tanh(),
        nn.Linear(2048, 2300), nn.Tanh(), nn.Linear(2300, 10),
    )  # fmt: skip
    data = [(torch.randn(16, 512), torch.randint(0, 10, (16,)))]
    training = Training(model, nn.functional.cross_entropy, data)
    found = inspect(training, budget=BUDGET, gradient_tolerance=10.0)  # past the first test
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(found.certificate.d, f"{peak:.2f}", *found.skipped)


if __name__ == "__main__":
    _peak()
