"""How much noise each timestep carries, and which timesteps a sampler visits."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from d3po.options import Spacing


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The signal share alpha_bar_t of a discrete-time diffusion: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise."""

    alphas_cumprod: Float[Tensor, " N"]
    final_alpha_cumprod: float
    """alpha_bar of the state after the last step, where the timestep is below 0 (1 means: exactly x_0)."""

    def alpha_bar(self, timesteps: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """alpha_bar of each timestep; a negative timestep is the state after the last step."""
        table = self.alphas_cumprod.to(timesteps.device)
        return torch.where(timesteps >= 0, table[timesteps.clamp(min=0)], self.final_alpha_cumprod)


@dataclass(frozen=True, kw_only=True)
class StepGrid:
    """The T reverse steps of a sampler, from noise to picture: step i goes from timesteps[i] to previous[i]."""

    timesteps: Int[Tensor, " T"]
    previous: Int[Tensor, " T"]

    def __len__(self) -> int:
        return len(self.timesteps)


def step_grid(
    num_train_timesteps: int,
    num_steps: int,
    *,
    spacing: Spacing,
    steps_offset: int = 0,
    clamp_previous: bool = False,
) -> StepGrid:
    """The timesteps diffusers' DDIMScheduler visits for the same settings (Lin et al. 2024, arXiv 2305.08891, table 2).

    `clamp_previous=True` lets the last step end at timestep 0 instead of below it, as the published D3PO code does,
    so that schedules whose final alpha_bar is 1 keep a density there.
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
