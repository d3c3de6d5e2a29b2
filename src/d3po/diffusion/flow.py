"""Reverse steps of flow models, x_sigma = (1 - sigma) x_0 + sigma noise, whose network predicts the velocity noise - x_0."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from d3po.diffusion.schedule import StepGrid, chained_grid
from d3po.diffusion.transition import ReverseStep, Transition, over_latent

TIMESTEPS = 1000
"""Timesteps are 1000 sigma, as in the published flow models."""


@dataclass(frozen=True, kw_only=True)
class FlowSDE(Transition):
    """One Euler-Maruyama step of the SDE that has the same marginals as the flow (Liu et al. 2025, Flow-GRPO, arXiv 2505.05470, eq. 9).

    It adds noise of rate s = a sqrt(sigma / (1 - sigma)) and corrects the drift by the score, which is a function of the flow's velocity v:

        mean = x (1 + s^2 / (2 sigma) dt) + v (1 + s^2 (1 - sigma) / (2 sigma)) dt,   std = s sqrt(-dt),   dt = sigma_prev - sigma < 0

    With a = 0 this is the Euler step of the ODE.
    """

    noise_level: float
    """a: 0 is deterministic, 0.7 is the published value."""
    ceiling: float
    """The rate has a pole at sigma = 1, where 1 - ceiling stands for 1 - sigma. As published, it is the sigma after the first step."""
    noisy_end: bool = False
    """Whether the step that ends at sigma = 0 adds noise too, as published; that noise stays in the picture. Otherwise this step is the ODE's."""

    def __post_init__(self) -> None:
        if self.noise_level < 0:
            raise ValueError(f"noise_level is {self.noise_level}; it must be 0 (deterministic) or more")
        if not 0 < self.ceiling < 1:
            raise ValueError(f"ceiling is {self.ceiling}; it must lie between 0 and 1, such as the sigma after the first step")

    @property
    def train_timesteps(self) -> int:
        return TIMESTEPS

    def step(
        self,
        prediction: Float[Tensor, " B *latent"],
        x_t: Float[Tensor, " B *latent"],
        timesteps: Num[Tensor, " B"],
        previous: Num[Tensor, " B"],
    ) -> ReverseStep:
        """The distribution of x at the next sigma; the prediction is the velocity."""
        sigma, end = timesteps / TIMESTEPS, previous / TIMESTEPS
        pull = over_latent(1 + self._rate(sigma, end) ** 2 / (2 * sigma) * (end - sigma), x_t)
        return ReverseStep(
            mean=x_t * pull + over_latent(self.slope(timesteps, previous), x_t) * prediction,
            std=self.std(timesteps, previous),
            expected=x_t - over_latent(sigma, x_t) * prediction,
        )

    def noised(
        self, x0: Float[Tensor, " B *latent"], noise: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"]
    ) -> tuple[Float[Tensor, " B *latent"], Float[Tensor, " B *latent"]]:
        """Add noise: x = (1 - sigma) x0 + sigma noise. Returns (x, velocity), the velocity being noise - x0."""
        sigma = over_latent(timesteps / TIMESTEPS, x0)
        return (1 - sigma) * x0 + sigma * noise, noise - x0

    def std(self, timesteps: Num[Tensor, " B"], previous: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        sigma, end = timesteps / TIMESTEPS, previous / TIMESTEPS
        return self._rate(sigma, end) * (sigma - end).sqrt()

    def slope(self, timesteps: Num[Tensor, " B"], previous: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        sigma, end = timesteps / TIMESTEPS, previous / TIMESTEPS
        return (1 + self._rate(sigma, end) ** 2 * (1 - sigma) / (2 * sigma)) * (end - sigma)

    def _rate(self, sigma: Float[Tensor, " B"], end: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        rate = self.noise_level * (sigma / (1 - torch.where(sigma >= 1, self.ceiling, sigma))).sqrt()
        return rate if self.noisy_end else torch.where(end > 0, rate, 0.0)


def flow_grid(sigmas: Float[Tensor, " levels"]) -> StepGrid:
    """The steps between consecutive noise levels, which must fall; the last level is 0 for a whole rollout.

    Raises:
        ValueError: the levels do not fall, or are outside [0, 1].
    """
    if not ((sigmas.diff() < 0).all() and sigmas[-1] >= 0 and sigmas[0] <= 1):
        raise ValueError(f"a flow's noise levels must fall within [0, 1], but they are {[round(s, 4) for s in sigmas.tolist()]}")
    timesteps = sigmas * TIMESTEPS
    return chained_grid(timesteps[:-1], end=float(timesteps[-1]))
