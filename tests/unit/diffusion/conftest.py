"""The schedule of Stable Diffusion 1.5, and a network cheap enough to call a thousand times; all in float64."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from d3po.diffusion.parameterization import Epsilon
from d3po.diffusion.schedule import NoiseSchedule, StepGrid, step_grid
from d3po.diffusion.transition import DDIM
from tests.precision import in_float64


@pytest.fixture(scope="module", autouse=True)
def everything_in_float64() -> Iterator[None]:
    with in_float64():
        yield


@pytest.fixture
def schedule() -> NoiseSchedule:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    return NoiseSchedule(alphas_cumprod=alphas_cumprod, final_alpha_cumprod=float(alphas_cumprod[0]))


@pytest.fixture
def ddim(schedule: NoiseSchedule) -> DDIM:
    return DDIM(schedule=schedule, parameterization=Epsilon(), eta=1.0)


@pytest.fixture
def grid() -> StepGrid:
    return step_grid(1000, 20, spacing="leading", steps_offset=1)


@pytest.fixture
def predict():
    """A smooth function of x_t and t, different for every pixel."""

    def predicted(x_t: Tensor, timesteps: Tensor) -> Tensor:
        return torch.sin(x_t + timesteps.view(-1, 1, 1, 1) / 1000)

    return predicted
