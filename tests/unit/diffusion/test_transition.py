"""One reverse step: against torch's normal distribution, against diffusers' DDIM, and by Monte Carlo."""

from itertools import product
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from d3po.diffusion.noise import seeded
from d3po.diffusion.parameterization import Epsilon
from d3po.diffusion.schedule import NoiseSchedule, StepGrid, step_grid
from d3po.diffusion.transition import DDIM, GaussianStep, dynamic_threshold
from d3po.errors import DegenerateStepError
from d3po.models.schedulers import PARAMETERIZATIONS
from tests.precision import BOUND, assert_same

PREDICTIONS = ["epsilon", "v_prediction", "sample"]
BOUNDS: dict[str, dict[str, Any]] = {
    "free": {"clip_sample": False},
    "clipped": {"clip_sample": True, "clip_sample_range": 0.7},
    "thresholded": {"clip_sample": False, "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
}


def noise(*identity: int | str, shape: tuple[int, ...] = (3, 2, 4, 4)) -> Tensor:
    return torch.randn(shape, generator=seeded(*identity))


def of_scheduler(scheduler: Any, eta: float) -> DDIM:
    config = scheduler.config
    return DDIM(
        schedule=NoiseSchedule(alphas_cumprod=scheduler.alphas_cumprod, final_alpha_cumprod=float(scheduler.final_alpha_cumprod)),
        parameterization=PARAMETERIZATIONS[config.prediction_type],
        eta=eta,
        clip_range=config.clip_sample_range if config.clip_sample else None,
        threshold_ratio=config.dynamic_thresholding_ratio if config.thresholding else None,
        threshold_max=config.sample_max_value,
    )


@settings(max_examples=40, deadline=None)
@given(std=st.floats(1e-3, 10), seed=st.integers(0, 1000))
def test_log_prob_is_the_normal_density(std: float, seed: int) -> None:
    mean, x = noise("mean", seed), noise("x", seed)
    spread = torch.tensor([std, 2 * std, 0.5])
    elements = Normal(mean, spread[:, None, None, None]).log_prob(x).flatten(1)
    step = GaussianStep(mean=mean, std=spread)
    assert_same(step.log_prob(x, reduce="sum"), elements.sum(1))
    assert_same(step.log_prob(x, reduce="mean"), elements.mean(1))


def test_draw_is_the_mean_moved_by_std_times_noise() -> None:
    step = GaussianStep(mean=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), std=torch.tensor([0.5, 2.0]))
    assert step.draw(torch.tensor([[1.0, -1.0], [1.0, 0.0]])).tolist() == [[1.5, 1.5], [5.0, 4.0]]


@pytest.mark.parametrize("stds", [(1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (-1.0, 0.5, 0.0)])
def test_step_without_density_says_how_many_there_are(stds: tuple[float, ...]) -> None:
    bad = sum(std <= 0 for std in stds)
    with pytest.raises(DegenerateStepError, match=f"^{bad} of 3 steps have std <= 0.*set eta > 0"):
        GaussianStep(mean=noise("m"), std=torch.tensor(stds)).log_prob(noise("x"), reduce="mean")


def test_no_gradient_flows_into_the_recorded_latent() -> None:
    mean, x = noise("m").requires_grad_(), noise("x").requires_grad_()
    GaussianStep(mean=mean, std=torch.ones(3)).log_prob(x, reduce="sum").sum().backward()
    assert x.grad is None
    assert mean.grad is not None
    assert_same(mean.grad, (x - mean).detach())


@pytest.mark.parametrize(
    ("prediction_type", "spacing", "eta", "to_one", "bound"),
    list(product(PREDICTIONS, ["leading", "trailing", "linspace"], [0.0, 0.5, 1.0], [True, False], BOUNDS)),
)
def test_step_is_the_one_diffusers_takes(prediction_type, spacing, eta: float, to_one: bool, bound: str) -> None:
    scheduler: Any = DDIMScheduler(
        prediction_type=prediction_type, timestep_spacing=spacing, set_alpha_to_one=to_one, steps_offset=int(not to_one), **BOUNDS[bound]
    )
    scheduler.set_timesteps(10)
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = scheduler.alphas_cumprod.double(), scheduler.final_alpha_cumprod.double()
    ddim, grid = of_scheduler(scheduler, eta), step_grid(1000, 10, spacing=spacing, steps_offset=int(not to_one))
    assert torch.equal(grid.timesteps, scheduler.timesteps)
    for i in (0, 4, 9):
        x_t, prediction, drawn = noise("x", i), noise("prediction", i), noise("drawn", i)
        expected = scheduler.step(prediction, int(grid.timesteps[i]), x_t, eta=eta, variance_noise=drawn)
        step = ddim.step(prediction, x_t, grid.timesteps[i].expand(3), grid.previous[i].expand(3))
        assert_same(step.draw(drawn), expected.prev_sample)
        assert_same(step.expected, expected.pred_original_sample)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@given(alpha_bar=st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_split_puts_x_t_together_again(prediction_type, alpha_bar: float) -> None:
    a = torch.tensor(alpha_bar)
    x_t = noise("x")
    x0, epsilon = PARAMETERIZATIONS[prediction_type].split(noise("p"), x_t, a)
    assert_same(a.sqrt() * x0 + (1 - a).sqrt() * epsilon, x_t)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_true_prediction_of_each_kind_finds_the_clean_latent(prediction_type) -> None:
    a, x0, epsilon = torch.tensor(0.3), noise("clean"), noise("epsilon")
    truth = {"epsilon": epsilon, "sample": x0, "v_prediction": a.sqrt() * epsilon - (1 - a).sqrt() * x0}
    parameterization = PARAMETERIZATIONS[prediction_type]
    assert_same(parameterization.target(x0, epsilon, a), truth[prediction_type])
    found, noise_found = parameterization.split(truth[prediction_type], a.sqrt() * x0 + (1 - a).sqrt() * epsilon, a)
    assert_same(found, x0)
    assert_same(noise_found, epsilon)


def test_threshold_leaves_a_sample_within_one_alone_and_bounds_the_others() -> None:
    small, large = torch.linspace(-0.9, 0.9, 16), torch.linspace(-4, 4, 16)
    bounded = dynamic_threshold(torch.stack([small, large]), ratio=0.5, maximum=3.0)
    assert_same(bounded[0], small)
    bound = large.abs().quantile(0.5)
    assert_same(bounded[1], large.clamp(-bound, bound) / bound)


def test_eta_scales_the_spread(schedule: NoiseSchedule, grid: StepGrid) -> None:
    stds = [DDIM(schedule=schedule, parameterization=Epsilon(), eta=eta).std(grid.timesteps, grid.previous) for eta in (0.0, 0.5, 1.0)]
    assert (stds[0] == 0).all()
    assert (stds[2] > 0).all()
    assert_same(2 * stds[1], stds[2])


def test_full_eta_has_the_spread_of_the_ddpm_posterior(schedule: NoiseSchedule) -> None:
    """Ho et al. 2020, arXiv 2006.11239, eq. 7: beta_t (1 - abar_{t-1}) / (1 - abar_t), for steps of one timestep."""
    t = torch.tensor([1, 10, 500, 999])
    abar = schedule.alphas_cumprod
    beta = 1 - abar[t] / abar[t - 1]
    std = DDIM(schedule=schedule, parameterization=Epsilon(), eta=1.0).std(t, t - 1)
    torch.testing.assert_close(std**2, beta * (1 - abar[t - 1]) / (1 - abar[t]), rtol=BOUND, atol=0)


def test_last_step_to_a_clean_picture_is_not_stochastic(schedule: NoiseSchedule) -> None:
    to_one = NoiseSchedule(alphas_cumprod=schedule.alphas_cumprod, final_alpha_cumprod=1.0)
    ddim = DDIM(schedule=to_one, parameterization=Epsilon(), eta=1.0)
    free = ddim.stochastic(step_grid(1000, 20, spacing="leading", steps_offset=1))
    clamped = ddim.stochastic(step_grid(1000, 20, spacing="leading", steps_offset=1, clamp_previous=True))
    assert free.tolist() == [True] * 19 + [False]
    assert clamped.all()


def test_negative_eta_is_refused(schedule: NoiseSchedule) -> None:
    with pytest.raises(ValueError, match=r"eta is -0\.1"):
        DDIM(schedule=schedule, parameterization=Epsilon(), eta=-0.1)


def test_two_bounds_on_the_clean_latent_are_refused(schedule: NoiseSchedule) -> None:
    with pytest.raises(ValueError, match="clip_range and threshold_ratio"):
        DDIM(schedule=schedule, parameterization=Epsilon(), eta=1.0, clip_range=1.0, threshold_ratio=0.9)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("position", [0, 10, 19])
def test_expected_score_is_zero_and_its_square_the_sensitivity(
    schedule: NoiseSchedule, grid: StepGrid, prediction_type, position: int
) -> None:
    """E[d log p / d prediction] = 0 under the step's own samples, and E[its square] is the Fisher information."""
    draws, shape = 4000, (2, 3)
    ddim = DDIM(schedule=schedule, parameterization=PARAMETERIZATIONS[prediction_type], eta=1.0)
    x_t = noise("x_t", shape=shape).expand(draws, *shape)
    prediction = noise("prediction", shape=shape).repeat(draws, 1, 1).requires_grad_()
    step = ddim.step(prediction, x_t, grid.timesteps[position].expand(draws), grid.previous[position].expand(draws))
    log_prob = step.log_prob(step.draw(noise("draws", position, shape=(draws, *shape))), reduce="sum")
    (score,) = torch.autograd.grad(log_prob.sum(), prediction)
    standard_error = score.std(dim=0) / draws**0.5
    assert (score.mean(dim=0).abs() < 4 * standard_error).all()
    fisher = float(ddim.sensitivity(grid)[position]) ** 2
    count = score.numel()
    assert float((score**2).mean()) == pytest.approx(fisher, rel=4 * (2 / count) ** 0.5)


def test_step_at_51_holds_73_percent_of_the_information(ddim: DDIM, grid: StepGrid) -> None:
    squared = ddim.sensitivity(grid) ** 2
    share = squared / squared.sum()
    assert int(grid.timesteps[share.argmax()]) == 51
    assert float(share.max()) == pytest.approx(0.73, abs=0.01)


def test_step_without_density_has_no_sensitivity(schedule: NoiseSchedule, grid: StepGrid) -> None:
    assert (DDIM(schedule=schedule, parameterization=Epsilon(), eta=0.0).sensitivity(grid) == 0).all()
