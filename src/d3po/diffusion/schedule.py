"""Noise schedules of discrete-time models, and the grids of timesteps that samplers visit."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from d3po.options import Spacing


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The noise schedule of a discrete-time diffusion: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise."""

    alphas_cumprod: Float[Tensor, " N"]
    """alpha_bar of each training timestep."""
    final_alpha_cumprod: float
    """alpha_bar of the state after the last step, where the timestep is below 0 (1 means: exactly x_0)."""

    def alpha_bar(self, timesteps: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        """alpha_bar of whole timesteps; a negative timestep stands for the state after the last step."""
        table = self.alphas_cumprod.to(timesteps.device)
        return torch.where(timesteps >= 0, table[timesteps.long().clamp(min=0)], self.final_alpha_cumprod)

    def sigma(self, timesteps: Num[Tensor, " B"]) -> Float[Tensor, " B"]:
        """sqrt((1 - alpha_bar) / alpha_bar), the noise per unit of signal, interpolated linearly between whole timesteps; 0 below timestep 0.

        An alpha_bar of 0 (zero terminal SNR) counts as 2**-24, as in diffusers' Euler schedulers.
        """
        alphas = self.alphas_cumprod.to(timesteps.device).clamp(min=2**-24)
        table = ((1 - alphas) / alphas).sqrt()
        at = timesteps.to(table).clamp(0, len(table) - 1)
        below = at.floor().long()
        sigma = torch.lerp(table[below], table[(below + 1).clamp(max=len(table) - 1)], at - below)
        return torch.where(timesteps >= 0, sigma, 0.0)


@dataclass(frozen=True, kw_only=True)
class StepGrid:
    """The T reverse steps of a sampler, from noise to picture: step i goes from timesteps[i] to previous[i]."""

    timesteps: Num[Tensor, " T"]
    previous: Num[Tensor, " T"]

    def __len__(self) -> int:
        return len(self.timesteps)


def chained_grid(timesteps: Num[Tensor, " T"], *, end: float) -> StepGrid:
    """A grid in which each step ends where the next begins, and the last one at `end`."""
    return StepGrid(timesteps=timesteps, previous=torch.cat([timesteps[1:], timesteps.new_tensor([end])]))


def step_grid(
    num_train_timesteps: int,
    num_steps: int,
    *,
    spacing: Spacing,
    steps_offset: int = 0,
    clamp_previous: bool = False,
) -> StepGrid:
    """The timesteps that diffusers' DDIMScheduler visits for the same settings (Lin et al. 2024, arXiv 2305.08891, table 2).

    With `clamp_previous=True` the last step ends at timestep 0 instead of below it, as in the published D3PO code, so that this step has a density also
    where the schedule's final alpha_bar is 1.

    Raises:
        ValueError: the model has fewer timesteps than there are steps, or the grid would start after its last timestep.
    """
    if not 1 <= num_steps <= num_train_timesteps:
        raise ValueError(f"num_steps is {num_steps}; it must lie between 1 and the model's {num_train_timesteps} training timesteps")
    stride = num_train_timesteps // num_steps
    if spacing == "leading":
        ascending = np.arange(num_steps) * stride + steps_offset
    elif spacing == "linspace":
        ascending = np.linspace(0, num_train_timesteps - 1, num_steps).round()
    else:
        ascending = np.arange(num_train_timesteps, 0, -num_train_timesteps / num_steps)[:num_steps].round()[::-1] - 1
    timesteps = torch.from_numpy(ascending[::-1].astype(np.int64))
    if timesteps[0] >= num_train_timesteps:
        raise ValueError(
            f"{num_steps} steps with steps_offset = {steps_offset} would start at timestep {int(timesteps[0])}, but the model's last is "
            f"{num_train_timesteps - 1}; take fewer steps"
        )
    previous = timesteps - stride
    return StepGrid(timesteps=timesteps, previous=previous.clamp(min=0) if clamp_previous else previous)
