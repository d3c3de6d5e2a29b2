"""What the policy says of judged images: of the steps they were sampled by, or of the finished pictures, noised anew."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from d3po.diffusion.noise import seeded
from d3po.diffusion.transition import GaussianStep
from d3po.errors import ConfigError
from d3po.models.base import AbstractPolicy, Condition
from d3po.objectives.base import Needs
from d3po.training.data import PromptGroup, step_batch
from d3po.training.replay import Replay

Occasion = tuple[int, int, int]
"""(run seed, round, update): what noise is drawn for, beside the prompt."""

Reference = Callable[[], AbstractContextManager[None]]
"""Within its context the policy is the reference."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """S steps, or noise levels, of N images laid side by side."""

    log_ratio: Float[Tensor, "S N"]
    """q under the policy minus q under the reference; q itself where the objective has none (see `d3po.objectives.base`)."""
    kl: Float[Tensor, "S N"] | None = None
    """KL to the pretrained model in the log-probs' unit, with gradient; where the objective needs it."""
    drift: Float[Tensor, "S N"] | None = None
    """KL of the sampler's step to the reference's in nats per latent dimension, where log-ratios do not tell it."""


class Reader(ABC):
    """Reads one kind of evidence."""

    def __init__(self, policy: AbstractPolicy, replay: Replay, needs: Needs) -> None:
        self._policy, self._replay, self._needs = policy, replay, needs

    @abstractmethod
    def choices(self, timestep_range: tuple[int, int]) -> Int[Tensor, " S"]:
        """Steps that an update may draw from.

        Raises:
            ConfigError: the range holds none.
        """

    @abstractmethod
    def count(self, fraction: float, choices: int) -> int:
        """How many of them an update draws."""

    @abstractmethod
    def read(self, groups: Sequence[PromptGroup], condition: Condition, steps: Int[Tensor, " S"], occasion: Occasion) -> Evidence:
        """The evidence of these steps; `condition` has one row per prompt of the round."""

    @abstractmethod
    def progress(self, steps: Int[Tensor, " S"]) -> list[float]:
        """How far along the way from noise to picture each step lies, in [0, 1)."""


class Trajectories(Reader):
    """Log-probs of recorded denoising steps. A step is its position in the sampler's grid."""

    def choices(self, timestep_range: tuple[int, int]) -> Int[Tensor, " S"]:
        low, high = timestep_range
        grid = self._replay.grid
        within = (grid.timesteps >= low) & (grid.timesteps <= high)
        steps = (self._replay.transition.stochastic(grid) & within).nonzero().flatten()
        if len(steps) == 0:
            raise ConfigError(
                f"training.timestep_range is {list(timestep_range)}, which holds none of the {len(grid)} sampled "
                f"timesteps that have a density ({grid.timesteps.tolist()}); widen it"
            )
        return steps

    def count(self, fraction: float, choices: int) -> int:
        return max(1, -int(-fraction * choices // 1))

    def read(self, groups: Sequence[PromptGroup], condition: Condition, steps: Int[Tensor, " S"], occasion: Occasion) -> Evidence:  # noqa: ARG002
        batch, replay = step_batch(groups, steps), self._replay.at(groups[0].latent_shape)
        rows = condition.rows(prompt_rows(groups))
        step = replay.step(self._policy, batch.x_t, steps, rows)
        log_probs = replay.log_prob_of(step, batch.x_next)
        assert batch.reference is not None
        return Evidence(
            log_ratio=log_probs - batch.reference.to(log_probs),
            kl=self._exact_kl(replay, step, batch.x_t, steps, rows) if self._needs.exact_kl else None,
        )

    def progress(self, steps: Int[Tensor, " S"]) -> list[float]:
        return [step / len(self._replay.grid) for step in steps.tolist()]

    def _exact_kl(self, replay: Replay, step: GaussianStep, x_t: Tensor, steps: Tensor, rows: Condition) -> Float[Tensor, "S N"]:
        """|mu_theta - mu_pre|^2 / (2 std^2): summed over dimensions, or their mean, as the log-probs are."""
        with torch.no_grad(), self._policy.without_adapter():
            pretrained = replay.step(self._policy, x_t, steps, rows)
        apart = (step.mean - pretrained.mean).square().flatten(1)
        apart = apart.sum(dim=1) if replay.reduce == "sum" else apart.mean(dim=1)
        return (apart / (2 * step.std.to(apart) ** 2)).unflatten(0, x_t.shape[:2])


class Pictures(Reader):
    """Minus the denoising error of finished pictures, at noise levels and noise that all images of a prompt share. A step is a timestep.

    The prediction is the conditional one, without guidance: that is what denoising errors bound the likelihood with.
    """

    def __init__(self, policy: AbstractPolicy, replay: Replay, needs: Needs, reference: Reference | None = None) -> None:
        super().__init__(policy, replay, needs)
        self.reference: Reference = reference or policy.without_adapter
        self.compares = needs.reference != "none"
        """Whether the reference is asked; of an objective without one only to see how far the policy has drifted from the pretrained model."""

    def choices(self, timestep_range: tuple[int, int]) -> Int[Tensor, " S"]:
        low, high = timestep_range
        timesteps = torch.arange(1, self._replay.transition.train_timesteps)
        choices = timesteps[(timesteps >= low) & (timesteps <= high)]
        if len(choices) == 0:
            raise ConfigError(
                f"training.timestep_range is {list(timestep_range)}, which holds none of the model's timesteps (1 to {len(timesteps)}); widen it"
            )
        return choices

    def count(self, fraction: float, choices: int) -> int:  # noqa: ARG002
        """As many as of trajectories, so that an update costs as many network rows."""
        return max(1, -int(-fraction * len(self._replay.grid) // 1))

    def read(self, groups: Sequence[PromptGroup], condition: Condition, steps: Int[Tensor, " S"], occasion: Occasion) -> Evidence:
        clean = torch.cat([group.clean() for group in groups]).to(self._policy.device)
        count, images = len(steps), len(clean)
        timesteps = steps.repeat_interleave(images).to(clean.device)
        noise = self._noise(groups, steps, occasion, tuple(clean.shape[1:])).to(clean)
        x_t, target = self._replay.transition.noised(clean.repeat(count, *[1] * (clean.ndim - 1)), noise, timesteps)
        rows = condition.rows(prompt_rows(groups).repeat(count))
        before = self._of_reference(x_t, timesteps, rows)
        prediction = self._replay.unguided(self._policy).predict(self._policy, x_t, timesteps, rows)
        error = _mean_square(prediction - target).unflatten(0, (count, images))
        if before is None:
            return Evidence(log_ratio=-error)
        reference = _mean_square(before - target).unflatten(0, (count, images))
        apart = _mean_square(prediction.detach() - before).unflatten(0, (count, images))
        return Evidence(
            log_ratio=-error if self._needs.reference == "none" else reference - error,
            drift=self._sensitivity(steps).to(apart)[:, None] ** 2 / 2 * apart,
        )

    @torch.no_grad()
    def _of_reference(self, x_t: Tensor, timesteps: Tensor, rows: Condition) -> Tensor | None:
        """Before the policy's own prediction, whose weights must not change until its gradient is taken."""
        if not self.compares:
            return None
        with self.reference():
            return self._replay.unguided(self._policy).predict(self._policy, x_t, timesteps, rows)

    def progress(self, steps: Int[Tensor, " S"]) -> list[float]:
        timesteps = self._replay.transition.train_timesteps
        return [(timesteps - 1 - step) / timesteps for step in steps.tolist()]

    def _noise(self, groups: Sequence[PromptGroup], steps: Tensor, occasion: Occasion, shape: tuple[int, ...]) -> Tensor:
        """By identity: seed, round, update, prompt and timestep; the same for all images of the prompt."""
        seed, round, update = occasion
        return torch.cat(
            [
                torch.randn(shape, generator=seeded(seed, "noise level", round, update, group.identity, step)).expand(len(group), *shape)
                for step in steps.tolist()
                for group in groups
            ]
        )

    def _sensitivity(self, steps: Tensor) -> Float[Tensor, " S"]:
        """How much of a change of the prediction shows in the sampler's step that the timestep falls into: 0 where that step is deterministic."""
        grid = self._replay.grid
        falls_into = (grid.timesteps >= steps[:, None]).sum(dim=1) - 1
        return self._replay.transition.sensitivity(grid)[falls_into.clamp(min=0)]


def reader_of(policy: AbstractPolicy, replay: Replay, needs: Needs) -> Reader:
    """The reader of what an objective looks at."""
    return (Trajectories if needs.evidence == "trajectories" else Pictures)(policy, replay, needs)


def prompt_rows(groups: Sequence[PromptGroup]) -> Int[Tensor, " N"]:
    """The prompt of each image, all groups laid side by side."""
    return torch.tensor([group.prompt for group in groups for _ in range(len(group))])


def _mean_square(difference: Float[Tensor, " B *latent"]) -> Float[Tensor, " B"]:
    return difference.square().flatten(1).mean(dim=1)
