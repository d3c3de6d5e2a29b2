"""A checkpoint in one file, with a pipeline's folder that lends it what a file lacks."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from d3po.errors import ModelError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.families import family_of
from d3po.models.load import load_policy
from d3po.options import Weights
from tests.tiny import save_tiny
from tests.tiny.single_file import save_single_file

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("stable-diffusion", tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def checkpoint(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights than the folder's, so that it shows whose were loaded."""
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    generator = torch.Generator().manual_seed(1)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        for weight in part.parameters():
            weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    pipeline.save_pretrained(tmp_path_factory.mktemp("whole") / "pipeline")
    return save_single_file(pipeline, tmp_path_factory.mktemp("single") / "model.safetensors")


def loaded(model: Path, parts: Path | str = "", weights: Weights = "float32") -> AbstractPolicy:
    return load_policy(str(model), lora=LORA, seed=0, settings=PolicySettings(parts=str(parts), weights=weights))


@torch.no_grad()
def pictured(policy: AbstractPolicy) -> tuple[Tensor, Tensor]:
    """What its denoiser says to its text encoder's words, and what its decoder makes of that."""
    x = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(2))
    predicted = policy.predict(x, torch.tensor([801, 1]), policy.encode_prompts(["a cat", "a dog"]), 3.0)
    return predicted, policy.decode(predicted)


def test_every_weight_of_the_file_is_the_models(checkpoint: Path, folder: Path) -> None:
    assert family_of(str(checkpoint)).name == "stable-diffusion"
    expected = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    generator = torch.Generator().manual_seed(1)
    policy = loaded(checkpoint, folder)
    parts = policy.pipeline  # type: ignore[attr-defined]
    for name in ("unet", "vae", "text_encoder"):
        own = {key.replace(".base_layer", ""): value for key, value in getattr(parts, name).state_dict().items()}
        for key, weight in getattr(expected, name).named_parameters():
            torch.testing.assert_close(own[key], weight + 0.05 * torch.randn(weight.shape, generator=generator), rtol=0, atol=1e-6, msg=key)
    assert (pictured(policy)[0] - pictured(loaded(folder))[0]).abs().max() > 1e-2


def test_a_single_file_is_loaded_in_half_precision_but_for_its_autoencoder(checkpoint: Path, folder: Path) -> None:
    policy = loaded(checkpoint, folder, "bfloat16")
    exact, rounded = pictured(loaded(checkpoint, folder)), pictured(policy)
    assert 0 < (rounded[0] - exact[0]).norm() < 0.05 * exact[0].norm()
    assert policy.pipeline.vae.dtype == torch.float32  # type: ignore[attr-defined]


def test_a_file_alone_says_what_it_lacks(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ModelError, match="a single file lacks tokenizers and configurations: name a folder or hub id that has them by `parts`"
    ):
        loaded(checkpoint, "nowhere/pipeline")
