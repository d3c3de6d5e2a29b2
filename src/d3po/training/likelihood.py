"""Log-likelihoods of images under policy and reference: of their recorded denoising steps, or of the finished pictures with new noise."""

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
"""(run seed, round, update): what the seed of noise is derived from, together with the prompt."""

Reference = Callable[[], AbstractContextManager[None]]
"""Makes a context in which the policy has the reference's weights."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StepTerms:
    """Log-ratios and KLs of N images at S steps or noise levels."""

    log_ratio: Float[Tensor, "S N"]
    """q under the policy minus q under the reference; q itself if the objective has no reference (see `d3po.objectives.base`)."""
    kl: Float[Tensor, "S N"] | None = None
    """KL to the pretrained model in nats per latent dimension, with gradient; given if the objective needs it."""
    drift: Float[Tensor, "S N"] | None = None
    """KL of the policy's step to the reference's step, with guidance as in sampling, in nats per latent dimension; None if it is not measured."""
    change: Float[Tensor, "S N"] | None = None
    """Mean squared difference of the policy's prediction and the reference's, with gradient; given if the objective needs it."""
    reference_error: Float[Tensor, "S N"] | None = None
    """The reference's denoising error; given if the objective needs it."""
    products: Float[Tensor, "S N N"] | None = None
    """Mean products of each two images' differences of prediction and target, without gradient; given if the objective needs them."""


class Likelihood(ABC):
    """The interface of log-likelihoods: which steps an update can use, and the log-ratios of images at those steps.

    The KL to the reference (`StepTerms.drift`) is that of the step as it is sampled. If training uses something else (pictures alone, or steps without
    guidance), the KL is measured separately: for the first image of each prompt, at each step of the update, from the guided predictions of policy and
    reference.
    """

    def __init__(self, policy: AbstractPolicy, replay: Replay, needs: Needs, sampler: Replay | None = None) -> None:
        self._policy, self._replay, self._needs = policy, replay, needs
        self._sampler = sampler or replay
        self._reference: Reference = policy.without_adapter

    def compare_with(self, reference: Reference) -> None:
        """Set the reference, which is the pretrained model otherwise."""
        self._reference = reference

    @abstractmethod
    def choices(self, timestep_range: tuple[int, int]) -> Int[Tensor, " S"]:
        """The steps that an update may use, within a range of timesteps (ends included).

        Raises:
            ConfigError: the range contains no such step.
        """

    @abstractmethod
    def count(self, fraction: float, choices: int) -> int:
        """How many of the `choices` steps an update draws, given `training.timestep_fraction`; at least 1."""

    @abstractmethod
    def read(
        self, groups: Sequence[PromptGroup], condition: Condition, steps: Int[Tensor, " S"], noise_key: NoiseKey, *, measures: bool = True
    ) -> StepTerms:
        """Compute the log-ratios of all images of `groups` at `steps`, with gradient.

        Args:
            groups: the images, by prompt.
            condition: the condition of each prompt of the round.
            steps: the steps, as `choices` returns them.
            noise_key: what the seed of noise is derived from.
            measures: whether to measure the KL to the reference also where that needs forward passes of its own.
        """

    @abstractmethod
    def progress(self, steps: Int[Tensor, " S"]) -> list[float]:
        """How far each step is from noise (0) to picture (1), in [0, 1)."""

    @torch.no_grad()
    def _by_both(self, work: Callable[[], T]) -> tuple[T, T]:
        """Run `work` with the policy's weights and with the reference's, and return both results.

        Call it before the policy's prediction that is differentiated: the weights must not change between that prediction and its gradient.
        """
        with self._reference():
            theirs = work()
        return work(), theirs


class TrajectoryLikelihood(Likelihood):
    """Log-probs of recorded denoising steps. A step is given by its position in the sampler's grid."""

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
        per_image = condition.select(prompt_indices(groups))
        as_sampled = self._replay.guidance == self._sampler.guidance
        drift = self._drift(groups, batch.x_t, steps, condition) if measures and not as_sampled else None
        step = replay.step(self._policy, batch.x_t, steps, per_image)
        log_probs = replay.log_prob_of(step, batch.x_next)
        assert batch.reference is not None
        return StepTerms(
            log_ratio=log_probs - batch.reference.log_probs.to(log_probs),
            kl=self._to_pretrained(replay, step, batch.x_t, steps, per_image) if self._needs.exact_kl else None,
            drift=self._sketched_drift(step, batch.reference.sketches) if as_sampled else drift,
        )

    def progress(self, steps: Int[Tensor, " S"]) -> list[float]:
        return [step / len(self._replay.grid) for step in steps.tolist()]

    def _to_pretrained(self, replay: Replay, step: GaussianStep, x_t: Tensor, steps: Tensor, condition: Condition) -> Float[Tensor, "S N"]:
        with torch.no_grad(), self._policy.without_adapter():
            pretrained = replay.step(self._policy, x_t, steps, condition)
        return kl_of_steps(step, pretrained).unflatten(0, x_t.shape[:2])

    @torch.no_grad()
    def _sketched_drift(self, step: GaussianStep, theirs: Float[Tensor, "S N width"]) -> Float[Tensor, "S N"]:
        return kl_of_sketches(step, theirs.flatten(0, 1)).unflatten(0, theirs.shape[:2])

    def _drift(self, groups: Sequence[PromptGroup], x_t: Tensor, steps: Tensor, condition: Condition) -> Float[Tensor, "S N"]:
        sampler, per_prompt = self._sampler.at(groups[0].latent_shape), condition.select(torch.tensor([group.prompt for group in groups]))
        mine, theirs = self._by_both(lambda: sampler.step(self._policy, _firsts(x_t, groups), steps, per_prompt))
        return _for_all(kl_of_steps(mine, theirs).unflatten(0, (len(steps), len(groups))), groups)


class DenoisingLikelihood(Likelihood):
    """Minus the denoising error of finished pictures, at noise levels and with noise that all images of a prompt share. A step is a timestep.

    The prediction is the conditional one, without guidance, since the variational bound on the likelihood holds for that prediction.
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
        """As many steps as for trajectories, so that an update costs as many forward passes; at least 1."""
        return max(1, -int(-fraction * len(self._replay.grid) // 1))

    def read(
        self, groups: Sequence[PromptGroup], condition: Condition, steps: Int[Tensor, " S"], noise_key: NoiseKey, *, measures: bool = True
    ) -> StepTerms:
        clean = torch.cat([group.clean() for group in groups]).to(self._policy.device)
        count, images = len(steps), len(clean)
        timesteps = steps.repeat_interleave(images).to(clean.device)
        noise = self._noise(groups, steps, noise_key, tuple(clean.shape[1:])).to(clean)
        x_t, target = self._replay.transition.noised(clean.repeat(count, *[1] * (clean.ndim - 1)), noise, timesteps)
        per_sample = condition.select(prompt_indices(groups).repeat(count))
        drift = self._drift(groups, x_t.unflatten(0, (count, images)), steps, condition) if measures else None
        reference = None if self._needs.reference == "none" else self._reference_prediction(x_t, timesteps, per_sample)
        prediction = self._conditional(x_t, timesteps, per_sample)

        def mean_square(difference: Tensor) -> Float[Tensor, "S N"]:
            return _mean_square(difference).unflatten(0, (count, images))

        apart = prediction - target
        error = mean_square(apart)
        if reference is None:
            return StepTerms(log_ratio=-error, drift=drift)
        reference_error = mean_square(reference - target)
        return StepTerms(
            log_ratio=reference_error - error,
            drift=drift,
            change=mean_square(prediction - reference) if self._needs.change else None,
            reference_error=reference_error if self._needs.change else None,
            products=_mean_products(apart.detach().unflatten(0, (count, images))) if self._needs.products else None,
        )

    def _conditional(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        return self._replay.unguided(self._policy).predict(self._policy, x_t, timesteps, condition)

    @torch.no_grad()
    def _reference_prediction(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Float[Tensor, " B *latent"]:
        """The reference's prediction. Call it before the policy's prediction that is differentiated, for the reason given at `_by_both`."""
        with self._reference():
            return self._conditional(x_t, timesteps, condition)

    def _drift(self, groups: Sequence[PromptGroup], x_t: Tensor, steps: Tensor, condition: Condition) -> Float[Tensor, "S N"]:
        """The KL of the sampler's step that each timestep falls into, from the difference of the two guided predictions; bounds on x_0 are ignored."""
        sampler, count = self._sampler.at(groups[0].latent_shape), len(groups)
        per_sample = condition.select(torch.tensor([group.prompt for group in groups]).repeat(len(steps)))
        firsts = _firsts(x_t, groups).flatten(0, 1)
        timesteps = steps.repeat_interleave(count).to(firsts.device)
        places = falls_into(sampler.grid, steps)
        scale = sampler.scale(sampler.grid.timesteps[places].repeat_interleave(count).to(firsts.device))
        mine, theirs = self._by_both(lambda: self._policy.predict(firsts, timesteps, per_sample, scale))
        apart = _mean_square(mine - theirs).unflatten(0, (len(steps), count))
        return _for_all(sampler.transition.sensitivity(sampler.grid)[places].to(apart)[:, None] ** 2 / 2 * apart, groups)

    def progress(self, steps: Int[Tensor, " S"]) -> list[float]:
        timesteps = self._replay.transition.train_timesteps
        return [(timesteps - 1 - step) / timesteps for step in steps.tolist()]

    def _noise(self, groups: Sequence[PromptGroup], steps: Tensor, noise_key: NoiseKey, shape: tuple[int, ...]) -> Tensor:
        """Noise seeded by run seed, round, update, prompt and timestep; the same for all images of a prompt."""
        seed, round, update = noise_key
        return torch.cat(
            [
                torch.randn(shape, generator=seeded(seed, "noise level", round, update, group.identity, step)).expand(len(group), *shape)
                for step in steps.tolist()
                for group in groups
            ]
        )


def likelihood_of(policy: AbstractPolicy, replay: Replay, needs: Needs, sampler: Replay | None = None) -> Likelihood:
    """Make the likelihood that an objective needs; `sampler` is how the run samples, by default as `replay` says."""
    return (TrajectoryLikelihood if needs.evidence == "trajectories" else DenoisingLikelihood)(policy, replay, needs, sampler)


def falls_into(grid: StepGrid, timesteps: Int[Tensor, " S"]) -> Int[Tensor, " S"]:
    """The position in the grid of the step whose interval contains each timestep."""
    return ((grid.timesteps >= timesteps[:, None]).sum(dim=1) - 1).clamp(min=0)


def prompt_indices(groups: Sequence[PromptGroup]) -> Int[Tensor, " N"]:
    """The index of each image's prompt in the round's condition, for the concatenated images of all groups."""
    return torch.tensor([group.prompt for group in groups for _ in range(len(group))])


def _firsts(images: Float[Tensor, "S N *latent"], groups: Sequence[PromptGroup]) -> Float[Tensor, "S G *latent"]:
    """The entries of each prompt's first image."""
    sizes = torch.tensor([len(group) for group in groups])
    return images[:, (sizes.cumsum(0) - sizes).to(images.device)]


def _for_all(values: Float[Tensor, "S G"], groups: Sequence[PromptGroup]) -> Float[Tensor, "S N"]:
    """Repeat each prompt's value for all of its images."""
    return values.repeat_interleave(torch.tensor([len(group) for group in groups], device=values.device), dim=1)


def _mean_square(difference: Float[Tensor, " B *latent"]) -> Float[Tensor, " B"]:
    return difference.square().flatten(1).mean(dim=1)


def _mean_products(differences: Float[Tensor, "S N *latent"]) -> Float[Tensor, "S N N"]:
    flat = differences.flatten(2)
    return flat @ flat.mT / flat.shape[2]
