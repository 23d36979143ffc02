"""Hugging Face `transformers.Trainer`, unmodified, with `optimizers=(optimizer, scheduler)`.

A method with ``train`` and ``eval`` (AcceleGrad) needs nothing more: the Trainer calls them around
its evaluations, and a checkpoint saved between them holds the output. SALSA's line search needs a
closure, which the Trainer has no way to give: it says so, and `SASA` is its half that needs none.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from thalweg import optim

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

STEPS, SAVE = 6, 3


@pytest.fixture(autouse=True, scope="module")
def frozen() -> Iterator[None]:
    """Every Trainer collects garbage: what imports made need not be looked through each time."""
    gc.freeze()
    yield
    gc.unfreeze()


class Sentences(Dataset[dict[str, Tensor]]):
    """Arithmetic sequences: the next token, or their difference, can be learnt."""

    def __init__(self, classify: bool) -> None:
        self.classify = classify

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        tokens = (torch.arange(8) * (1 + i % 2) + i) % 32
        return {"input_ids": tokens, "labels": torch.tensor(i % 2) if self.classify else tokens}


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(1)
    return transformers.GPT2LMHeadModel(config)


def bert() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=8,
    )  # fmt: skip
    torch.manual_seed(1)
    return transformers.BertForSequenceClassification(config)


def trainer(model: nn.Module, optimizer: Optimizer, folder: Path, **more: Any) -> Any:
    """Gradients accumulated and clipped, dropout on, evaluated just before it saves."""
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=STEPS, save_steps=SAVE, eval_strategy="steps", eval_steps=SAVE,
        per_device_train_batch_size=2, gradient_accumulation_steps=2, max_grad_norm=0.5,
        logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        dataloader_pin_memory=False, seed=3, **more,
    )  # fmt: skip
    data = Sentences(classify="Classification" in type(model).__name__)
    return transformers.Trainer(
        model, arguments, train_dataset=data, eval_dataset=data,
        optimizers=(optimizer, LambdaLR(optimizer, lambda t: 0.9**t)),
    )  # fmt: skip


def trained(make: Callable[[], nn.Module], build: Any, folder: Path, **how: Any) -> Any:
    model = make()
    run = trainer(model, build(model.parameters()), folder)
    run.train(**how)
    return run


def parameters(run: Any) -> list[Tensor]:
    return [p.detach() for p in run.model.parameters()]


def equal(a: Any, b: Any) -> bool:
    return all(map(torch.equal, parameters(a), parameters(b)))


@pytest.mark.parametrize("make", [gpt2, bert])
def test_a_resumed_run_continues_the_uninterrupted_one(
    make: Callable[[], nn.Module], build: Any, tmp_path: Path, same_state: Any
) -> None:
    whole = trained(make, build, tmp_path)
    # The second run's own weights and optimizer are new: all comes from the checkpoint.
    resumed = trained(
        make, build, tmp_path / "resumed", resume_from_checkpoint=str(tmp_path / "checkpoint-3")
    )
    assert resumed.state.global_step == STEPS
    assert equal(whole, resumed)
    assert same_state(whole.optimizer, resumed.optimizer)
    group = whole.optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(group["initial_lr"] * 0.9**STEPS)
    assert not any(map(torch.equal, parameters(whole), make().parameters()))


def test_what_resume_compares_depends_on_the_optimizer_state(tmp_path: Path) -> None:
    def build(params: Any) -> Optimizer:
        return optim.AdamW(params, lr=1e-2)

    whole = trained(gpt2, build, tmp_path)
    checkpoint = tmp_path / "checkpoint-3"
    (checkpoint / "optimizer.pt").unlink()
    forgetful = trained(gpt2, build, tmp_path / "b", resume_from_checkpoint=str(checkpoint))
    assert not equal(whole, forgetful)


# The gradient of a key's bias is zero but for rounding, which a smaller eps would blow up.
ADAM = {"lr": 1e-2, "eps": 1e-4}


def test_it_is_a_drop_in_for_torch(tmp_path: Path) -> None:
    ours = trained(gpt2, lambda params: optim.AdamW(params, **ADAM), tmp_path)
    theirs = trained(gpt2, lambda params: torch.optim.AdamW(params, **ADAM), tmp_path / "b")
    for p, q in zip(parameters(ours), parameters(theirs), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


def test_a_checkpoint_of_torch_is_taken_over(tmp_path: Path) -> None:
    theirs = trained(gpt2, lambda params: torch.optim.AdamW(params, **ADAM), tmp_path)
    ours = trained(
        gpt2, lambda params: optim.AdamW(params, **ADAM), tmp_path / "b",
        resume_from_checkpoint=str(tmp_path / "checkpoint-3"),
    )  # fmt: skip
    for p, q in zip(parameters(ours), parameters(theirs), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


def test_accelegrad_is_evaluated_at_its_output(tmp_path: Path) -> None:
    run = trained(gpt2, lambda params: optim.AcceleGrad(params, diameter=10.0), tmp_path)
    # The last evaluation left the output in the model; train() puts x back.
    output = [p.clone() for p in parameters(run)]
    run.optimizer.train()
    assert not any(map(torch.equal, output, parameters(run)))


def test_salsa_says_what_the_trainer_does_not_give(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="closure is needed while the line search runs"):
        trained(gpt2, lambda params: optim.SALSA(params), tmp_path)


def by_role(model: nn.Module) -> Optimizer:
    """Lion for the matrices, AdamW for embeddings, norms, biases and the head."""
    groups = optim.param_groups(model)
    matrices = [group for group in groups if group["role"] == "matrix"]
    rest = [group for group in groups if group["role"] != "matrix"]
    lion = optim.Lion(matrices, lr=1e-3, weight_decay=0.1)
    return optim.Combined([lion, optim.AdamW(rest, lr=1e-2, weight_decay=0.01)])


def test_a_combination_by_role_is_one_optimizer(tmp_path: Path, same_state: Any) -> None:
    model, other = bert(), bert()
    whole = trainer(model, by_role(model), tmp_path)
    whole.train()
    resumed = trainer(other, by_role(other), tmp_path / "b")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert equal(whole, resumed)
    assert same_state(whole.optimizer, resumed.optimizer)
    found = {group["role"]: group for group in whole.optimizer.param_groups}
    assert found["matrix"]["lr"] == pytest.approx(1e-3 * 0.9**STEPS)
    assert found["head"]["lr"] == pytest.approx(1e-2 * 0.9**STEPS)
    assert found["matrix"]["weight_decay"] == 0.1 and found["norm"]["weight_decay"] == 0.0
