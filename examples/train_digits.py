"""Train a network on handwritten digits: swap the optimizer, stop in the middle, go on bit for bit.

python examples/train_digits.py
"""

from __future__ import annotations

import io

import torch

from thalweg import Training
from thalweg.data import problems
from thalweg.optim import AdamW, as_lr_scheduler, cooldown


def make(seed: int) -> tuple[Training, AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """A problem, an optimizer, and a schedule: constant to step 200, then like 1/k."""
    training = problems.digits_mlp(seed)
    optimizer = AdamW(training.model.parameters(), lr=3e-3)
    return training, optimizer, as_lr_scheduler(optimizer, cooldown(3e-3, start=200))


def train(training: Training, optimizer: AdamW, scheduler, steps: range) -> float:
    """Take the given steps of a run; batches are a function of the step alone."""
    batches = list(training.data.epoch(0))
    loss = torch.tensor(0.0)
    for k in steps:
        optimizer.zero_grad()
        loss = training.batch_loss(batches[k % len(batches)])
        loss.backward()
        optimizer.step()
        scheduler.step()
    return float(loss.detach())


def main() -> None:
    training, optimizer, scheduler = make(seed=0)
    loss = train(training, optimizer, scheduler, range(400))
    test = training.measure("test")
    print(f"400 steps at once:        training loss {loss:.6f}, test error {test['error']:.3f}")

    training, optimizer, scheduler = make(seed=0)
    train(training, optimizer, scheduler, range(150))
    file = io.BytesIO()  # a file on disk does as well
    torch.save([training.model.state_dict(), optimizer.state_dict(), scheduler.state_dict()], file)

    training, optimizer, scheduler = make(seed=1)  # another start: all of it is overwritten
    file.seek(0)
    parts = torch.load(file, weights_only=True)
    for part, saved in zip((training.model, optimizer, scheduler), parts, strict=True):
        part.load_state_dict(saved)
    # The batches of seed 0: only the model, the optimizer and the schedule come from the file.
    training = Training(
        training.model,
        training.loss,
        problems.digits_mlp(0).data,
        evaluate=training.evaluate,
    )
    resumed = train(training, optimizer, scheduler, range(150, 400))
    print(f"stopped at 150, resumed:  training loss {resumed:.6f}")
    assert resumed == loss, "a resumed run must be the same to the last bit"


if __name__ == "__main__":
    main()
