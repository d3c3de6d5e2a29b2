"""A checkpoint in one file, with a pipeline's folder that lends it what a file lacks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from d3po.errors import ModelError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.families import family_of, named
from d3po.models.load import load_pipeline, load_policy
from d3po.models.pipeline import PipelinePolicy
from d3po.options import Weights
from tests.tiny import save_tiny
from tests.tiny.single_file import save_sd3_transformer, save_single_file

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("stable-diffusion", tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def other(folder: Path) -> Any:
    """A pipeline of other weights than the folder's, so that it shows whose were loaded."""
    return shifted(DiffusionPipeline.from_pretrained(folder, local_files_only=True), "unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def checkpoint(other: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_single_file(other, tmp_path_factory.mktemp("single") / "model.safetensors")


def shifted(pipeline: Any, *names: str) -> Any:
    generator = torch.Generator().manual_seed(1)
    for name in names:
        for weight in getattr(pipeline, name).parameters():
            weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    return pipeline


def assert_same_weights(actual: nn.Module, expected: nn.Module) -> None:
    own = {name.replace(".base_layer", ""): value for name, value in actual.state_dict().items()}
    for name, weight in expected.named_parameters():
        assert torch.equal(own[name], weight), name


def loaded(model: Path, parts: Path | str = "", weights: Weights = "float32") -> PipelinePolicy:
    policy = load_policy(str(model), lora=LORA, seed=0, settings=PolicySettings(parts=str(parts), weights=weights))
    assert isinstance(policy, PipelinePolicy)
    return policy


@torch.no_grad()
def pictured(policy: AbstractPolicy) -> tuple[Tensor, Tensor]:
    """What its denoiser says to its text encoder's words, and what its decoder makes of that."""
    x = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(2))
    predicted = policy.predict(x, torch.tensor([801, 1]), policy.encode_prompts(["a cat", "a dog"]), 3.0)
    return predicted, policy.decode(predicted)


def test_every_weight_of_the_file_is_the_models(checkpoint: Path, folder: Path, other: Any) -> None:
    assert family_of(str(checkpoint)).name == "stable-diffusion"
    policy = loaded(checkpoint, folder)
    for name in ("unet", "vae", "text_encoder"):
        assert_same_weights(getattr(policy.pipeline, name), getattr(other, name))
    assert (pictured(policy)[0] - pictured(loaded(folder))[0]).abs().max() > 1e-2


def test_a_single_file_is_loaded_in_half_precision_but_for_its_autoencoder(checkpoint: Path, folder: Path) -> None:
    policy = loaded(checkpoint, folder, "bfloat16")
    exact, rounded = pictured(loaded(checkpoint, folder)), pictured(policy)
    assert 0 < (rounded[0] - exact[0]).norm() < 0.05 * exact[0].norm()
    assert policy.pipeline.vae.dtype == torch.float32


@pytest.mark.parametrize("lacking", ["vae", "text_encoder"])
def test_what_a_file_lacks_is_the_folders(other: Any, folder: Path, tmp_path: Path, lacking: str) -> None:
    pipeline = loaded(save_single_file(other, tmp_path / "model.safetensors", without=lacking), folder).pipeline
    lent = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for name in ("unet", "vae", "text_encoder"):
        assert_same_weights(getattr(pipeline, name), getattr(lent if name == lacking else other, name))


def test_a_file_with_nothing_but_a_transformer_is_a_whole_model_with_a_folders_parts(tmp_path: Path) -> None:
    folder = save_tiny("sd3", tmp_path / "pipeline")
    other = shifted(DiffusionPipeline.from_pretrained(folder, local_files_only=True), "transformer")
    file = save_sd3_transformer(other.transformer, tmp_path / "model.safetensors")
    pipeline = load_pipeline(str(file), named("sd3"), parts=str(folder), weights="bfloat16")
    assert (pipeline.text_encoder_3.dtype, pipeline.vae.dtype) == (torch.bfloat16, torch.float32)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        part = getattr(pipeline, name)
        assert_same_weights(part, getattr(other, name).to(part.dtype))


def test_a_file_alone_says_what_it_lacks(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ModelError,
        match="a single file lacks tokenizers, configurations, and at times whole parts: name a folder or hub id that has them by `parts`",
    ):
        loaded(checkpoint, "nowhere/pipeline")
