"""Ancestral Euler steps: an Euler step along the probability flow to a lower noise level, then new noise up to the target level."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from d3po.diffusion.parameterization import Parameterization
from d3po.diffusion.schedule import NoiseSchedule
from d3po.diffusion.transition import ReverseStep, Transition, noised, over_latent


@dataclass(frozen=True, kw_only=True)
class EulerAncestral(Transition):
    """The ancestral Euler step (Karras et al. 2022, arXiv 2206.00364, with the noise of Ho et al. 2020), as in `k-diffusion` and diffusers.

    Those libraries keep y = x0 + sigma eps, whose size grows with sigma. Here latents are x = y / sqrt(1 + sigma^2), whose size is 1 at every
    step, so that they need no scaling before the network or storage. A log-ratio of two policies is the same in both units. At whole timesteps
    the step equals that of DDIM with the same eta; between whole timesteps sigma is interpolated linearly.
    """

    schedule: NoiseSchedule
    parameterization: Parameterization
    eta: float = 1.0

    def __post_init__(self) -> None:
        if self.eta < 0:
            raise ValueError(f"eta is {self.eta}; it must be 0 (deterministic) or more")

    @property
    def train_timesteps(self) -> int:
        return len(self.schedule.alphas_cumprod)

    def step(
        self,
        prediction: Float[Tensor, " B *latent"],
        x_t: Float[Tensor, " B *latent"],
        timesteps: Num[Tensor, " B"],
        previous: Num[Tensor, " B"],
    ) -> ReverseStep:
        """The distribution of x_{t-1}.

        up     = eta sigma_prev sqrt(1 - sigma_prev^2 / sigma^2),   down = sqrt(sigma_prev^2 - up^2)
        mean y = y + (down - sigma) (y - x0) / sigma = x0 + down eps,   std y = up
        """
        sigma, end = self.schedule.sigma(timesteps), self.schedule.sigma(previous)
        x0, epsilon = self.parameterization.split(prediction, x_t, over_latent(self._alpha_bar(timesteps), x_t))
        size = (1 + end**2).sqrt()
        down = (end**2 - self._up(sigma, end) ** 2).clamp(min=0).sqrt()
        mean = (x0 + over_latent(down, x_t) * epsilon) / over_latent(size, x_t)
        return ReverseStep(mean=mean, std=self._up(sigma, end) / size, expected=x0)

    def noised(
        self, x0: Float[Tensor, " B *latent"], noise: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"]
    ) -> tuple[Float[Tensor, " B *latent"], Float[Tensor, " B *latent"]]:
        return noised(x0, noise, self._alpha_bar(timesteps), self.parameterization)

    def std(self, timesteps: Num[Tensor, " B"], previous: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        sigma, end = self.schedule.sigma(timesteps), self.schedule.sigma(previous)
        return self._up(sigma, end) / (1 + end**2).sqrt()

    def slope(self, timesteps: Num[Tensor, " B"], previous: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        sigma = self.schedule.sigma(timesteps)
        return self.step(torch.ones_like(sigma), torch.zeros_like(sigma), timesteps, previous).mean

    def _alpha_bar(self, timesteps: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        """alpha_bar that belongs to the schedule's sigma, which is interpolated linearly between whole timesteps."""
        return 1 / (1 + self.schedule.sigma(timesteps) ** 2)

    def _up(self, sigma: Float[Tensor, " B"], end: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return torch.minimum(end, self.eta * end * (1 - end**2 / sigma**2).clamp(min=0).sqrt())
