"""Branching rollouts: the images of a prompt share all noise up to one random step and diverge there, so that they have the same state at that step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from d3po.diffusion.noise import NoiseStreams, seeded
from d3po.run.session import Session


def branch_of(session: Session, round: int, prompt: str) -> int | None:
    """The position in the timestep grid at which the prompt's images diverge, a function of seed, round and prompt. None if the run does not branch."""
    if not session.run.config.sampling.branch:
        return None
    steps = session.trainer.likelihood.choices(session.run.config.training.timestep_range)
    drawn = torch.randint(len(steps), (1,), generator=seeded(session.run.config.seed, "branch", round, prompt))
    return int(steps[drawn])


def compared_at(session: Session, round: int, prompt: str) -> int:
    """The position in the timestep grid whose expected picture is compared. One beyond the grid stands for the finished picture."""
    branch = branch_of(session, round, prompt) if session.run.config.sampling.judged == "expected" else None
    return len(session.replay.grid) if branch is None else branch + 1


class BranchingStreams:
    """Noise that all images of a prompt share before their branching step, and that differs for each image in that step, and maybe in those after it.

    Args:
        shared: the noise identity of each image before the branching step.
        separate: the noise identity of each image from the branching step on.
        once: whether the images share all noise again after the branching step.
        branches: the position of the branching step of each image.
        stochastic: whether each step of the grid draws noise.
    """

    def __init__(
        self,
        shared: Sequence[tuple[int | str, ...]],
        separate: Sequence[tuple[int | str, ...]],
        branches: Sequence[int],
        stochastic: Sequence[bool],
        *,
        once: bool,
    ) -> None:
        self._shared, self._separate = NoiseStreams(shared), NoiseStreams(separate)
        self._branches, self._once = torch.tensor(branches), once
        self._steps = (position for position, noisy in enumerate(stochastic) if noisy)

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """Draw the next standard normal noise of every image, of shape (B, *shape)."""
        step = next(self._steps)
        branched = (self._branches == step if self._once else self._branches <= step).view(-1, *[1] * len(shape))
        return torch.where(branched, self._separate.draw(shape), self._shared.draw(shape))
