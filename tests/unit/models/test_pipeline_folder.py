"""A pipeline's folder as people have it: without a part, in another variant, pickled, cut off."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from d3po.errors import ModelError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.load import load_policy
from d3po.models.pipeline import PipelinePolicy
from tests.tiny import TINY, parts, save_tiny

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("stable-diffusion", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "model")


def loaded(folder: Path | str, **settings: Any) -> PipelinePolicy:
    policy = load_policy(str(folder), lora=LORA, seed=0, settings=PolicySettings(**settings))
    assert isinstance(policy, PipelinePolicy)
    return policy


@torch.no_grad()
def predicted(policy: AbstractPolicy) -> torch.Tensor:
    x = torch.randn(1, *policy.latent_shape, generator=torch.Generator().manual_seed(2))
    return policy.predict(x, torch.tensor([801]), policy.encode_prompts(["a cat"]), 3.0)


def rename(folder: Path, old: str, new: str) -> None:
    for file in [*folder.rglob(f"*{old}")]:
        file.rename(file.with_name(file.name.replace(old, new)))


UNET, ENCODER = "unet/diffusion_pytorch_model", "text_encoder/model"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: shutil.rmtree(f / "vae"), r"has no folder vae, which its model_index\.json names"),
        (lambda f: (f / "unet/config.json").unlink(), r"unet has no config\.json"),
        (lambda f: (f / f"{UNET}.safetensors").unlink(), r"unet has no weights \(diffusion_pytorch_model\.safetensors\); is the download whole"),
        (lambda f: (f / f"{ENCODER}.safetensors").unlink(), r"text_encoder has no weights \(model\.safetensors\)"),
        (lambda f: (f / f"{UNET}.safetensors").write_bytes(b""), r"diffusion_pytorch_model\.safetensors cannot be read as safetensors"),
        (lambda f: cut(f / f"{ENCODER}.safetensors"), r"text_encoder.model\.safetensors cannot be read as safetensors"),
        (lambda f: (f / f"{UNET}.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid"), "fetch it with `git lfs pull`"),
        (lambda f: (f / "scheduler/scheduler_config.json").unlink(), r"scheduler has no scheduler_config\.json"),
        (lambda f: (f / "tokenizer/tokenizer.json").unlink(), r"neither tokenizer\.json nor merges\.txt, vocab\.json, which hold its vocabulary"),
        (lambda f: take_out(f / f"{UNET}.safetensors"), r"unet lacks 1 of the weights of a UNet2DConditionModel, such as conv_in\.bias"),
        (lambda f: take_out(f / f"{ENCODER}.safetensors"), r"text_encoder lacks 1 of the weights of a CLIPTextModel"),
        (lambda f: (f / "unet/config.json").write_text("{"), r"unet cannot be loaded: "),
        (lambda f: in_index(f, vae=["mine", "Autoencoder"]), r"names mine\.Autoencoder as its vae, which is not installed"),
        (lambda f: in_index(f, unet=[None, None]), r"names no unet, without which a StableDiffusionPipeline draws nothing"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_named(folder: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=words) as error:
        loaded(folder)
    assert "\n" not in str(error.value)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def take_out(file: Path) -> None:
    tensors = load_file(file)
    del tensors[next(name for name in ("conv_in.bias", *tensors) if name in tensors)]
    save_file(tensors, file, metadata={"format": "pt"})


def in_index(folder: Path, **named: Any) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | named))


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt"])
def test_pickles_are_refused_with_how_to_convert_them(folder: Path, suffix: str) -> None:
    rename(folder, ".safetensors", suffix)
    with pytest.raises(
        ModelError, match=rf"as a pickle \(\w+{re.escape(suffix)}\); pickles can run anything.*convert once: python -c"
    ) as error:
        loaded(folder)
    assert f"from_pretrained('{folder}', use_safetensors=False)" in str(error.value)


def test_the_plain_weights_are_taken_where_variants_are_beside_them(folder: Path, whole: Path) -> None:
    other = {name: value + 1 for name, value in load_file(folder / f"{UNET}.safetensors").items()}
    save_file(other, folder / f"{UNET}.non_ema.safetensors", metadata={"format": "pt"})
    policy = loaded(folder)
    assert list(policy.notes) == []
    assert torch.equal(predicted(policy), predicted(loaded(whole)))


@pytest.mark.parametrize(
    ("unet", "encoder", "noted"),
    [("fp16", "", "unet (fp16)"), ("non_ema", "fp16", "text_encoder (fp16), unet (non_ema)"), ("bf16", "bf16", "text_encoder (bf16), unet (bf16)")],
)  # fmt: skip
def test_a_variant_is_taken_where_it_is_all_there_is(folder: Path, whole: Path, unet: str, encoder: str, noted: str) -> None:
    (folder / f"{UNET}.safetensors").rename(folder / f"{UNET}.{unet}.safetensors")
    if encoder:
        (folder / f"{ENCODER}.safetensors").rename(folder / f"{ENCODER}.{encoder}.safetensors")
    policy = loaded(folder, text_encoders="free")
    assert list(policy.notes) == [f"warning: {folder} has no plain weights of {noted}; the variants in brackets are taken"]
    assert torch.equal(predicted(policy), predicted(loaded(whole)))


def test_of_two_variants_the_averaged_one_is_taken(folder: Path, whole: Path) -> None:
    shutil.copy(folder / f"{UNET}.safetensors", folder / f"{UNET}.fp16.safetensors")
    other = {name: value + 1 for name, value in load_file(folder / f"{UNET}.safetensors").items()}
    save_file(other, folder / f"{UNET}.non_ema.safetensors", metadata={"format": "pt"})
    (folder / f"{UNET}.safetensors").unlink()
    assert torch.equal(predicted(loaded(folder)), predicted(loaded(whole)))


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_weights_in_several_files_are_loaded_and_a_missing_one_is_named(folder: Path, whole: Path, variant: str | None) -> None:
    for part, base in (("unet", UNET), ("text_encoder", ENCODER)):
        module: Any = getattr(loaded(whole).pipeline, part)
        (folder / f"{base}.safetensors").unlink()
        plain: Any = type(module).from_pretrained(whole, subfolder=part)
        plain.save_pretrained(folder / part, max_shard_size="8KB", variant=variant)
    assert len([*folder.rglob("*-of-*.safetensors")]) > 3
    assert torch.equal(predicted(loaded(folder)), predicted(loaded(whole)))
    lost = sorted((folder / "unet").glob("*-of-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ModelError, match=rf"{re.escape(str(lost))} is not there, but is named by its index"):
        loaded(folder)
    for index in (folder / "unet").glob("*.index*.json"):
        index.unlink()
    with pytest.raises(ModelError, match=r"in several files, but no \.safetensors\.index\.json that says which"):
        loaded(folder)


@pytest.mark.parametrize("family", TINY)
@torch.no_grad()
def test_a_pipeline_without_one_of_its_readers_draws_as_diffusers_does_or_is_refused(family: str, tmp_path: Path) -> None:
    readers = sorted(name for name in TINY[family]().components if name.startswith("text_encoder"))
    for reader in readers:
        without = {reader: None, reader.replace("text_encoder", "tokenizer"): None}
        folder = save_tiny(family, tmp_path / reader, **without)
        if (family, reader) not in (("sd3", "text_encoder_3"), ("sdxl", "text_encoder")):
            with pytest.raises(ModelError, match=rf"names no {reader}, without which"):
                loaded(folder, inpaint_image="none")
            continue
        kind: Any = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"])
        plain = kind.from_pretrained(folder, **without)
        words = plain.encode_prompt("a cat", **({"prompt_2": None, "prompt_3": None} if family == "sd3" else {}))[0]
        condition: Any = loaded(folder).encode_prompts(["a cat"])
        assert torch.equal(condition.given["text"], words)


def test_a_hubs_variant_is_fetched_where_it_is_all_there_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def download(source: str, *, variant: str | None, **rest: object) -> str:
        asked.append(variant)
        if variant != "fp16":
            raise OSError(f"Could not find the necessary `safetensors` weights in {{...}} (variant={variant})")
        assert rest == {"use_safetensors": True, "safety_checker": None, "feature_extractor": None}
        return str(folder)

    rename(folder, ".safetensors", ".fp16.safetensors")
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    monkeypatch.setattr("d3po.models.families._fetched", lambda model, name: folder / name)
    assert "text_encoder (fp16), unet (fp16), vae (fp16)" in loaded("somebody/model").notes[0]
    assert asked == [None, "fp16"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Could not find the necessary `safetensors` weights in {...} (variant=None)", "has no weights as safetensors on the hub; pickles can run"),
        ("We have no connection", r"cannot be fetched: We have no connection; is the hub id right"),
    ],
)  # fmt: skip
def test_what_the_hub_does_not_give_is_said(folder: Path, said: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise OSError(said)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    monkeypatch.setattr("d3po.models.families._fetched", lambda model, name: folder / name)
    with pytest.raises(ModelError, match=words):
        loaded("somebody/model")


def test_sentencepiece_vocabularies_are_read(tmp_path: Path) -> None:
    """As PixArt, SD3 and FLUX were published, before tokenizer.json."""
    folder = save_tiny("pixart", tmp_path / "model")
    vocabulary = parts.sentencepiece_vocabulary(tmp_path / "spiece.model")
    expected = predicted(loaded(folder))
    (folder / "tokenizer/tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"neither tokenizer\.json nor spiece\.model"):
        loaded(folder)
    shutil.copy(vocabulary, folder / "tokenizer")
    assert torch.equal(predicted(loaded(folder)), expected)
