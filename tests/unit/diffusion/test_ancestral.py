"""The ancestral Euler step: against diffusers' scheduler with the same noise, against DDIM, and by its own information."""

from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from torch import Tensor

from d3po.diffusion.ancestral import EulerAncestral
from d3po.diffusion.noise import seeded
from d3po.diffusion.parameterization import Epsilon
from d3po.diffusion.schedule import NoiseSchedule, StepGrid, chained_grid
from d3po.diffusion.transition import DDIM
from d3po.errors import DegenerateStepError
from d3po.models.schedulers import PARAMETERIZATIONS
from tests.precision import BOUND, assert_same

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
PREDICTIONS = ["epsilon", "v_prediction"]


def noise(*identity: int | str, shape: tuple[int, ...] = (3, 2, 4, 4)) -> Tensor:
    return torch.randn(shape, generator=seeded(*identity))


def of_scheduler(scheduler: Any) -> tuple[EulerAncestral, StepGrid]:
    schedule = NoiseSchedule(alphas_cumprod=scheduler.alphas_cumprod.double(), final_alpha_cumprod=1.0)
    transition = EulerAncestral(schedule=schedule, parameterization=PARAMETERIZATIONS[scheduler.config.prediction_type])
    return transition, chained_grid(scheduler.timesteps, end=-1.0)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_step_is_the_one_diffusers_takes_with_the_same_noise(prediction_type, spacing: str, zero_snr: bool) -> None:
    """Which takes some ten operations in float32, on numbers `here` times as large as ours."""
    scheduler: Any = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type=prediction_type, timestep_spacing=spacing, rescale_betas_zero_snr=zero_snr,
    )  # fmt: skip
    scheduler.set_timesteps(10)
    euler, grid = of_scheduler(scheduler)
    for i in range(10):
        here, after = ((scheduler.sigmas[j] ** 2 + 1).sqrt() for j in (i, i + 1))
        x, prediction = noise("x", i), noise("prediction", i)
        step = euler.step(prediction, x, grid.timesteps[i].expand(3), grid.previous[i].expand(3))
        scheduler.scale_model_input(x * here, grid.timesteps[i])
        given = scheduler.step(prediction, grid.timesteps[i], x * here, generator=torch.Generator().manual_seed(i))
        expected, clean = given.prev_sample, given.pred_original_sample
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
        tolerance = 10 * float(here) * torch.finfo(torch.float32).eps
        largest = max(1.0, float(expected.abs().max() / after))
        torch.testing.assert_close(step.draw(drawn) / largest, expected / after / largest, rtol=0, atol=tolerance)
        torch.testing.assert_close(step.expected / clean.abs().max(), clean / clean.abs().max(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_at_whole_timesteps_it_is_ddim(schedule: NoiseSchedule, grid: StepGrid, prediction_type, eta: float) -> None:
    """Put into DDIM's symbols, sigma_up / sqrt(1 + sigma_prev^2) is its std and x0 + sigma_down eps its mean: see docs/method.md."""
    euler = EulerAncestral(schedule=schedule, parameterization=PARAMETERIZATIONS[prediction_type], eta=eta)
    ddim = DDIM(schedule=schedule, parameterization=PARAMETERIZATIONS[prediction_type], eta=eta)
    t, previous = grid.timesteps[:-1], grid.previous[:-1]
    x, prediction = noise("x", shape=(19, 2, 4, 4)), noise("prediction", shape=(19, 2, 4, 4))
    ours, theirs = euler.step(prediction, x, t, previous), ddim.step(prediction, x, t, previous)
    assert_same(ours.mean, theirs.mean)
    assert_same(ours.std, theirs.std)
    inner = StepGrid(timesteps=t, previous=previous)
    assert_same(euler.sensitivity(inner), ddim.sensitivity(inner))


def test_sigma_between_timesteps_lies_on_the_straight_line(schedule: NoiseSchedule) -> None:
    low, middle, high = schedule.sigma(torch.tensor([10.0, 10.25, 11.0]))
    assert float(middle) == pytest.approx(0.75 * float(low) + 0.25 * float(high), rel=BOUND)
    assert schedule.sigma(torch.tensor([-1.0])).tolist() == [0.0]


def test_the_last_step_is_deterministic_and_says_so(schedule: NoiseSchedule) -> None:
    euler = EulerAncestral(schedule=schedule, parameterization=Epsilon())
    grid = chained_grid(torch.tensor([801.0, 401.0, 1.0]), end=-1.0)
    assert euler.stochastic(grid).tolist() == [True, True, False]
    assert euler.sensitivity(grid)[-1] == 0
    last = euler.step(noise("p"), noise("x"), grid.timesteps[-1:].expand(3), grid.previous[-1:].expand(3))
    with pytest.raises(DegenerateStepError, match="3 of 3 steps have std <= 0"):
        last.log_prob(noise("y"), reduce="mean")


def test_negative_eta_is_refused(schedule: NoiseSchedule) -> None:
    with pytest.raises(ValueError, match=r"eta is -0\.5"):
        EulerAncestral(schedule=schedule, parameterization=Epsilon(), eta=-0.5)
