"""A tracker measures what a dense Hessian says, changes nothing, and loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg import Training
from thalweg.curvature import Objective, hessian
from thalweg.inspect import Tracker
from thalweg.inspect.tracker import ritz_ends
from thalweg.numeric.operator import as_operator

loss = nn.functional.cross_entropy


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(30, 4, generator=draw), torch.randint(0, 3, (30,), generator=draw)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.2), nn.Tanh(), nn.Linear(5, 3))


def train(
    model: nn.Module, steps: int, tracker: Tracker | None = None, momentum: float = 0.5
) -> list[Tensor]:
    """Points after every step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=momentum)
    x, y = batch()
    points = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        if tracker is not None:
            tracker.step()
        points.append(nn.utils.parameters_to_vector(model.parameters()).detach().clone())
    return points


def test_measurements_are_those_of_the_dense_hessian(tmp_path: Path) -> None:
    model = network()
    tracker = Tracker(model, loss, batch(), every=4, path=tmp_path / "t.jsonl", products=12)
    points = train(model, 12, tracker)
    assert [row["step"] for row in tracker.rows] == [4, 8, 12]
    objective = Objective(Training(model, loss, [batch()]))
    for row in tracker.rows:
        x, before = points[row["step"] - 1], points[row["step"] - 2]
        with objective.put(x):
            H = hessian(objective).dense().double()
            assert row["loss"] == pytest.approx(objective.value(), rel=1e-6)
            norm = float(objective.gradient().norm())
        assert row["gradient_norm"] == pytest.approx(norm, rel=1e-5)
        eigenvalues = torch.linalg.eigvalsh(H)
        assert row["highest"] == pytest.approx(float(eigenvalues[-1]), rel=1e-3)
        assert row["lowest"] == pytest.approx(float(eigenvalues[0]), rel=2e-2)
        s = (x - before).double()
        sharp = float(s @ H @ s / (s @ s))
        assert row["directional_sharpness"] == pytest.approx(sharp, rel=1e-3, abs=1e-5)
        wide = 3 * (row["trace_high"] - row["trace"])
        assert abs(row["trace"] - float(H.trace())) <= wide


def test_training_is_the_same_with_a_tracker(tmp_path: Path) -> None:
    plain = train(network(), 9)
    model = network()
    tracked = train(model, 9, Tracker(model, loss, batch(), every=2, path=tmp_path / "t.jsonl"))
    assert all(torch.equal(a, b) for a, b in zip(plain, tracked, strict=True))
    assert model.training


def test_a_kill_loses_nothing_and_the_file_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "t.jsonl"
    model = network()
    first = Tracker(model, loss, batch(), every=2, path=path)
    train(model, 4, first)
    kept = path.read_text()
    assert [json.loads(line) for line in kept.splitlines()] == first.rows
    path.write_text(kept + '{"step": 6, "lo')  # killed while writing
    second = Tracker(model, loss, batch(), every=2, path=path)
    assert second.rows == first.rows and second.steps == 4 and path.read_text() == kept
    train(model, 2, second)
    assert [row["step"] for row in Tracker(model, loss, batch(), path=path).rows] == [2, 4, 6]


def test_warm_starts_find_more_than_cold_ones(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(300, 300, generator=draw, dtype=torch.float64))
    values = torch.linspace(-1, 1, 300, dtype=torch.float64)
    H: Any = as_operator(Q * values @ Q.T)
    starts = torch.randn(300, 2, generator=draw, dtype=torch.float64)
    (high, low), vectors = ritz_ends(H, starts, 6)
    (higher, lower), _ = ritz_ends(H, vectors, 6)
    assert -1 - 1e-12 <= lower < low < 0 < high < higher <= 1 + 1e-12


def test_small_and_degenerate_operators() -> None:
    for matrix in (torch.eye(1), torch.zeros(4, 4), torch.diag(torch.tensor([1.0, 1.0, -2.0]))):
        n = len(matrix)
        starts = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
        if n == 1:
            starts = starts[:, :1]
        (high, low), _ = ritz_ends(as_operator(matrix), starts, 8)  # type: ignore[arg-type]
        eigenvalues = torch.linalg.eigvalsh(matrix)
        assert high == pytest.approx(float(eigenvalues[-1]), abs=1e-6)
        assert low == pytest.approx(float(eigenvalues[0]), abs=1e-6)


def test_a_model_of_one_parameter(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    probe = (torch.ones(2, 1), torch.zeros(2, 1))
    tracker = Tracker(model, nn.functional.mse_loss, probe, path=tmp_path / "t.jsonl")
    row = tracker.measure()
    assert row["highest"] == row["lowest"] == pytest.approx(2.0)
    assert row["trace"] == pytest.approx(2.0)


def test_divergence_is_written_down_and_raises_nothing(tmp_path: Path) -> None:
    model = network()
    tracker = Tracker(model, loss, batch(), every=1, path=tmp_path / "t.jsonl")
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    row = tracker.step()
    assert row is not None and row["loss"] is None and "finite" in row["refused"]


def test_pages(tmp_path: Path) -> None:
    model = network()
    tracker = Tracker(model, loss, batch(), every=2, path=tmp_path / "t.jsonl", name="<i>run</i>")
    train(model, 6, tracker)
    both = tracker.page(tmp_path / "both", budget=60).read_text()
    assert "On the way" in both and "Certificate" in both and "probe batch alone" in both
    curves = tracker.page(tmp_path / "curves", budget=0)
    text = curves.read_text()
    assert "On the way" in text and "Certificate" not in text and "<i>run" not in text
    record = json.loads((curves.parent / "inspection.json").read_text())
    assert record["curves"]["step"] == [2, 4, 6]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"every": 0}, "every must be an integer >= 1"),
        ({"products": 1}, "products must be an integer >= 2"),
        ({"mode": "test"}, "mode must be"),
    ],
)
def test_bad_arguments(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Tracker(network(), loss, batch(), path=tmp_path / "t.jsonl", **how)


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my notes\n")
    with pytest.raises(ValueError, match="a new file or a tracker's"):
        Tracker(network(), loss, batch(), path=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "my notes\n"
