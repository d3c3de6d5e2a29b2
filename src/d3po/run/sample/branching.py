"""Branching rollouts: a prompt's images go one way together and part in one drawn step, so that their actions there are of one state."""

from collections.abc import Sequence

import torch
from torch import Tensor

from d3po.diffusion.noise import NoiseStreams, seeded
from d3po.run.session import Session


def branch_of(session: Session, round: int, prompt: str) -> int | None:
    """The position in the grid where the prompt's images part, or None if the run does not branch: a function of seed, round and prompt."""
    if not session.run.config.sampling.branch:
        return None
    steps = session.trainer.likelihood.choices(session.run.config.training.timestep_range)
    drawn = torch.randint(len(steps), (1,), generator=seeded(session.run.config.seed, "branch", round, prompt))
    return int(steps[drawn])


def judged_at(session: Session, round: int, prompt: str) -> int:
    """The position in the grid before whose step the picture that is judged is the one the network expects; past the grid it is the finished one."""
    branch = branch_of(session, round, prompt) if session.run.config.sampling.judged == "expected" else None
    return len(session.replay.grid) if branch is None else branch + 1


class BranchingStreams:
    """Noise that all images of a prompt share until their branch, and have each for itself from then on."""

    def __init__(
        self,
        shared: Sequence[tuple[int | str, ...]],
        own: Sequence[tuple[int | str, ...]],
        branches: Sequence[int],
        stochastic: Sequence[bool],
    ) -> None:
        self._shared, self._own = NoiseStreams(shared), NoiseStreams(own)
        self._branches = torch.tensor(branches)
        self._steps = (position for position, noisy in enumerate(stochastic) if noisy)

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """The next standard normal of every image, (B, *shape)."""
        parted = (next(self._steps) >= self._branches).view(-1, *[1] * len(shape))
        return torch.where(parted, self._own.draw(shape), self._shared.draw(shape))
