"""Steps of flow models: the closed form, diffusers' scheduler at a = 0, and marginals that are known."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from d3po.diffusion.flow import FlowSDE, flow_grid
from d3po.diffusion.noise import NoiseStreams, seeded
from d3po.diffusion.rollout import rollout
from d3po.diffusion.schedule import StepGrid
from d3po.errors import DegenerateStepError
from tests.precision import BOUND, assert_same

CENTRE, SPREAD = 0.8, 0.5
"""The data of the linear field: Normal(CENTRE, SPREAD^2)."""


def noise(*identity: int | str, shape: tuple[int, ...] = (3, 2, 4, 4)) -> Tensor:
    return torch.randn(shape, generator=seeded(*identity))


def grid_of(steps: int, *, first: float = 1.0) -> StepGrid:
    return flow_grid(torch.linspace(first, 0, steps + 1))


def marginal(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_sigma = (1 - sigma) x_0 + sigma noise."""
    return (1 - sigma) * CENTRE, ((1 - sigma) * SPREAD) ** 2 + sigma**2


def velocity(x: Tensor, timesteps: Tensor) -> Tensor:
    """E[noise - x_0 | x_sigma] of the Gaussian data: linear in x."""
    sigma = (timesteps / 1000).view(-1, *[1] * (x.ndim - 1))
    mean, variance = marginal(sigma)
    return -CENTRE + (sigma - (1 - sigma) * SPREAD**2) / variance * (x - mean)


@settings(max_examples=50, deadline=None)
@given(a=st.floats(0.05, 2), sigma=st.floats(0.02, 0.98), share=st.floats(0.01, 0.95), x=st.floats(-3, 3), v=st.floats(-3, 3))
def test_step_is_the_closed_form(a: float, sigma: float, share: float, x: float, v: float) -> None:
    end = sigma * share
    dt, s = end - sigma, a * math.sqrt(sigma / (1 - sigma))
    step = FlowSDE(noise_level=a, ceiling=0.9).step(
        torch.tensor([[v]]), torch.tensor([[x]]), torch.tensor([1000 * sigma]), torch.tensor([1000 * end])
    )
    mean = x * (1 + s**2 / (2 * sigma) * dt) + v * (1 + s**2 * (1 - sigma) / (2 * sigma)) * dt
    assert float(step.mean) == pytest.approx(mean, rel=BOUND, abs=BOUND)
    assert float(step.std) == pytest.approx(s * math.sqrt(-dt), rel=1e-9)


def test_the_true_velocity_finds_the_clean_latent() -> None:
    flow, timesteps = FlowSDE(noise_level=0.7, ceiling=0.9), torch.tensor([1000.0, 420.0, 30.0])
    x_t, target = flow.noised(noise("x0"), noise("noise"), timesteps)
    assert_same(flow.step(target, x_t, timesteps, timesteps / 2).expected, noise("x0"))


def test_log_prob_is_the_normal_density() -> None:
    flow, grid = FlowSDE(noise_level=0.7, ceiling=0.9), grid_of(10)
    step = flow.step(noise("v"), noise("x"), grid.timesteps[[0, 4, 8]], grid.previous[[0, 4, 8]])
    elements = Normal(step.mean, step.std[:, None, None, None]).log_prob(noise("y")).flatten(1)
    assert_same(step.log_prob(noise("y"), reduce="sum"), elements.sum(1))
    assert_same(step.log_prob(noise("y"), reduce="mean"), elements.mean(1))


@pytest.mark.parametrize(
    "options",
    [{}, {"shift": 3.0}, {"use_dynamic_shifting": True}, {"use_dynamic_shifting": True, "time_shift_type": "linear"},
     {"shift_terminal": 0.02}, {"shift": 3.0, "use_karras_sigmas": True}],
    ids=["plain", "shift", "mu", "mu, linear", "terminal", "karras"],
)  # fmt: skip
def test_without_noise_a_rollout_is_that_of_diffusers(options: dict[str, Any]) -> None:
    """Which rounds latents to float32 before each step, where those of a rollout are rounded after it; the last digit may fall either way."""
    scheduler: Any = FlowMatchEulerDiscreteScheduler(**options)
    scheduler.set_timesteps(12, mu=0.9 if options.get("use_dynamic_shifting") else None)
    scheduler.sigmas = scheduler.sigmas.double()
    grid, last_digit = flow_grid(scheduler.sigmas), torch.finfo(torch.float32).eps
    torch.testing.assert_close(grid.timesteps, scheduler.timesteps.double(), rtol=4 * last_digit, atol=0)
    x = noise("start").float().double()
    ours = rollout(velocity, FlowSDE(noise_level=0.0, ceiling=0.9), grid, x, lambda shape: torch.zeros(shape), reduce="mean")
    for i, (t, step) in enumerate(zip(scheduler.timesteps, ours, strict=True)):
        x = scheduler.step(velocity(x, 1000 * scheduler.sigmas[i].expand(3)), t, x).prev_sample.float().double()
        assert_same(step.latents, x, bound=(i + 1) * last_digit)
        assert step.log_probs.isnan().all()


def test_as_the_noise_level_falls_the_step_nears_that_of_diffusers() -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    scheduler.sigmas = scheduler.sigmas.double()
    grid, x = flow_grid(scheduler.sigmas), noise("x").float().double()
    expected = scheduler.step(noise("v"), scheduler.timesteps[0], x).prev_sample
    for a in (1e-1, 1e-2, 1e-3):
        flow = FlowSDE(noise_level=a, ceiling=float(scheduler.sigmas[1]))
        step = flow.step(noise("v"), x, grid.timesteps[:1].expand(3), grid.previous[:1].expand(3))
        assert float((step.mean - expected).abs().max()) < 5 * a**2
        assert 0 < float(step.std.max()) < 2 * a


@pytest.mark.parametrize("a", [0.3, 0.7, 1.0])
def test_a_linear_velocity_field_stays_on_its_marginals(a: float) -> None:
    """By Monte Carlo: 20 000 samples, 400 steps, checked at five noise levels."""
    images, first = 20_000, 0.95
    grid = grid_of(400, first=first)
    mean, variance = marginal(torch.tensor(first))
    start = mean + variance.sqrt() * noise("start", str(a), shape=(images, 1))
    generator = seeded("steps", str(a))
    steps = rollout(
        velocity, FlowSDE(noise_level=a, ceiling=0.99), grid, start,
        lambda shape: torch.randn((images, *shape), generator=generator), reduce="mean",
    )  # fmt: skip
    for i, step in enumerate(steps, start=1):
        if i % 80 == 0:
            mean, variance = marginal(torch.tensor(first * (1 - i / 400)))
            assert float(step.latents.mean()) == pytest.approx(float(mean), abs=4 * float(variance.sqrt()) / images**0.5 + 0.01)
            assert float(step.latents.var()) == pytest.approx(float(variance), rel=4 * (2 / images) ** 0.5 + 0.02)


def deviation(steps: int, a: float = 0.7) -> float:
    """How far the variance at the end is from the data's, the recursion of mean and variance being exact for a linear field."""
    grid, flow = grid_of(steps, first=0.9), FlowSDE(noise_level=a, ceiling=0.95)
    variance = marginal(torch.tensor(0.9))[1]
    for t, previous in zip(grid.timesteps[:, None], grid.previous[:, None], strict=True):
        zero, one = (flow.step(velocity(x, t), x, t, previous).mean for x in (torch.zeros(1, 1), torch.ones(1, 1)))
        variance = (one - zero).squeeze() ** 2 * variance + flow.std(t, previous).squeeze() ** 2
    return abs(float(variance) - SPREAD**2)


def test_the_deviation_from_the_marginals_falls_with_the_step() -> None:
    errors = [deviation(steps) for steps in (25, 50, 100)]
    assert all(1.6 < coarse / fine < 2.4 for coarse, fine in pairwise(errors))


def test_the_first_step_from_pure_noise_is_read_at_the_ceiling() -> None:
    flow = FlowSDE(noise_level=0.7, ceiling=0.8)
    grid = flow_grid(torch.tensor([1.0, 0.8, 0.4, 0.0]))
    assert float(flow.std(grid.timesteps, grid.previous)[0]) == pytest.approx(0.7 * math.sqrt(1 / 0.2) * math.sqrt(0.2), rel=BOUND)


def test_the_last_step_is_the_odes_unless_its_noise_is_wanted() -> None:
    grid = grid_of(4)
    quiet, noisy = (FlowSDE(noise_level=0.7, ceiling=0.75, noisy_end=end) for end in (False, True))
    assert quiet.stochastic(grid).tolist() == [True, True, True, False]
    assert noisy.stochastic(grid).all()
    x, v = noise("x"), noise("v")
    last = quiet.step(v, x, grid.timesteps[-1:].expand(3), grid.previous[-1:].expand(3))
    assert_same(last.mean, x - 0.25 * v)
    with pytest.raises(DegenerateStepError, match="noise_level > 0 of a flow"):
        last.log_prob(x, reduce="sum")


@pytest.mark.parametrize("position", [0, 5, 9])
def test_expected_score_is_zero_and_its_square_the_sensitivity(position: int) -> None:
    draws, shape = 4000, (2, 3)
    flow, grid = FlowSDE(noise_level=0.7, ceiling=0.9, noisy_end=True), grid_of(10)
    prediction = noise("prediction", shape=shape).repeat(draws, 1, 1).requires_grad_()
    x = noise("x", shape=shape).expand(draws, *shape)
    step = flow.step(prediction, x, grid.timesteps[position].expand(draws), grid.previous[position].expand(draws))
    log_prob = step.log_prob(step.draw(noise("draws", position, shape=(draws, *shape))), reduce="sum")
    (score,) = torch.autograd.grad(log_prob.sum(), prediction)
    assert (score.mean(dim=0).abs() < 4 * score.std(dim=0) / draws**0.5).all()
    fisher = float(flow.sensitivity(grid)[position]) ** 2
    assert float((score**2).mean()) == pytest.approx(fisher, rel=4 * (2 / score.numel()) ** 0.5)


def test_a_rollout_replays_to_the_recorded_log_probs() -> None:
    flow, grid = FlowSDE(noise_level=0.7, ceiling=0.9), grid_of(10)
    x = noise("start")
    for i, step in enumerate(rollout(velocity, flow, grid, x, NoiseStreams([(0,), (1,), (2,)]).draw, reduce="mean", stored=torch.float64)):
        t, previous = grid.timesteps[i].expand(3), grid.previous[i].expand(3)
        if i < 9:
            replayed = flow.step(velocity(x, t), x, t, previous).log_prob(step.latents, reduce="mean")
            assert_same(replayed, step.log_probs)
        x = step.latents


@pytest.mark.parametrize("sigmas", [[0.0, 1.0], [1.5, 0.0], [1.0, 1.0, 0.0]])
def test_noise_levels_that_do_not_fall_are_refused(sigmas: list[float]) -> None:
    with pytest.raises(ValueError, match="must fall within"):
        flow_grid(torch.tensor(sigmas))


@pytest.mark.parametrize(("options", "words"), [({"noise_level": -1.0}, "noise_level is"), ({"ceiling": 1.0}, "ceiling is 1")])
def test_settings_without_meaning_are_refused(options: dict[str, Any], words: str) -> None:
    own: dict[str, Any] = {"noise_level": 0.7, "ceiling": 0.9}
    with pytest.raises(ValueError, match=words):
        FlowSDE(**(own | options))
