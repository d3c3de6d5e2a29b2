"""The DDIM step and its log-prob against numbers recorded from the published D3PO code (fields: see golden.json)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from d3po.diffusion.schedule import NoiseSchedule, step_grid
from d3po.diffusion.transition import DDIM, GaussianStep
from d3po.errors import DegenerateStepError
from d3po.models.schedulers import PARAMETERIZATIONS

Case = dict[str, Any]
HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text())["ddim_logprob"]
NUMBERS = np.load(HERE / GOLDEN["file"])
SCHEDULERS: dict[str, Case] = GOLDEN["schedulers"]
CASES: list[Case] = GOLDEN["cases"]
TOLERANCE = 1e-5
"""Of a number of size up to 1; where the largest recorded number of a field is bigger, of that largest number.

Each step of the arithmetic is one that processors round alike; only sums over pixels, all of one sign, and logarithms differ, by some 2^-23 of them."""


def cases(*, where: Callable[[Case], bool] = lambda case: True) -> pytest.MarkDecorator:
    chosen = [case for case in CASES if where(case)]
    return pytest.mark.parametrize("case", chosen, ids=[case["id"] for case in chosen])


def number(key: str) -> Tensor:
    return torch.from_numpy(np.atleast_1d(NUMBERS[key]))


def schedule(name: str) -> NoiseSchedule:
    """Of the recorded table, so that a last digit of it on another processor is not multiplied by what comes after."""
    final = float(NUMBERS[f"sched/{name}/final_alpha_cumprod"])
    return NoiseSchedule(alphas_cumprod=number(f"sched/{name}/alphas_cumprod"), final_alpha_cumprod=final)


def computed(name: str) -> NoiseSchedule:
    facts = SCHEDULERS[name]
    if facts["beta_schedule"] == "scaled_linear":
        betas = torch.linspace(facts["beta_start"] ** 0.5, facts["beta_end"] ** 0.5, facts["num_train_timesteps"]) ** 2
    else:
        betas = torch.linspace(facts["beta_start"], facts["beta_end"], facts["num_train_timesteps"])
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    return NoiseSchedule(alphas_cumprod=alphas_cumprod, final_alpha_cumprod=1.0 if facts["set_alpha_to_one"] else float(alphas_cumprod[0]))


def transition(case: Case) -> DDIM:
    facts = SCHEDULERS[case["scheduler"]]
    return DDIM(
        schedule=schedule(case["scheduler"]),
        parameterization=PARAMETERIZATIONS[facts["prediction_type"]],
        eta=case["eta"],
        clip_range=facts["clip_sample_range"] if facts["clip_sample"] else None,
    )


def previous_of(case: Case, timesteps: Tensor) -> Tensor:
    """Where the sampler's own grid goes from each timestep."""
    facts = SCHEDULERS[case["scheduler"]]
    grid = step_grid(
        facts["num_train_timesteps"],
        case["num_inference_steps"],
        spacing="leading",
        steps_offset=facts["steps_offset"],
        clamp_previous=True,
    )
    position = (grid.timesteps == timesteps[:, None]).float().argmax(dim=1)
    assert torch.equal(grid.timesteps[position], timesteps)
    return grid.previous[position]


def step(case: Case, prediction: Tensor, timesteps: Tensor) -> GaussianStep:
    return transition(case).step(prediction, number(f"{case['id']}/sample"), timesteps, previous_of(case, timesteps))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    scale = max(1.0, float(expected.abs().max()))
    assert float((actual.detach() - expected).abs().max()) <= TOLERANCE * scale


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedule_is_the_recorded_one(name: str) -> None:
    assert_close(computed(name).alphas_cumprod, number(f"sched/{name}/alphas_cumprod"))
    assert computed(name).final_alpha_cumprod == pytest.approx(float(NUMBERS[f"sched/{name}/final_alpha_cumprod"]), rel=1e-6)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [7, 20, 50])
def test_grid_visits_the_recorded_timesteps(name: str, steps: int) -> None:
    grid = step_grid(1000, steps, spacing="leading", steps_offset=SCHEDULERS[name]["steps_offset"], clamp_previous=True)
    assert torch.equal(grid.timesteps, number(f"sched/{name}/timesteps_{steps}"))


@cases()
def test_previous_timesteps_are_the_recorded_ones(case: Case) -> None:
    timesteps = number(f"{case['id']}/timestep")
    previous = previous_of(case, timesteps)
    assert torch.equal(previous, number(f"{case['id']}/prev_timestep_clamped"))
    assert_close(schedule(case["scheduler"]).alpha_bar(timesteps), number(f"{case['id']}/alpha_prod_t"))
    assert_close(schedule(case["scheduler"]).alpha_bar(previous), number(f"{case['id']}/alpha_prod_t_prev"))


@cases()
def test_std_is_the_recorded_one(case: Case) -> None:
    timesteps = number(f"{case['id']}/timestep")
    assert_close(transition(case).std(timesteps, previous_of(case, timesteps)), number(f"{case['id']}/std_dev_t"))


@cases()
def test_drawn_latent_is_the_recorded_one(case: Case) -> None:
    taken = step(case, number(f"{case['id']}/model_output"), number(f"{case['id']}/timestep"))
    assert_close(taken.draw(number(f"{case['id']}/variance_noise")), number(f"{case['id']}/sampled_prev_sample"))


@cases(where=lambda case: case["finite_log_prob"])
@pytest.mark.parametrize(
    ("output", "latent", "expected"),
    [
        ("model_output", "sampled_prev_sample", "sampled_log_prob"),
        ("model_output", "given_prev_sample", "given_log_prob"),
        ("other_model_output", "sampled_prev_sample", "other_log_prob"),
    ],
)
def test_log_prob_is_the_recorded_one(case: Case, output: str, latent: str, expected: str) -> None:
    taken = step(case, number(f"{case['id']}/{output}"), number(f"{case['id']}/timestep"))
    assert_close(taken.log_prob(number(f"{case['id']}/{latent}"), reduce="mean"), number(f"{case['id']}/{expected}"))


@cases(where=lambda case: case["finite_scalar_log_prob"])
def test_one_timestep_for_the_whole_batch_gives_the_recorded_numbers(case: Case) -> None:
    timesteps = number(f"{case['id']}/scalar_timestep").expand(GOLDEN["batch"])
    taken = step(case, number(f"{case['id']}/model_output"), timesteps)
    drawn = taken.draw(number(f"{case['id']}/variance_noise"))
    assert_close(drawn, number(f"{case['id']}/scalar_prev_sample"))
    assert_close(taken.log_prob(drawn, reduce="mean"), number(f"{case['id']}/scalar_log_prob"))


@cases(where=lambda case: case["finite_log_prob"])
def test_gradient_into_the_network_output_is_the_recorded_one(case: Case) -> None:
    output = number(f"{case['id']}/model_output").requires_grad_()
    taken = step(case, output, number(f"{case['id']}/timestep"))
    taken.log_prob(number(f"{case['id']}/given_prev_sample"), reduce="mean").sum().backward()
    assert output.grad is not None
    assert_close(output.grad, number(f"{case['id']}/given_grad_model_output"))


@cases(where=lambda case: not case["finite_log_prob"])
def test_row_without_a_density_raises_where_the_reference_gave_nan(case: Case) -> None:
    taken = step(case, number(f"{case['id']}/model_output"), number(f"{case['id']}/timestep"))
    recorded = number(f"{case['id']}/given_log_prob")
    assert torch.equal(taken.std == 0, recorded.isnan())
    with pytest.raises(DegenerateStepError, match=f"^{int(recorded.isnan().sum())} of 3 steps"):
        taken.log_prob(number(f"{case['id']}/given_prev_sample"), reduce="mean")
    for row in (~recorded.isnan()).nonzero().flatten().tolist():
        alone = GaussianStep(mean=taken.mean[row : row + 1], std=taken.std[row : row + 1])
        given = number(f"{case['id']}/given_prev_sample")[row : row + 1]
        assert_close(alone.log_prob(given, reduce="mean"), recorded[row : row + 1])
