"""Imitation learning where the expert is expensive: SSO asks it once, then learns for a while.

A car follows a winding road. The learner drives and looks at (offset, heading, curvature ahead);
at the states it visited, an expert is asked how to steer. Every question costs, updates of the
learner's little network cost nothing: `thalweg.optim.sso_step` makes many updates for each round of
questions. The same number of questions with one gradient step each is the yardstick.

Run: python examples/sso_imitation.py   (CPU, a few seconds)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thalweg.optim import sso_step

ROUNDS, CARS, SECONDS = 3, 32, 20


class Expert:
    """Steers well, and counts how often it is asked."""

    def __init__(self) -> None:
        self.questions = 0

    def steer(self, states: Tensor) -> Tensor:
        self.questions += len(states)
        offset, heading, curvature = states.unbind(dim=1)
        return torch.tanh(1.5 * curvature - 0.8 * offset - 1.6 * heading).unsqueeze(1)


def drive(policy: nn.Module, generator: torch.Generator) -> Tensor:
    """The states that cars visit while `policy` steers: (cars * seconds, 3)."""
    state = 0.3 * torch.randn(CARS, 3, generator=generator)
    visited = []
    with torch.no_grad():
        for _ in range(SECONDS):
            visited.append(state)
            offset, heading, curvature = state.unbind(dim=1)
            heading = heading + 0.3 * (policy(state).squeeze(1) - curvature)
            offset = (offset + 0.5 * heading).clamp(-3, 3)
            curvature = 0.8 * curvature + 0.3 * torch.randn(CARS, generator=generator)
            state = torch.stack([offset, heading, curvature], dim=1)
    return torch.cat(visited)


def learn(inner_steps: int, eta: float) -> tuple[float, int]:
    """Train a policy; how far it is from the road's middle afterwards, and questions asked."""
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
    expert = Expert()

    def disagreement(steering: Tensor, states: Tensor) -> Tensor:
        """The expensive loss, 1-smooth in the steering: the expert is asked at every call."""
        return (steering - expert.steer(states)).square().sum() / 2

    generator = torch.Generator().manual_seed(1)
    for _ in range(ROUNDS):
        states = drive(policy, generator)
        sso_step(policy, disagreement, (states, states), eta=eta, inner_steps=inner_steps)
    test = drive(policy, torch.Generator().manual_seed(2))
    return float(test[:, 0].abs().mean()), expert.questions


def main() -> None:
    for inner_steps in (1, 30):
        offset, questions = learn(inner_steps, eta=1.0)
        print(
            f"{inner_steps:3d} updates per round: {offset:.3f} m from the middle, "
            f"{questions:,} questions asked"
        )


if __name__ == "__main__":
    main()
