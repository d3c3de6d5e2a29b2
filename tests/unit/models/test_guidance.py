"""Guidance: classifier-free, embedded or none, by row, by range of timesteps, away from a negative prompt."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from d3po.models.base import AbstractPolicy, Embeddings, PolicySettings, SamplerSettings
from d3po.models.load import load_policy
from d3po.training.replay import Replay
from tests.tiny import parts, save_tiny

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}
TIMES = torch.tensor([801, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("stable-diffusion", tmp_path_factory.mktemp("sd"))


def policy_of(folder: Path, settings: PolicySettings | None = None) -> AbstractPolicy:
    return load_policy(str(folder), lora=LORA, seed=0, settings=settings)


def latents(policy: AbstractPolicy, count: int = 2) -> Tensor:
    return torch.randn(count, *policy.latent_shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def predicted(policy: AbstractPolicy, guidance: float | Tensor, prompts: tuple[str, ...] = ("a cat", "a dog")) -> Tensor:
    return policy.predict(latents(policy), TIMES, policy.encode_prompts(prompts), guidance)


def test_each_row_may_have_a_scale_of_its_own(folder: Path) -> None:
    policy = policy_of(folder)
    mixed, plain, guided = (predicted(policy, g) for g in (torch.tensor([1.0, 4.0]), 1.0, 4.0))
    torch.testing.assert_close(mixed[0], plain[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed[1], guided[1], rtol=0, atol=1e-5)
    assert (plain - guided).abs().max() > 1e-3


def test_guidance_moves_away_from_the_negative_prompt(folder: Path) -> None:
    policy = policy_of(folder, PolicySettings(negative_prompt="a frog"))
    negative, plain = predicted(policy, 1.0, ("a frog", "a frog")), predicted(policy, 1.0)
    torch.testing.assert_close(predicted(policy, 3.0), negative + 3 * (plain - negative), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["stable-diffusion", "flux"])
def test_guidance_of_the_kind_none_is_none(tmp_path: Path, family: str) -> None:
    policy = policy_of(save_tiny(family, tmp_path), PolicySettings(guidance="none", width=8, height=8))
    torch.testing.assert_close(predicted(policy, 7.0), predicted(policy, 1.0), rtol=0, atol=0)
    assert policy.guided_rows == 1


def test_only_steps_within_the_range_are_guided(folder: Path) -> None:
    policy = policy_of(folder)
    sampler = policy.sampler(SamplerSettings(steps=5))
    replay = Replay(transition=sampler.transition, grid=sampler.grid, guidance=4.0, guidance_range=(100, 1000), reduce="mean")
    condition = policy.encode_prompts(["a cat", "a dog"])
    with torch.no_grad():
        half = replay.predict(policy, latents(policy), TIMES, condition)
    torch.testing.assert_close(half[0], predicted(policy, 4.0)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(half[1], predicted(policy, 1.0)[1], rtol=0, atol=1e-6)


def test_embedded_guidance_is_an_input_of_the_network_and_costs_one_row(tmp_path: Path) -> None:
    policy = policy_of(save_tiny("flux", tmp_path), PolicySettings(width=8, height=8))
    rows: list[int] = []
    policy.network.register_forward_hook(lambda module, inputs, output: rows.append(len(output.sample)))
    assert (predicted(policy, 1.0) - predicted(policy, 4.0)).abs().max() > 1e-4
    assert rows == [2, 2]


def test_classifier_free_guidance_of_a_flux_model_takes_two_rows(tmp_path: Path) -> None:
    policy = policy_of(save_tiny("flux", tmp_path), PolicySettings(width=8, height=8, guidance="cfg"))
    empty, plain = predicted(policy, 1.0, ("", "")), predicted(policy, 1.0)
    torch.testing.assert_close(predicted(policy, 3.0), empty + 3 * (plain - empty), rtol=0, atol=1e-5)


def test_the_empty_negative_prompt_of_sdxl_is_zeros_and_another_is_not(tmp_path: Path) -> None:
    folder = save_tiny("sdxl", tmp_path)
    for prompt, zero in (("", True), ("a frog", False)):
        condition = policy_of(folder, PolicySettings(negative_prompt=prompt)).encode_prompts(["a cat"])
        assert isinstance(condition, Embeddings)
        assert bool((condition.negative["text"] == 0).all() and (condition.negative["pooled"] == 0).all()) == zero


def test_zero_terminal_snr_is_diffusers_own(tmp_path: Path) -> None:
    folder = save_tiny("stable-diffusion", tmp_path, scheduler=parts.ddim_scheduler(prediction_type="v_prediction"))
    ours = policy_of(folder).sampler(SamplerSettings(steps=5, spacing="trailing", zero_terminal_snr=True))
    options = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    theirs = DDIMScheduler(**options, rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=False)
    theirs.set_timesteps(5)
    x, v = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    for i in (0, 2, 4):
        t, previous = ours.grid.timesteps[i].expand(2), ours.grid.previous[i].expand(2)
        expected = theirs.step(v, int(theirs.timesteps[i]), x, eta=1.0, variance_noise=torch.zeros_like(x)).prev_sample
        torch.testing.assert_close(ours.transition.step(v, x, t, previous).mean, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["ddim", "euler_ancestral"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_both_kinds_of_step_train_on_every_spacing(folder: Path, kind, spacing) -> None:
    sampler = policy_of(folder).sampler(SamplerSettings(steps=5, kind=kind, spacing=spacing, last_step="clamped"))
    assert sampler.transition.stochastic(sampler.grid)[:-1].all()
    assert (sampler.grid.timesteps.diff() < 0).all()
