"""The objective: nothing of the user's is changed, and what cannot be measured is refused."""

from __future__ import annotations

import copy
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from thalweg import Training
from thalweg.curvature import (
    Objective,
    ekfac,
    fisher,
    generalized_gauss_newton,
    gradient_gram,
    hessian,
)
from thalweg.curvature.graphs import saved_bytes
from thalweg.data import Batches

N = 10


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 3)
    ).double()


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (N,), generator=generator)


def training(model: nn.Module | None = None, size: int = N) -> Training:
    x, y = rows()
    batches = list(zip(x.split(size), y.split(size)))
    return Training(model or network(), functional.cross_entropy, batches)


def reference(model: nn.Module) -> tuple[float, Tensor]:
    x, y = rows()
    measured = copy.deepcopy(model).eval()
    f = functional.cross_entropy(measured(x), y)
    g = torch.autograd.grad(f, list(measured.parameters()))
    return float(f.detach()), torch.cat([t.flatten() for t in g])


@pytest.mark.parametrize("size", (1, 3, N))
def test_value_and_gradient_are_those_of_all_rows(size: int) -> None:
    problem = training(size=size)
    f, g = reference(problem.model)
    objective = Objective(problem)
    value, gradient = objective.value_and_gradient()
    assert value == pytest.approx(f, rel=1e-12) and objective.value() == pytest.approx(f, rel=1e-12)
    torch.testing.assert_close(gradient, g)
    torch.testing.assert_close(objective.gradient(objective.start), g)


def test_another_point() -> None:
    problem = training(size=3)
    objective = Objective(problem)
    x = objective.start + 0.3
    with objective.put(x):
        there, gradient = reference(problem.model)
        torch.testing.assert_close(objective.start, x, rtol=0, atol=0)
    assert objective.value(x) == pytest.approx(there, rel=1e-12)
    torch.testing.assert_close(objective.gradient(x), gradient)
    assert objective.value() != pytest.approx(there, rel=1e-3)
    objective.write(x)
    assert objective.value() == pytest.approx(there, rel=1e-12)


def test_put_is_undone_bit_for_bit_after_an_error() -> None:
    problem = training()
    objective = Objective(problem)
    before = objective.start
    with pytest.raises(KeyError), objective.put(before * 3):
        raise KeyError
    assert torch.equal(objective.start, before)


def test_flatten_and_unflatten_are_inverse() -> None:
    objective = Objective(training())
    parts = objective.unflatten(objective.start)
    assert list(parts) == [name for name, _ in objective.training.model.named_parameters()]
    assert torch.equal(objective.flatten(parts), objective.start)
    with pytest.raises(ValueError, match=r"x must be a vector of shape \(\d+,\), got \(3,\)"):
        objective.value(torch.zeros(3))


# -- what is left as found ---------------------------------------------------------------------


def snapshot(model: nn.Module) -> list[Any]:
    parameters = list(model.parameters())
    return [
        *(p.detach().clone() for p in parameters),
        *(p.grad.clone() for p in parameters if p.grad is not None),
        *(b.clone() for b in model.buffers()),
        torch.get_rng_state(),
        torch.from_numpy(numpy.random.get_state()[1].astype("int64")),  # noqa: NPY002
        torch.tensor([hash(random.getstate())]),
        torch.tensor([module.training for module in model.modules()]),
        torch.tensor([p.requires_grad for p in parameters]),
        torch.tensor([p._version for p in parameters]),
        torch.tensor([id(p) for p in parameters]),
    ]


@pytest.mark.parametrize("mode", ("eval", "train"))
@pytest.mark.parametrize("memory", (2**30, 0))
def test_nothing_of_the_users_changes(mode: Any, memory: int) -> None:
    x, y = rows()
    model = network()
    model.train()
    model[1].eval()  # a mixture of modes
    functional.cross_entropy(model(x), y).backward()
    model[4].weight.grad = None
    if mode == "train":
        model[2].p = 0.0

    class Draws(Dataset[Any]):
        def __len__(self) -> int:
            return N

        def __getitem__(self, i: int) -> Any:
            torch.rand(1), numpy.random.random(), random.random()  # noqa: NPY002
            return x[i], y[i]

    problem = Training(model, functional.cross_entropy, DataLoader(Draws(), batch_size=N))
    before = snapshot(model)
    linear = ["0.weight", "4.weight", "4.bias"]

    def everything() -> None:
        objective = Objective(problem, mode=mode, memory=memory)
        objective.value(), objective.gradient()
        v = torch.randn(objective.d, 2, generator=torch.Generator().manual_seed(0)).double()
        hessian(objective) @ v
        generalized_gauss_newton(objective) @ v
        fisher(objective, kind="sampled") @ v
        if mode == "eval":
            fisher(objective, kind="empirical") @ v
            gradient_gram(objective).dense()
        ekfac(problem, linear, mode=mode)

    if mode == "train":
        with pytest.warns(UserWarning, match="batch normalization in train mode"):
            everything()
    else:
        everything()
    for a, b in zip(before, snapshot(model), strict=True):
        assert torch.equal(a, b)
    assert not any(module._forward_hooks for module in model.modules())


def test_under_no_grad_inference_mode_and_autocast() -> None:
    problem = training(network().float())
    x, y = rows()
    problem = Training(problem.model, functional.cross_entropy, [(x.float(), y)])
    expected = hessian(problem) @ torch.ones(63)
    with torch.no_grad():
        assert torch.equal(hessian(problem) @ torch.ones(63), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hessian(problem) @ torch.ones(63), expected)
    with torch.inference_mode():
        for memory in (2**30, 0):
            H = hessian(problem, memory=memory)
            for _ in range(2):
                torch.testing.assert_close(H @ torch.ones(63), expected)
        G = generalized_gauss_newton(problem) @ torch.ones(63, 2)
        ekfac(problem, ["0.weight"]), gradient_gram(problem).dense()
        data = [(x.float() + 0.0, y + 0)]  # made in inference mode too
        inside = Training(problem.model, functional.cross_entropy, data)
        torch.testing.assert_close(hessian(inside) @ torch.ones(63), expected)
    torch.testing.assert_close(generalized_gauss_newton(problem) @ torch.ones(63, 2), G)


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -1]


def test_flags_of_torch_are_restored_and_forward_mode_is_dispensable() -> None:
    problem = Training(Last(), functional.mse_loss, [(torch.randn(3, 2, 3), torch.zeros(3, 4))])
    before = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()
    # torch 2.13 has no forward mode through this backward pass
    lean = hessian(problem, memory=0)
    v = torch.randn(144, 2)
    torch.testing.assert_close(lean @ v, hessian(problem) @ v)
    assert (torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()) == before


# -- what is refused ---------------------------------------------------------------------------


def test_dropout_in_train_mode() -> None:
    with pytest.raises(ValueError, match=r"dropout in train mode \(module '2', p=0.5\)"):
        hessian(training(), mode="train")
    assert hessian(training()).shape == (63, 63)  # off in eval mode


def test_functional_dropout() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return functional.dropout(self.out(x))

    with pytest.raises(ValueError, match=r"deterministic, got losses .* functional.dropout"):
        hessian(training(Drops()))


def test_shuffled_data() -> None:
    x, y = rows()
    data = TensorDataset(x, y)
    model = network()
    for loader, word in (
        (DataLoader(data, batch_size=4, shuffle=True), "shuffle=True"),
        (
            DataLoader(data, batch_size=4, sampler=WeightedRandomSampler([1.0] * N, N)),
            "WeightedRandomSampler",
        ),
    ):
        with pytest.raises(ValueError, match=f"fixed order, got a DataLoader with {word}"):
            hessian(Training(model, functional.cross_entropy, loader))

    class Shuffled:
        def __iter__(self) -> Iterator[Any]:
            order = torch.randperm(N)[:7]
            yield x[order], y[order]

    with pytest.raises(ValueError, match="shuffled or augmented data"):
        hessian(Training(model, functional.cross_entropy, Shuffled()))
    in_order = Batches(x, y, batch_size=4)  # shuffles, but can be read in order, all rows
    expected = reference(model)[1]
    torch.testing.assert_close(
        Objective(Training(model, functional.cross_entropy, in_order)).gradient(), expected
    )


def test_augmentation() -> None:
    x, y = rows()

    class Augmented(Dataset[Any]):
        def __len__(self) -> int:
            return N

        def __getitem__(self, i: int) -> Any:
            return x[i] + torch.randn(4), y[i]

    loader = DataLoader(Augmented(), batch_size=N)
    with pytest.raises(ValueError, match="likely cause: random augmentation"):
        hessian(Training(network(), functional.cross_entropy, loader))


def test_random_gradient_with_a_fixed_value() -> None:
    def f(x: Tensor) -> Tensor:
        return ((x - x.detach()) * torch.randn(3)).sum() + 1.0

    with pytest.raises(ValueError, match="got gradients"):
        hessian(Training.from_function(f, torch.ones(3)))


def test_batch_statistics() -> None:
    model = network()
    model[2].p = 0.0
    with (
        pytest.warns(UserWarning, match="batch normalization in train mode"),
        pytest.raises(ValueError, match="batch normalization in train mode over several batches"),
    ):
        hessian(training(model, size=5), mode="train")
    with pytest.warns(UserWarning, match="batch normalization"):
        H = hessian(training(model), mode="train")
    v = torch.ones(63, dtype=torch.float64)
    assert not torch.allclose(H @ v, hessian(training(model)) @ v)


def test_near_a_stationary_point_the_scale_is_that_of_the_batches() -> None:
    # gradients of the two batches cancel exactly; rounding must not be taken for randomness
    problem = Training.from_function(lambda x: x.sum(), torch.zeros(1))
    centre = Training(
        problem.model,
        lambda x, target: ((x() if callable(x) else x) - target).square().sum(),
        [(None, 1e4), (None, -1e4)],
    )
    object.__setattr__(centre, "batch_loss", lambda b: (problem.model() - b[1]).square().sum())
    objective = Objective(centre)
    objective.check_deterministic()
    assert float(objective.gradient()) == 0.0


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_half_precision(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=r"float32 or float64, got 0.weight .*model.float\(\)"):
        Objective(training(network().to(dtype)))


def test_other_parameters() -> None:
    mixed = network()
    mixed[0].float()
    with pytest.raises(TypeError, match=r"one type, got torch.float32, torch.float64"):
        Objective(training(mixed))
    apart = network()
    apart[0].to("meta")
    with pytest.raises(ValueError, match="one device, got cpu, meta"):
        Objective(training(apart))
    whole = nn.Module()
    whole.count = nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)
    with pytest.raises(TypeError, match=r"floating point with requires_grad, got torch.int64"):
        Objective(training(whole))
    with pytest.raises(TypeError, match=r"real floating point, got count in torch.int64"):
        Objective(training(whole), ["count"])
    with pytest.raises(ValueError, match=r"got '0.wieght' \(did you mean '0.weight'\?\)"):
        Objective(training(), ["0.wieght"])
    with pytest.raises(ValueError, match="at least one parameter"):
        Objective(training(), [])
    with pytest.raises(TypeError, match="training must be a Training, got Linear"):
        Objective(nn.Linear(1, 1))  # type: ignore[arg-type]


def test_empty_data() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        hessian(Training(network(), functional.cross_entropy, []))


def test_a_loss_that_is_no_scalar() -> None:
    x, y = rows()
    loss = nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(ValueError, match=r"scalar tensor, got \(10,\) in batch 0"):
        hessian(Training(network(), loss, [(x, y)]))
    with pytest.raises(ValueError, match="scalar tensor, got float"):
        hessian(Training(network(), lambda z, y: 1.0, [(x, y)]))  # type: ignore[arg-type]


def test_what_is_not_finite() -> None:
    x, y = rows()
    bad = x.clone()
    bad[0, 0] = float("nan")
    with pytest.raises(ValueError, match="loss must be finite, got nan in batch 1"):
        hessian(Training(network(), functional.cross_entropy, [(x, y), (bad, y)]))
    steep = Training.from_function(lambda x: x.sqrt().sum(), torch.zeros(2))
    with pytest.raises(ValueError, match=r"gradient must be finite, got inf in x.0 in batch 0"):
        hessian(steep)


def test_parameters_captured_outside_the_model() -> None:
    model = network()
    held = list(model.parameters())
    x, y = rows()

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(z, y) + sum((p**2).sum() for p in held)

    with pytest.raises(ValueError, match="captured before"):
        hessian(Training(model, loss, [(x, y)]))


def test_vectors_of_the_wrong_shape() -> None:
    H = hessian(training())
    for v in (torch.ones(3), torch.ones(1, 63), torch.ones(63, 1, 1)):
        with pytest.raises(ValueError, match=r"v must be of shape \(63,\) or \(63, k\)"):
            H @ v


def test_options_belong_to_the_objective() -> None:
    with pytest.raises(ValueError, match="belong to the Objective"):
        hessian(Objective(training()), mode="eval")


# -- memory and processes ----------------------------------------------------------------------


def test_no_batch_is_kept_alive() -> None:
    import gc
    import weakref

    alive: list[Any] = []
    most = 0

    class Stream:
        def __iter__(self) -> Iterator[Any]:
            nonlocal most
            for i in range(12):
                generator = torch.Generator().manual_seed(i)
                x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
                alive.append(weakref.ref(x))
                yield x, torch.zeros(8, dtype=torch.int64)
                del x
                most = max(most, sum(r() is not None for r in alive))

    problem = Training(network(), functional.cross_entropy, Stream())
    objective = Objective(problem)
    with objective.measuring():
        batch, _ = next(iter(objective.batches()))
        one_graph = 3 * saved_bytes(objective, objective.start, batch)
        one_graph += 2 * objective.start.nbytes
    del batch
    gc.collect()
    gc.disable()  # it must not take the collector
    try:
        H = hessian(problem, memory=one_graph)
        H @ torch.ones(63, 3, dtype=torch.float64)
        assert H._product._kept is None
        assert most <= 2
        generalized_gauss_newton(problem, memory=one_graph) @ torch.ones(63, dtype=torch.float64)
        assert most <= 2
    finally:
        gc.enable()


def test_weights_of_the_batches() -> None:
    x, y = rows()
    batches = [(x[:2], y[:2]), (x[2:], y[2:])]
    model = network()
    model.eval()
    with torch.no_grad():
        each = [float(functional.cross_entropy(model(a), b)) for a, b in batches]
    problem = Training(model, functional.cross_entropy, batches)
    assert Objective(problem).value() == pytest.approx(0.2 * each[0] + 0.8 * each[1])
    equal = Objective(problem, weight=lambda batch: 1.0)
    assert equal.value() == pytest.approx(sum(each) / 2)


@pytest.mark.distributed
@pytest.mark.timeout(120)
def test_two_processes_equal_one() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", __file__]
    both = [subprocess.Popen([*command, str(rank), str(port)]) for rank in range(2)]
    try:
        assert [process.wait(timeout=100) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()


def _one_of_two(rank: int, port: int) -> None:
    import torch.distributed as dist
    from torch.utils.data import DistributedSampler

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        x, y = rows()
        model = network()
        mine = slice(0, 4) if rank == 0 else slice(4, None)
        alone = Training(model, functional.cross_entropy, [(x, y)])
        shard = Training(model, functional.cross_entropy, [(x[mine], y[mine])])
        v = torch.randn(63, 2, generator=torch.Generator().manual_seed(0)).double()
        world = dist.group.WORLD
        assert abs(Objective(alone).value() - Objective(shard, group=world).value()) < 1e-12
        for make in (
            hessian,
            generalized_gauss_newton,
            lambda t, **how: fisher(t, kind="empirical", **how),
        ):
            for memory in (0, 2**30):
                expected = make(alone) @ v
                torch.testing.assert_close(make(shard, group=world, memory=memory) @ v, expected)
        linear = ["0.weight", "0.bias", "4.weight"]
        torch.testing.assert_close(
            ekfac(shard, linear, group=world).dense(), ekfac(alone, linear).dense()
        )
        data = TensorDataset(x, y)
        sampler: DistributedSampler[Any] = DistributedSampler(data, shuffle=False)
        loader = DataLoader(data, batch_size=3, sampler=sampler)
        ddp = nn.parallel.DistributedDataParallel(model)
        found = hessian(Training(ddp, functional.cross_entropy, loader)) @ v
        torch.testing.assert_close(found, hessian(alone) @ v)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    _one_of_two(int(sys.argv[1]), int(sys.argv[2]))
