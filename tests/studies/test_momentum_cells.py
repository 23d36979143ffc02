"""The rule of the study of momentum cells, its tasks, and rows made by hand."""

from __future__ import annotations

import pytest
import torch

from thalweg.studies import momentum_cells as study
from thalweg.studies.study import Row, Word


def rows(digits: float, copy: float, points: float, *, edge: bool = False) -> list[Row]:
    """Eight seeds with about these loss ratios, and this difference of accuracies in points."""
    made: list[Row] = []
    for s in range(8):
        scatter = 1 + 0.01 * (s - 3.5)
        for task, ratio in (("digits", digits), ("copy", copy)):
            for method in study.METHODS:
                with_momentum = method == "MomentumLSTM"
                made.append(
                    {
                        "task": task, "method": method, "seed": s, "lr": 0.01, "pixels": 8,
                        "edge": edge and with_momentum,
                        "loss": 0.1 * (ratio * scatter if with_momentum else 1.0),
                        "accuracy": 0.9 + (points / 100 * scatter if with_momentum else 0.0),
                    }
                )  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (rows(0.8, 0.7, -0.5), Word.HOLDS),
        (rows(1.2, 0.7, 0.5), Word.FAILS),
        (rows(0.8, 1.2, 0.5), Word.FAILS),
        (rows(0.8, 0.7, -2.0), Word.FAILS),
        (rows(1.0, 0.7, 0.5), Word.INCONCLUSIVE),
        (rows(0.8, 0.7, -1.0), Word.INCONCLUSIVE),
        (rows(0.8, 0.7, 0.5, edge=True), Word.INCONCLUSIVE),
    ],
)
def test_the_word_follows_losses_and_accuracy(made: list[Row], word: Word) -> None:
    assert study.verdict(made).word is word


def test_the_plain_method_is_torchs_lstm() -> None:
    torch.manual_seed(0)
    reader = study.Reader(9, 8, *study.METHODS["LSTM"])
    lstm = torch.nn.LSTM(9, study.HIDDEN, batch_first=True)
    lstm.load_state_dict(reader.layer.state_dict())
    x = torch.rand(4, 21, 9)
    assert torch.allclose(reader(x), reader.readout(lstm(x)[0]), atol=1e-6)


def test_both_methods_start_alike_and_seeds_do_not_mix() -> None:
    task = study.Copy(study._SIZES["smoke"])
    plain, momentum = (study.Networks(task, method, [1, 2]) for method in study.METHODS)
    for name, p in plain.params.items():
        assert torch.equal(p, momentum.params[name])
    alone = study.Networks(task, "LSTM", [2])
    x, y = next(task.batches([1, 2]))
    both, _ = plain((x, y))
    one, _ = alone((x[1:], y[1:]))
    assert torch.allclose(both[1], one[0], atol=1e-6)


def test_clipping_shortens_each_seed_alone() -> None:
    task = study.Copy(study._SIZES["smoke"])
    networks = study.Networks(task, "LSTM", [1, 2])
    for p in networks.params.values():
        p.grad = torch.zeros_like(p)
    weight = networks.params["readout.bias"].grad
    weight[0, 0], weight[1, 0] = 5.0, 0.5
    networks.clip()
    assert weight[0, 0] == pytest.approx(1.0, abs=1e-5)
    assert weight[1, 0] == 0.5


def test_the_copy_task_shows_symbols_once_and_asks_for_them_at_the_end() -> None:
    x, y = next(study.Copy(study._SIZES["smoke"]).batches([0, 1]))
    codes = x.argmax(-1)
    assert torch.equal(codes[..., : study.REMEMBERED], y)
    assert (codes[..., study.REMEMBERED :] == study.SYMBOLS).all()
    assert codes.shape[-1] == study.DELAY + 2 * study.REMEMBERED
    assert not torch.equal(y[0], y[1])


def test_smoke() -> None:
    found = list(study.run("smoke", 0))
    assert len(found) == 2 * 2 * 2
    assert study.verdict(found).parts
    assert study.figure(found).axes
