from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from thalweg.core import Training
from thalweg.data import Batches

mse = nn.functional.mse_loss


def make(**options: object) -> Training:
    model = nn.Linear(2, 1)
    batch = (torch.ones(8, 2), torch.zeros(8, 1))
    return Training(**{"model": model, "loss": mse, "data": [batch], **options})


def test_batch_loss_of_a_pair() -> None:
    training = make()
    (inputs, target) = batch = training.data[0]
    loss = training.batch_loss(batch)
    assert torch.equal(loss, mse(training.model(inputs), target))
    loss.backward()
    assert training.model.weight.grad is not None


def test_batch_loss_of_a_mapping() -> None:
    class Masked(nn.Linear):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return super().forward(x) * mask

    batch = {"x": torch.ones(3, 2), "mask": torch.tensor([[1.0], [0.0], [1.0]])}
    training = Training(Masked(2, 1), lambda out, b: (out * b["mask"]).mean(), [batch])
    expected = (training.model(**batch) * batch["mask"]).mean()
    assert torch.equal(training.batch_loss(batch), expected)


def test_measure_without_evaluate_is_the_mean_loss() -> None:
    batches = [(torch.full((2, 2), v), torch.zeros(2, 1)) for v in (1.0, 2.0)]
    training = make(data=batches)
    mean = sum(training.batch_loss(b).item() for b in batches) / 2
    assert training.measure("validation") == {"loss": pytest.approx(mean, rel=1e-12)}
    assert training.measure("test") == training.measure("validation")


def test_measure_leaves_each_module_mode_as_found() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.Linear(2, 1))
    model.train()
    model[1].eval()
    modes: list[list[bool]] = []

    def evaluate(model: nn.Module, split: str) -> dict[str, float]:
        modes.append([module.training for module in model.modules()])
        return {"loss": 1.0}

    before = {key: value.clone() for key, value in model.state_dict().items()}
    make(model=model, evaluate=evaluate).measure("test")
    make(model=model).measure("test")
    assert modes == [[False] * 5]
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_measure_restores_the_mode_after_an_error() -> None:
    def evaluate(model: nn.Module, split: str) -> dict[str, float]:
        raise ZeroDivisionError

    training = make(evaluate=evaluate)
    with pytest.raises(ZeroDivisionError):
        training.measure("test")
    assert training.model.training


def test_measure_makes_no_graph_and_leaves_gradients_alone() -> None:
    seen: list[bool] = []

    def evaluate(model: nn.Module, split: str) -> dict[str, Tensor]:
        seen.append(torch.is_grad_enabled())
        return {"loss": model(torch.ones(1, 2)).sum()}

    training = make(evaluate=evaluate)
    assert isinstance(training.measure("test")["loss"], float)
    assert seen == [False] and training.model.weight.grad is None


@pytest.mark.parametrize("given", ["DataLoader", "random evaluate"])
def test_measure_leaves_the_random_generator_as_found(given: str) -> None:
    if given == "DataLoader":
        pairs = TensorDataset(torch.ones(8, 2), torch.zeros(8, 1))
        training = make(data=DataLoader(pairs, batch_size=4, shuffle=True))
    else:
        training = make(evaluate=lambda model, split: {"loss": torch.rand(())})
    before = torch.get_rng_state()
    training.measure("validation")
    assert torch.equal(before, torch.get_rng_state())


def test_measure_does_not_use_up_an_epoch_of_batches() -> None:
    data = Batches(torch.randn(9, 2), torch.randn(9, 1), batch_size=3, seed=5)
    training = make(data=data)
    training.measure("validation")
    for (got, _), (expected, _) in zip(data, data.epoch(0), strict=True):
        assert torch.equal(got, expected)


def test_the_deciding_metric_comes_first() -> None:
    def evaluate(model: nn.Module, split: str) -> dict[str, float]:
        return {"loss": 1.0, "error": 0.5 if split == "validation" else 0.6}

    assert list(make(evaluate=evaluate).measure("validation")) == ["loss", "error"]
    chosen = make(evaluate=evaluate, metric="error").measure("test")
    assert list(chosen.items()) == [("error", 0.6), ("loss", 1.0)]


def test_unknown_metric_and_split_are_refused() -> None:
    training = make(evaluate=lambda model, split: {"loss": 1.0}, metric="accuracy")
    with pytest.raises(ValueError, match=r"names evaluate returns \(loss\), got 'accuracy'"):
        training.measure("validation")
    with pytest.raises(ValueError, match="got 'accuracy'"):
        make(metric="accuracy").measure("validation")
    with pytest.raises(ValueError, match=r"none.*got None"):
        make(evaluate=lambda model, split: {}).measure("validation")
    with pytest.raises(ValueError, match="split must be one of 'validation', 'test', got 'train'"):
        make().measure("train")
    with pytest.raises(ValueError, match="data must hold at least one batch"):
        make(data=[]).measure("validation")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": lambda x: x}, TypeError, "model must be a torch.nn.Module, got function"),
        ({"loss": "mse"}, TypeError, "loss must be callable, got str"),
        ({"data": 3}, TypeError, "data must be an iterable of batches, got int"),
        ({"data": iter([1])}, TypeError, "more than once .* one-pass iterator list_iterator"),
        ({"goal": "maximum"}, ValueError, r"goal must be .*did you mean 'max'"),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**options)


def test_a_generator_function_called_once_is_refused() -> None:
    with pytest.raises(TypeError, match="one-pass iterator generator"):
        make(data=(batch for batch in ()))


def test_from_function_copies_the_start() -> None:
    start = torch.tensor([1.0, 2.0])
    training = Training.from_function(lambda x: (x**2).sum(), start, minimum=0.0, name="square")
    optimizer = torch.optim.SGD(training.model.parameters(), lr=0.25)
    for batch in training.data:
        training.batch_loss(batch).backward()
    optimizer.step()
    assert start.tolist() == [1.0, 2.0]
    assert training.model().tolist() == [0.5, 1.0]
    assert training.measure("validation") == {"loss": 1.25}
    assert (training.minimum, training.name) == (0.0, "square")


def test_from_function_of_a_tree() -> None:
    start = {"a": torch.ones(2, dtype=torch.float64), "b": (torch.zeros(1), torch.ones(1))}
    training = Training.from_function(lambda x: x["a"].sum() + x["b"][1].sum(), start)
    assert training.batch_loss(None).item() == 3.0
    point = training.model()
    assert list(point) == ["a", "b"] and isinstance(point["b"], tuple)
    assert [p.dtype for p in training.model.parameters()] == [torch.float64] + 2 * [torch.float32]


def test_from_function_refuses_what_it_cannot_move() -> None:
    with pytest.raises(TypeError, match="function must be callable, got float"):
        Training.from_function(1.0, torch.ones(1))
    with pytest.raises(TypeError, match=r"start must be a real floating-point.*int64"):
        Training.from_function(torch.sum, torch.ones(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one tensor"):
        Training.from_function(torch.sum, {})
