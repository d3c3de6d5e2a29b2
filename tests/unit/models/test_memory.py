"""Settings that save memory leave pictures and predictions as they were."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from d3po.artifacts.embeddings import EmbeddingCache
from d3po.errors import ConfigError
from d3po.models.base import PolicySettings
from d3po.models.load import load_policy
from d3po.options import TextEncoders
from tests.precision import assert_all_same, assert_same
from tests.tiny import save_tiny

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}
PROMPTS = ["a cat", "a dog", "a cat"]


@pytest.fixture(scope="module", params=["sdxl", "sd3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(request.param, tmp_path_factory.mktemp(request.param))


def loaded(folder: Path, *, cache: Path | None = None, **settings: Any) -> Any:
    policy = load_policy(str(folder), lora=LORA, seed=0, settings=PolicySettings(weights="float64", **settings))
    policy.prompt_cache = EmbeddingCache(directory=cache, made_by={}) if cache else None
    return policy


def encoded(policy: Any) -> dict[str, Tensor]:
    condition = policy.encode_prompts(PROMPTS)
    return {**condition.given, **{f"negative {name}": value for name, value in condition.negative.items()}}


def test_pictures_decoded_one_by_one_are_the_same(folder: Path) -> None:
    latents = torch.randn(3, *loaded(folder).latent_shape, generator=torch.Generator().manual_seed(0))
    policy = loaded(folder, decoding="sliced")
    assert policy.pipeline.vae.use_slicing
    assert_same(policy.decode(latents), loaded(folder).decode(latents))


def test_a_picture_larger_than_a_tile_is_decoded_tile_by_tile(folder: Path) -> None:
    """Of 16 x 16 pixels, in tiles of 8 x 8 of which 6 x 6 are kept: the first is that of its own latents, 4 x 4 of them."""
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    whole, tiled = (loaded(folder, decoding=decoding, width=16, height=16).decode(latents) for decoding in ("whole", "tiled"))
    assert tiled.shape == whole.shape == (3, 3, 16, 16)
    alone = loaded(folder).decode(latents[:, :, :4, :4])
    assert_same(tiled[:, :, :6, :6], alone[:, :, :6, :6])
    assert not torch.allclose(tiled, whole, atol=1e-4)


def test_many_prompts_are_encoded_few_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3po.models.pipeline.PROMPTS_PER_CALL", 2)
    policy, sizes = loaded(folder), list[int]()
    encode = policy._encode
    monkeypatch.setattr(policy, "_encode", lambda prompts: sizes.append(len(prompts)) or encode(prompts))
    few = encoded(policy)
    assert sizes == [2, 2], "three prompts and the negative one"
    monkeypatch.undo()
    assert_all_same(few, encoded(policy))


@pytest.mark.parametrize("text_encoders", ["offload", "free"])
def test_embeddings_made_once_are_those_made_together(folder: Path, tmp_path: Path, text_encoders: TextEncoders) -> None:
    expected = encoded(loaded(folder))
    policy = loaded(folder, cache=tmp_path, text_encoders=text_encoders)
    first = encoded(policy)
    assert len(list(tmp_path.iterdir())) == 3, "two prompts and the negative one"
    assert_all_same(first, expected)
    again = encoded(loaded(folder, cache=tmp_path, text_encoders=text_encoders))
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_freed_encoders_are_gone_and_come_back_for_a_new_prompt_and_for_the_export(folder: Path, tmp_path: Path) -> None:
    policy = loaded(folder, cache=tmp_path / "cache", text_encoders="free")
    names = policy._shelf.names
    policy.encode_prompts(["a cat"])
    assert [getattr(policy.pipeline, name) for name in names] == [None] * len(names)
    expected = loaded(folder).encode_prompts(["a bee"]).given["text"]
    assert_same(policy.encode_prompts(["a bee"]).given["text"], expected)
    policy.export(tmp_path / "out")
    assert all((tmp_path / "out" / "merged" / name / "model.safetensors").exists() for name in names)


def test_a_known_prompt_needs_no_encoder(folder: Path, tmp_path: Path) -> None:
    encoded(loaded(folder, cache=tmp_path, text_encoders="free"))
    policy = loaded(folder, cache=tmp_path, text_encoders="free")
    policy._encode = None
    encoded(policy)


def test_offloaded_encoders_stay_off_the_device(folder: Path) -> None:
    policy = loaded(folder, text_encoders="offload")
    policy.to("meta")
    names = policy._shelf.names
    assert {getattr(policy.pipeline, name).device.type for name in names} == {"cpu"}
    assert policy.device.type == "meta"
    assert policy.pipeline.vae.device.type == "meta"


def test_a_single_files_encoders_cannot_be_freed(folder: Path) -> None:
    pipeline = loaded(folder).pipeline
    policy = type(loaded(folder))
    with pytest.raises(ConfigError, match="cannot be loaded again on their own; choose 'offload'"):
        policy(pipeline, lora=LORA, seed=0, settings=PolicySettings(text_encoders="free"))
