"""The adapter of Stable Diffusion pipelines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers import CLIPImageProcessorPil

from d3po.diffusion.parameterization import Velocity
from d3po.errors import ModelError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.families import named
from d3po.models.load import load_pipeline, load_policy
from d3po.models.stable_diffusion import StableDiffusionPolicy
from tests.precision import assert_same
from tests.tiny import parts, save_tiny, save_tiny_pipeline

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention+conv"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("sd"), prediction_type="v_prediction")


@pytest.fixture
def policy(folder: Path) -> AbstractPolicy:
    return load_policy(str(folder), lora=LORA, seed=0, settings=PolicySettings(weights="float64"))


def predicted(policy: AbstractPolicy, guidance: float = 1.0) -> torch.Tensor:
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        return policy.predict(x, torch.tensor([801, 1]), policy.encode_prompts(["a cat", "a dog"]), guidance)


def shake(policy: AbstractPolicy) -> None:
    policy.load_state({name: value + 0.3 for name, value in policy.state().items()})


def test_a_fresh_adapter_changes_nothing(policy: AbstractPolicy) -> None:
    with policy.without_adapter():
        base = predicted(policy)
    assert_same(predicted(policy), base)


def test_without_the_adapter_a_trained_policy_is_the_base_again(policy: AbstractPolicy) -> None:
    base = predicted(policy)
    shake(policy)
    assert (predicted(policy) - base).abs().max() > 1e-3
    with policy.without_adapter():
        assert_same(predicted(policy), base)
    assert (predicted(policy) - base).abs().max() > 1e-3


def test_the_adapter_depends_on_the_seed_alone(folder: Path) -> None:
    torch.manual_seed(123)
    one = load_policy(str(folder), lora=LORA, seed=5).state()
    torch.manual_seed(321)
    two, other = load_policy(str(folder), lora=LORA, seed=5).state(), load_policy(str(folder), lora=LORA, seed=6).state()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_guidance_moves_away_from_the_empty_prompt(policy: AbstractPolicy) -> None:
    x = torch.randn(1, 4, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        plain, empty = (policy.predict(x, torch.tensor([5]), policy.encode_prompts([text]), 1.0) for text in ("a cat", ""))
        guided = policy.predict(x, torch.tensor([5]), policy.encode_prompts(["a cat"]), 4.0)
    assert_same(guided, empty + 4 * (plain - empty))


def test_state_of_another_policy_is_refused(policy: AbstractPolicy) -> None:
    state = policy.state()
    state.pop(next(iter(state)))
    with pytest.raises(ValueError, match="do not match this policy"):
        policy.load_state(state)


def test_the_models_own_schedule_is_read(policy: AbstractPolicy) -> None:
    assert isinstance(policy, StableDiffusionPolicy)
    facts = policy.facts
    assert (facts.spacing, facts.steps_offset, facts.clip_range) == ("leading", 1, None)
    assert isinstance(facts.parameterization, Velocity)
    assert facts.schedule.final_alpha_cumprod == pytest.approx(float(facts.schedule.alphas_cumprod[0]))


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        load_policy(str(tmp_path), lora=LORA, seed=0)


@pytest.mark.parametrize("family", ["stable-diffusion", "inpainting"])
def test_a_safety_checker_is_not_loaded_and_what_is_exported_does_not_miss_it(family: str, tmp_path: Path) -> None:
    folder = save_tiny(family, tmp_path / "model", safety_checker=parts.safety_checker(), feature_extractor=CLIPImageProcessorPil())
    pipeline = load_pipeline(str(folder), named(family))
    assert (pipeline.safety_checker, pipeline.config.requires_safety_checker) == (None, False)
    pipeline.save_pretrained(tmp_path / "merged")
    assert DiffusionPipeline.from_pretrained(tmp_path / "merged", local_files_only=True).safety_checker is None


def test_pictures_to_inpaint_and_masks_are_read_as_they_look(tmp_path: Path) -> None:
    """Turned by its EXIF tag, a picture is the one that is stored upright; a mask of 16 bits is the same of 8."""
    upright, exif = Image.effect_noise((8, 8), 90).convert("RGB"), Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 4
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "mask-8.png")
    Image.fromarray(grey * 257).save(tmp_path / "mask-16.png")
    folder = str(save_tiny("inpainting", tmp_path / "model"))

    def fixed(picture: str, mask: str) -> torch.Tensor:
        settings = PolicySettings(inpaint_image=str(tmp_path / picture), inpaint_mask=str(tmp_path / mask))
        policy: Any = load_policy(folder, lora=LORA, seed=0, settings=settings)
        return policy._fixed_at(policy.latent_shape[1:])

    plain = fixed("upright.png", "mask-8.png")
    assert torch.equal(fixed("turned.png", "mask-8.png"), plain)
    assert torch.equal(fixed("upright.png", "mask-16.png"), plain)
    assert 0 < plain[:, 0].mean() < 1
