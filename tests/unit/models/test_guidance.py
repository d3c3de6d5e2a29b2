"""Guidance: classifier-free, embedded or none, by row, by range of timesteps, away from a negative prompt."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from PIL import Image
from torch import Tensor

from d3po.artifacts.shards import Shard, writing_shard
from d3po.models.base import AbstractPolicy, Embeddings, PolicySettings, SamplerSettings
from d3po.models.load import load_policy
from d3po.models.replay import Replay
from d3po.objectives.registry import OBJECTIVES
from d3po.recipes import load_recipe
from d3po.run.starting import start
from d3po.training.data import PromptGroup
from d3po.training.likelihood import DenoisingLikelihood
from tests.precision import assert_same
from tests.tiny import TINY, parts, pipelines, save_tiny

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}
TIMES = torch.tensor([801, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("stable-diffusion", tmp_path_factory.mktemp("sd"))


def policy_of(folder: Path, settings: PolicySettings | None = None) -> AbstractPolicy:
    return load_policy(str(folder), lora=LORA, seed=0, settings=replace(settings or PolicySettings(), weights="float64"))


def latents(policy: AbstractPolicy, count: int = 2) -> Tensor:
    return torch.randn(count, *policy.latent_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
def predicted(policy: AbstractPolicy, guidance: float | Tensor, prompts: tuple[str, ...] = ("a cat", "a dog")) -> Tensor:
    return policy.predict(latents(policy), TIMES, policy.encode_prompts(prompts), guidance)


def test_each_row_may_have_a_scale_of_its_own(folder: Path) -> None:
    policy = policy_of(folder)
    mixed, plain, guided = (predicted(policy, g) for g in (torch.tensor([1.0, 4.0]), 1.0, 4.0))
    assert_same(mixed[0], plain[0])
    assert_same(mixed[1], guided[1])
    assert (plain - guided).abs().max() > 1e-3


def test_guidance_moves_away_from_the_negative_prompt(folder: Path) -> None:
    policy = policy_of(folder, PolicySettings(negative_prompt="a frog"))
    negative, plain = predicted(policy, 1.0, ("a frog", "a frog")), predicted(policy, 1.0)
    assert_same(predicted(policy, 3.0), negative + 3 * (plain - negative))


@pytest.mark.parametrize("family", ["stable-diffusion", "flux"])
def test_guidance_of_the_kind_none_is_none(tmp_path: Path, family: str) -> None:
    policy = policy_of(save_tiny(family, tmp_path), PolicySettings(guidance="none", width=8, height=8))
    assert torch.equal(predicted(policy, 7.0), predicted(policy, 1.0))
    assert policy.guided_forwards == 1


def test_only_steps_within_the_range_are_guided(folder: Path) -> None:
    policy = policy_of(folder)
    sampler = policy.sampler(SamplerSettings(steps=5))
    replay = Replay(transition=sampler.transition, grid=sampler.grid, guidance=4.0, guidance_range=(100, 1000), reduce="mean")
    condition = policy.encode_prompts(["a cat", "a dog"])
    with torch.no_grad():
        half = replay.predict(policy, latents(policy), TIMES, condition)
    assert_same(half[0], predicted(policy, 4.0)[0])
    assert_same(half[1], predicted(policy, 1.0)[1])


def test_embedded_guidance_is_an_input_of_the_network_and_costs_one_row(tmp_path: Path) -> None:
    policy = policy_of(save_tiny("flux", tmp_path), PolicySettings(width=8, height=8))
    rows: list[int] = []
    policy.network.register_forward_hook(lambda module, inputs, output: rows.append(len(output.sample)))
    assert (predicted(policy, 1.0) - predicted(policy, 4.0)).abs().max() > 1e-4
    assert rows == [2, 2]


def told(policy: AbstractPolicy, name: str) -> list[Any]:
    """What the network will be given by this name, call after call."""
    values: list[Any] = []
    policy.network.register_forward_pre_hook(lambda module, args, given: values.append(given[name]), with_kwargs=True)
    return values


def save_schnell(folder: Path) -> Path:
    return save_tiny("flux", folder, transformer=pipelines.flux(guidance_embeds=False).transformer)


def test_flux_schnell_is_sampled_without_guidance_as_its_own_pipeline_does_it(tmp_path: Path) -> None:
    folder = save_schnell(tmp_path)
    policy = policy_of(folder, PolicySettings(width=8, height=8))
    rows: list[int] = []
    policy.network.register_forward_hook(lambda module, inputs, output: rows.append(len(output.sample)))
    plain: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    pictures = [
        plain(["a cat"], guidance_scale=scale, num_inference_steps=1, height=8, width=8, output_type="pt", generator=torch.manual_seed(0)).images
        for scale in (1.0, 3.5)
    ]  # fmt: skip
    assert torch.equal(*pictures)
    assert torch.equal(predicted(policy, 3.5), predicted(policy, 1.0))
    assert (policy.guided_forwards, rows) == (1, [2, 2])
    assert policy_of(folder, PolicySettings(width=8, height=8, guidance="cfg")).guided_forwards == 2


def test_what_is_proposed_for_flux_is_for_its_weights(tmp_path: Path) -> None:
    for folder, scale, steps in ((save_schnell(tmp_path / "schnell"), 1.0, 4), (save_tiny("flux", tmp_path / "dev"), 3.5, 10)):
        sampling = start(load_recipe("default"), {"model": str(folder)}).config.sampling
        assert (sampling.guidance, sampling.steps) == (scale, steps)


def of_lcm(family: str, folder: Path) -> tuple[Path, PolicySettings]:
    """A tiny pipeline whose U-Net takes the guidance scale as an input."""
    network = TINY[family]().unet
    save_tiny(family, folder, unet=type(network).from_config(network.config, time_cond_proj_dim=6))
    if family != "inpainting":
        return folder, PolicySettings()
    for name in ("image", "mask"):
        Image.new("RGB", (8, 8), "white").save(folder / f"{name}.png")
    return folder, PolicySettings(inpaint_image=str(folder / "image.png"), inpaint_mask=str(folder / "mask.png"))


@pytest.mark.parametrize("family", ["stable-diffusion", "inpainting", "sdxl"])
def test_a_unet_that_takes_the_scale_is_told_it_as_its_own_pipeline_does(tmp_path: Path, family: str) -> None:
    folder, settings = of_lcm(family, tmp_path)
    policy = policy_of(folder, settings)
    ours = told(policy, "timestep_cond")
    changed = predicted(policy, 4.0)
    assert (policy.guided_forwards, policy.guidance_is_input, changed.shape) == (1, True, (2, *policy.latent_shape))
    assert not torch.equal(changed, predicted(policy, 1.0))
    plain: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    theirs: list[Any] = []
    plain.unet.register_forward_pre_hook(lambda module, args, given: theirs.append(given["timestep_cond"]), with_kwargs=True)
    picture = Image.new("RGB", (8, 8), "white")
    inpainted = {"image": picture, "mask_image": picture, "strength": 1.0} if family == "inpainting" else {}
    for scale in (4.0, 1.0):
        plain(["a cat", "a dog"], guidance_scale=scale, num_inference_steps=1, height=8, width=8, output_type="pt", **inpainted)
    assert len(theirs) == len(ours) == 2
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("family", "expected"), [("flux", 3.5), ("stable-diffusion", 1.0)])
def test_the_conditional_prediction_of_a_network_that_is_told_the_scale_is_the_sampled_one(
    tmp_path: Path, family: str, expected: float
) -> None:
    """Objectives that read finished pictures, and training.guided = false, never tell it a scale that it was not sampled with."""
    policy = policy_of(save_tiny(family, tmp_path), PolicySettings(width=8, height=8))
    sampler = policy.sampler(SamplerSettings(steps=5))
    replay = Replay(transition=sampler.transition, grid=sampler.grid, guidance=3.5, reduce="mean")
    assert replay.unguided(policy).guidance == expected
    scales = told(policy, "guidance") if family == "flux" else [torch.ones(1)]
    rows: list[int] = []
    policy.network.register_forward_hook(lambda module, inputs, output: rows.append(len(output.sample)))
    reader = DenoisingLikelihood(policy, replay, OBJECTIVES["flow_dpo"].needs)
    reader.read([pictures_of(policy, tmp_path)], policy.encode_prompts(["a cat"]), torch.tensor([500]), (0, 0, 0), measures=False)
    assert {*rows} == {2}
    assert {float(value) for scale in scales for value in scale} == {expected}


def pictures_of(policy: AbstractPolicy, folder: Path) -> PromptGroup:
    with writing_shard(folder / "pictures", num_steps=0, batch=2, latent_shape=policy.latent_shape, dtype="float32") as writer:
        writer.append(latents(policy))
        writer.finish()
    nothing = torch.zeros(0)
    return PromptGroup(
        prompt=0, identity="a", shard=Shard(path=folder / "pictures"), indices=torch.arange(2), pairs=torch.zeros(0, 2, dtype=torch.long),
        targets=nothing, weights=nothing, reference=None,
    )  # fmt: skip


def test_classifier_free_guidance_of_a_flux_model_takes_two_rows(tmp_path: Path) -> None:
    policy = policy_of(save_tiny("flux", tmp_path), PolicySettings(width=8, height=8, guidance="cfg"))
    empty, plain = predicted(policy, 1.0, ("", "")), predicted(policy, 1.0)
    assert_same(predicted(policy, 3.0), empty + 3 * (plain - empty))


def test_the_empty_negative_prompt_of_sdxl_is_zeros_and_another_is_not(tmp_path: Path) -> None:
    folder = save_tiny("sdxl", tmp_path)
    for prompt, zero in (("", True), ("a frog", False)):
        condition = policy_of(folder, PolicySettings(negative_prompt=prompt)).encode_prompts(["a cat"])
        assert isinstance(condition, Embeddings)
        assert bool((condition.negative["text"] == 0).all() and (condition.negative["pooled"] == 0).all()) == zero


def test_zero_terminal_snr_is_diffusers_own(tmp_path: Path) -> None:
    folder = save_tiny("stable-diffusion", tmp_path, scheduler=parts.ddim_scheduler(prediction_type="v_prediction"))
    ours = policy_of(folder).sampler(SamplerSettings(steps=5, spacing="trailing", zero_terminal_snr=True))
    theirs: Any = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=False,
    )  # fmt: skip
    theirs.set_timesteps(5)
    x, v = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = 1000 * torch.finfo(torch.float32).eps  # theirs is a running product of a thousand float32 numbers, each rounded
    for i in (0, 2, 4):
        t, previous = ours.grid.timesteps[i].expand(2), ours.grid.previous[i].expand(2)
        expected = theirs.step(v, int(theirs.timesteps[i]), x, eta=1.0, variance_noise=torch.zeros_like(x)).prev_sample
        assert_same(ours.transition.step(v, x, t, previous).mean, expected, bound=table)


@pytest.mark.parametrize("kind", ["ddim", "euler_ancestral"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_both_kinds_of_step_train_on_every_spacing(folder: Path, kind, spacing) -> None:
    sampler = policy_of(folder).sampler(SamplerSettings(steps=5, kind=kind, spacing=spacing, last_step="clamped"))
    assert sampler.transition.stochastic(sampler.grid)[:-1].all()
    assert (sampler.grid.timesteps.diff() < 0).all()
