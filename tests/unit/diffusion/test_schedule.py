"""Noise schedules and timestep grids, against diffusers."""

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from d3po.diffusion.schedule import NoiseSchedule, step_grid

SPACINGS = ["leading", "trailing", "linspace"]


@pytest.mark.parametrize("spacing", SPACINGS)
@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 998), offset=st.integers(0, 1))
def test_timesteps_are_those_of_diffusers(spacing, steps: int, offset: int) -> None:
    """Except that rounding makes diffusers append a timestep of -1 to some trailing grids, which no network was trained on."""
    scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(steps)
    grid = step_grid(1000, steps, spacing=spacing, steps_offset=offset)
    assert torch.equal(grid.timesteps, scheduler.timesteps[:steps])
    assert (scheduler.timesteps[steps:] == -1).all()


@given(steps=st.integers(1, 50), offset=st.integers(0, 1), spacing=st.sampled_from(SPACINGS))
@settings(deadline=None)
def test_grid_runs_downwards_from_noise_to_picture(steps: int, offset: int, spacing) -> None:
    grid = step_grid(1000, steps, spacing=spacing, steps_offset=offset)
    assert len(grid) == steps
    assert (grid.timesteps.diff() < 0).all()
    assert (grid.previous < grid.timesteps).all()
    assert grid.timesteps.min() >= 0
    assert grid.timesteps.max() <= 999


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_each_step_starts_where_the_one_before_ended(spacing) -> None:
    grid = step_grid(1000, 20, spacing=spacing)
    assert torch.equal(grid.previous[:-1], grid.timesteps[1:])


def test_leading_grid_of_four_steps_computed_by_hand() -> None:
    grid = step_grid(1000, 4, spacing="leading", steps_offset=1)
    assert grid.timesteps.tolist() == [751, 501, 251, 1]
    assert grid.previous.tolist() == [501, 251, 1, -249]


def test_clamped_grid_ends_at_timestep_zero() -> None:
    free = step_grid(1000, 20, spacing="leading", steps_offset=1)
    clamped = step_grid(1000, 20, spacing="leading", steps_offset=1, clamp_previous=True)
    assert free.previous[-1] < 0
    assert clamped.previous[-1] == 0
    assert torch.equal(free.previous[:-1], clamped.previous[:-1])
    assert torch.equal(free.timesteps, clamped.timesteps)


@pytest.mark.parametrize("steps", [-1, 0, 51])
def test_number_of_steps_out_of_range_is_refused_with_the_range(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"num_steps is {steps}; it must lie between 1 and the model's 50"):
        step_grid(50, steps, spacing="leading")


def test_offset_that_leads_past_the_last_timestep_is_refused() -> None:
    with pytest.raises(ValueError, match="timestep 50"):
        step_grid(50, 50, spacing="leading", steps_offset=1)


def test_alpha_bar_after_the_last_step_is_the_final_one() -> None:
    schedule = NoiseSchedule(alphas_cumprod=torch.tensor([0.9, 0.5, 0.1]), final_alpha_cumprod=0.95)
    assert torch.equal(schedule.alpha_bar(torch.tensor([2, 0, -1, -50])), torch.tensor([0.1, 0.9, 0.95, 0.95]))
