"""Log-probs of recorded steps under the policy as it is now."""

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
    """How trajectories were sampled, and so how they are replayed."""

    transition: Transition
    grid: StepGrid
    guidance: float
    reduce: LogProbReduce
    guidance_range: tuple[int, int] = (0, 1000)
    """Only steps whose timestep lies in it, ends included, are guided; of the others the scale is 1."""
    samplers: Mapping[tuple[int, ...], Sampler] = field(default_factory=dict[tuple[int, ...], Sampler])
    """The sampler of each further shape of latents, by shape."""

    def at(self, latent_shape: Sequence[int]) -> "Replay":
        """How latents of this shape are sampled; some flow models shift their noise levels by it."""
        sampler = self.samplers.get(tuple(latent_shape))
        return self if sampler is None else replace(self, transition=sampler.transition, grid=sampler.grid, samplers={})

    def unguided(self, policy: AbstractPolicy) -> "Replay":
        """How the conditional prediction is asked for; a network that takes the scale as an input knows no other than it is sampled with."""
        return self if policy.guidance_is_input else replace(self, guidance=1.0)

    def predict(
        self, policy: AbstractPolicy, x_t: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, " B *latent"]:
        """The policy's guided prediction, as it is sampled with and trained with."""
        return policy.predict(x_t, timesteps, condition, self.scale(timesteps))

    def scale(self, timesteps: Num[Tensor, " B"]) -> float | Float[Tensor, " B"]:
        """The guidance scale at steps of the grid."""
        low, high = self.guidance_range
        everywhere = low <= self.grid.timesteps.min() and self.grid.timesteps.max() <= high
        return self.guidance if everywhere else torch.where((timesteps >= low) & (timesteps <= high), self.guidance, 1.0)

    def step(
        self, policy: AbstractPolicy, x_t: Float[Tensor, "S N *latent"], steps: Int[Tensor, " S"], condition: Condition
    ) -> ReverseStep:
        """The policy's steps from x_t, S times N of them, in one network call.

        `condition` has one row per image; `steps` are positions in the grid.
        """
        count, images = x_t.shape[:2]
        timesteps = self.grid.timesteps[steps].repeat_interleave(images).to(policy.device)
        previous = self.grid.previous[steps].repeat_interleave(images).to(policy.device)
        flat = x_t.flatten(0, 1).to(policy.device)
        rows = condition.rows(torch.arange(images).repeat(count))
        return self.transition.step(self.predict(policy, flat, timesteps, rows), flat, timesteps, previous)

    def log_prob_of(self, step: GaussianStep, x_next: Float[Tensor, "S N *latent"]) -> Float[Tensor, "S N"]:
        """log pi(x_next | x_t) of the steps that `step` gave."""
        return step.log_prob(x_next.flatten(0, 1).to(step.mean.device), reduce=self.reduce).unflatten(0, x_next.shape[:2])

    def log_probs(
        self,
        policy: AbstractPolicy,
        x_t: Float[Tensor, "S N *latent"],
        x_next: Float[Tensor, "S N *latent"],
        steps: Int[Tensor, " S"],
        condition: Condition,
    ) -> Float[Tensor, "S N"]:
        """log pi(x_next | x_t) of S steps of N images, in one network call."""
        return self.log_prob_of(self.step(policy, x_t, steps, condition), x_next)
