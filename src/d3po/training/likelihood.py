"""What the policy says of judged images: of the steps they were sampled by, or of the finished pictures, noised anew."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from d3po.diffusion.divergence import kl_of_sketches, kl_of_steps
from d3po.diffusion.noise import seeded
from d3po.diffusion.schedule import StepGrid
from d3po.diffusion.transition import GaussianStep
from d3po.errors import ConfigError
from d3po.models.base import AbstractPolicy, Condition
from d3po.models.replay import Replay
from d3po.objectives.base import Needs
from d3po.training.data import PromptGroup, step_batch

NoiseKey = tuple[int, int, int]
"""(run seed, round, update): what noise is drawn for, beside the prompt."""

Reference = Callable[[], AbstractContextManager[None]]
"""Within its context the policy is the reference."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StepTerms:
    """S steps, or noise levels, of N images laid side by side."""

    log_ratio: Float[Tensor, "S N"]
    """q under the policy minus q under the reference; q itself where the objective has none (see `d3po.objectives.base`)."""
    kl: Float[Tensor, "S N"] | None = None
    """KL to the pretrained model in nats per latent dimension, with gradient; where the objective needs it."""
    drift: Float[Tensor, "S N"] | None = None
    """KL of the policy's step to the reference's as the run samples, guidance included, in nats per latent dimension; where it is measured."""


class Likelihood(ABC):
    """Reads one kind of evidence.

    Where what is trained is not the step that is sampled (pictures, or steps without guidance), the drift is measured by itself: of the first image of
    each prompt, at each of the update's steps, by the sampler's own prediction under policy and reference.
    """

    def __init__(self, policy: AbstractPolicy, replay: Replay, needs: Needs, sampler: Replay | None = None) -> None:
        self._policy, self._replay, self._needs = policy, replay, needs
        self._sampler = sampler or replay
        self._reference: Reference = policy.without_adapter

    def compare_with(self, reference: Reference) -> None:
        """Take another reference than the pretrained model; within the context that it makes, the policy is that reference."""
        self._reference = reference

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
    def read(
        self, groups: Sequence[PromptGroup], condition: Condition, steps: Int[Tensor, " S"], noise_key: NoiseKey, *, measures: bool = True
    ) -> StepTerms:
        """The evidence of these steps; `condition` has one row per prompt of the round.

        `measures` says whether a drift that costs network rows of its own is measured too.
        """

    @abstractmethod
    def progress(self, steps: Int[Tensor, " S"]) -> list[float]:
        """How far along the way from noise to picture each step lies, in [0, 1)."""

    @torch.no_grad()
    def _by_both(self, work: Callable[[], T]) -> tuple[T, T]:
        """`work` by policy and reference; before the policy's own prediction, whose weights must not change until its gradient is taken."""
        with self._reference():
            theirs = work()
        return work(), theirs


class TrajectoryLikelihood(Likelihood):
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

    def read(
        self,
        groups: Sequence[PromptGroup],
        condition: Condition,
        steps: Int[Tensor, " S"],
        noise_key: NoiseKey,  # noqa: ARG002
        *,
        measures: bool = True,
    ) -> StepTerms:
        batch, replay = step_batch(groups, steps), self._replay.at(groups[0].latent_shape)
        rows = condition.rows(prompt_rows(groups))
        as_sampled = self._replay.guidance == self._sampler.guidance
        drift = self._drift(groups, batch.x_t, steps, condition) if measures and not as_sampled else None
        step = replay.step(self._policy, batch.x_t, steps, rows)
        log_probs = replay.log_prob_of(step, batch.x_next)
        assert batch.reference is not None
        return StepTerms(
            log_ratio=log_probs - batch.reference.log_probs.to(log_probs),
            kl=self._to_pretrained(replay, step, batch.x_t, steps, rows) if self._needs.exact_kl else None,
            drift=self._sketched_drift(step, batch.reference.sketches) if as_sampled else drift,
        )

    def progress(self, steps: Int[Tensor, " S"]) -> list[float]:
        return [step / len(self._replay.grid) for step in steps.tolist()]

    def _to_pretrained(self, replay: Replay, step: GaussianStep, x_t: Tensor, steps: Tensor, rows: Condition) -> Float[Tensor, "S N"]:
        with torch.no_grad(), self._policy.without_adapter():
            pretrained = replay.step(self._policy, x_t, steps, rows)
        return kl_of_steps(step, pretrained).unflatten(0, x_t.shape[:2])

    @torch.no_grad()
    def _sketched_drift(self, step: GaussianStep, theirs: Float[Tensor, "S N width"]) -> Float[Tensor, "S N"]:
        return kl_of_sketches(step, theirs.flatten(0, 1)).unflatten(0, theirs.shape[:2])

    def _drift(self, groups: Sequence[PromptGroup], x_t: Tensor, steps: Tensor, condition: Condition) -> Float[Tensor, "S N"]:
        sampler, rows = self._sampler.at(groups[0].latent_shape), condition.rows(torch.tensor([group.prompt for group in groups]))
        mine, theirs = self._by_both(lambda: sampler.step(self._policy, _firsts(x_t, groups), steps, rows))
        return _for_all(kl_of_steps(mine, theirs).unflatten(0, (len(steps), len(groups))), groups)


class DenoisingLikelihood(Likelihood):
    """Minus the denoising error of finished pictures, at noise levels and noise that all images of a prompt share. A step is a timestep.

    The prediction is the conditional one, without guidance: that is what denoising errors bound the likelihood with.
    """

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

    def read(
        self, groups: Sequence[PromptGroup], condition: Condition, steps: Int[Tensor, " S"], noise_key: NoiseKey, *, measures: bool = True
    ) -> StepTerms:
        clean = torch.cat([group.clean() for group in groups]).to(self._policy.device)
        count, images = len(steps), len(clean)
        timesteps = steps.repeat_interleave(images).to(clean.device)
        noise = self._noise(groups, steps, noise_key, tuple(clean.shape[1:])).to(clean)
        x_t, target = self._replay.transition.noised(clean.repeat(count, *[1] * (clean.ndim - 1)), noise, timesteps)
        rows = condition.rows(prompt_rows(groups).repeat(count))
        drift = self._drift(groups, x_t.unflatten(0, (count, images)), steps, condition) if measures else None
        reference = 0.0 if self._needs.reference == "none" else self._error_of_reference(x_t, target, timesteps, rows)
        error = _mean_square(self._conditional(x_t, timesteps, rows) - target)
        return StepTerms(log_ratio=(reference - error).unflatten(0, (count, images)), drift=drift)

    def _conditional(self, x_t: Tensor, timesteps: Tensor, rows: Condition) -> Tensor:
        return self._replay.unguided(self._policy).predict(self._policy, x_t, timesteps, rows)

    @torch.no_grad()
    def _error_of_reference(self, x_t: Tensor, target: Tensor, timesteps: Tensor, rows: Condition) -> Float[Tensor, " B"]:
        """Before the policy's own prediction, as in `_by_both`."""
        with self._reference():
            return _mean_square(self._conditional(x_t, timesteps, rows) - target)

    def _drift(self, groups: Sequence[PromptGroup], x_t: Tensor, steps: Tensor, condition: Condition) -> Float[Tensor, "S N"]:
        """What the two guided predictions' difference makes in the step of the sampler that the timestep falls into; every bound on x_0 left aside."""
        sampler, count = self._sampler.at(groups[0].latent_shape), len(groups)
        rows = condition.rows(torch.tensor([group.prompt for group in groups]).repeat(len(steps)))
        firsts = _firsts(x_t, groups).flatten(0, 1)
        timesteps = steps.repeat_interleave(count).to(firsts.device)
        places = falls_into(sampler.grid, steps)
        scale = sampler.scale(sampler.grid.timesteps[places].repeat_interleave(count).to(firsts.device))
        mine, theirs = self._by_both(lambda: self._policy.predict(firsts, timesteps, rows, scale))
        apart = _mean_square(mine - theirs).unflatten(0, (len(steps), count))
        return _for_all(sampler.transition.sensitivity(sampler.grid)[places].to(apart)[:, None] ** 2 / 2 * apart, groups)

    def progress(self, steps: Int[Tensor, " S"]) -> list[float]:
        timesteps = self._replay.transition.train_timesteps
        return [(timesteps - 1 - step) / timesteps for step in steps.tolist()]

    def _noise(self, groups: Sequence[PromptGroup], steps: Tensor, noise_key: NoiseKey, shape: tuple[int, ...]) -> Tensor:
        """By identity: seed, round, update, prompt and timestep; the same for all images of the prompt."""
        seed, round, update = noise_key
        return torch.cat(
            [
                torch.randn(shape, generator=seeded(seed, "noise level", round, update, group.identity, step)).expand(len(group), *shape)
                for step in steps.tolist()
                for group in groups
            ]
        )


def likelihood_of(policy: AbstractPolicy, replay: Replay, needs: Needs, sampler: Replay | None = None) -> Likelihood:
    """The likelihood of what an objective looks at; `sampler` is how the run samples, where that is not how it replays."""
    return (TrajectoryLikelihood if needs.evidence == "trajectories" else DenoisingLikelihood)(policy, replay, needs, sampler)


def falls_into(grid: StepGrid, timesteps: Int[Tensor, " S"]) -> Int[Tensor, " S"]:
    """The sampler's step that each timestep lies in, by its position."""
    return ((grid.timesteps >= timesteps[:, None]).sum(dim=1) - 1).clamp(min=0)


def prompt_rows(groups: Sequence[PromptGroup]) -> Int[Tensor, " N"]:
    """The prompt of each image, all groups laid side by side."""
    return torch.tensor([group.prompt for group in groups for _ in range(len(group))])


def _firsts(images: Float[Tensor, "S N *latent"], groups: Sequence[PromptGroup]) -> Float[Tensor, "S G *latent"]:
    """Those of each prompt's first image."""
    sizes = torch.tensor([len(group) for group in groups])
    return images[:, (sizes.cumsum(0) - sizes).to(images.device)]


def _for_all(values: Float[Tensor, "S G"], groups: Sequence[PromptGroup]) -> Float[Tensor, "S N"]:
    """Each prompt's value, for all of its images."""
    return values.repeat_interleave(torch.tensor([len(group) for group in groups], device=values.device), dim=1)


def _mean_square(difference: Float[Tensor, " B *latent"]) -> Float[Tensor, " B"]:
    return difference.square().flatten(1).mean(dim=1)
