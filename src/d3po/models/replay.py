"""Replay: the distributions and log-probs of recorded steps under the current policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from d3po.diffusion.schedule import StepGrid
from d3po.diffusion.transition import GaussianStep, ReverseStep, Transition
from d3po.models.base import AbstractPolicy, Condition, Sampler
from d3po.options import LogProbReduce


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How trajectories are sampled and replayed."""

    transition: Transition
    grid: StepGrid
    guidance: float
    """The guidance scale."""
    reduce: LogProbReduce
    guidance_range: tuple[int, int] = (0, 1000)
    """Steps whose timestep is in this range, ends included, are guided; the others have a scale of 1."""
    samplers: Mapping[tuple[int, ...], Sampler] = field(default_factory=dict[tuple[int, ...], Sampler])
    """The samplers for latents of other shapes, by shape."""

    def at(self, latent_shape: Sequence[int]) -> "Replay":
        """The replay for latents of this shape, on which the noise levels of some flow models depend."""
        sampler = self.samplers.get(tuple(latent_shape))
        return self if sampler is None else replace(self, transition=sampler.transition, grid=sampler.grid, samplers={})

    def unguided(self, policy: AbstractPolicy) -> "Replay":
        """The replay without guidance. A network that takes the scale as an input keeps its scale, as it has no prediction without one."""
        return self if policy.guidance_is_input else replace(self, guidance=1.0)

    def predict(
        self, policy: AbstractPolicy, x_t: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, " B *latent"]:
        """The policy's guided prediction, both in sampling and in training."""
        return policy.predict(x_t, timesteps, condition, self.scale(timesteps))

    def scale(self, timesteps: Num[Tensor, " B"]) -> float | Float[Tensor, " B"]:
        """The guidance scale at the given timesteps: one for all, or one for each where `guidance_range` excludes some steps of the grid."""
        low, high = self.guidance_range
        everywhere = low <= self.grid.timesteps.min() and self.grid.timesteps.max() <= high
        return self.guidance if everywhere else torch.where((timesteps >= low) & (timesteps <= high), self.guidance, 1.0)

    def step(
        self, policy: AbstractPolicy, x_t: Float[Tensor, "S N *latent"], steps: Int[Tensor, " S"], condition: Condition
    ) -> ReverseStep:
        """The policy's steps at S steps of N images, a batch of S * N, in one network call.

        `condition` has one element for each image; `steps` are positions in the grid.
        """
        count, images = x_t.shape[:2]
        timesteps = self.grid.timesteps[steps].repeat_interleave(images).to(policy.device)
        previous = self.grid.previous[steps].repeat_interleave(images).to(policy.device)
        flat = x_t.flatten(0, 1).to(policy.device)
        repeated = condition.select(torch.arange(images).repeat(count))
        return self.transition.step(self.predict(policy, flat, timesteps, repeated), flat, timesteps, previous)

    def log_prob_of(self, step: GaussianStep, x_next: Float[Tensor, "S N *latent"]) -> Float[Tensor, "S N"]:
        """log pi(x_next | x_t) under the distributions that `step` returned, in nats."""
        return step.log_prob(x_next.flatten(0, 1).to(step.mean.device), reduce=self.reduce).unflatten(0, x_next.shape[:2])

    def log_probs(
        self,
        policy: AbstractPolicy,
        x_t: Float[Tensor, "S N *latent"],
        x_next: Float[Tensor, "S N *latent"],
        steps: Int[Tensor, " S"],
        condition: Condition,
    ) -> Float[Tensor, "S N"]:
        """log pi(x_next | x_t) of S steps of N images in nats, in one network call."""
        return self.log_prob_of(self.step(policy, x_t, steps, condition), x_next)
