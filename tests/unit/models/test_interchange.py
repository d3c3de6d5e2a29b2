"""LoRAs of other tools: Kohya's layout there and back, and any LoRA as a start."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from d3po.errors import ModelError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.interchange import from_kohya, merge_layers, read_lora, to_kohya
from d3po.models.load import load_policy
from d3po.models.lora import scaled_lora
from tests.tiny import save_tiny

LORA = {"rank": 2, "alpha": 6.0, "targets": "attention+conv"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("stable-diffusion", tmp_path_factory.mktemp("sd"))


def trained(folder: Path, lora: dict[str, object] | None = None) -> AbstractPolicy:
    """A policy whose adapter does something."""
    policy = load_policy(str(folder), lora=lora or LORA, seed=0)
    generator = torch.Generator().manual_seed(0)
    policy.load_state({name: 0.2 * torch.randn(value.shape, generator=generator) for name, value in policy.state().items()})
    return policy


@torch.no_grad()
def output(policy: AbstractPolicy) -> Tensor:
    x = torch.randn(1, *policy.latent_shape, generator=torch.Generator().manual_seed(1))
    return policy.predict(x, torch.tensor([501]), policy.encode_prompts(["a cat"]), 1.0)


def test_kohyas_layout_there_and_back_is_the_same(folder: Path) -> None:
    network = trained(folder).network
    layers = scaled_lora(network)
    kohya = to_kohya(layers)
    plain = load_policy(str(folder), lora=None, seed=0).network
    back = from_kohya(kohya, plain)
    assert back.keys() == layers.keys()
    assert all(torch.equal(back[name], layers[name]) for name in layers)
    assert all(name.startswith("lora_unet_") for name in kohya)


def test_kohyas_alpha_is_the_strength_times_the_rank(folder: Path) -> None:
    network = load_policy(str(folder), lora=None, seed=0).network
    name = next(n for n, m in network.named_modules() if n.endswith("to_q"))
    key = "lora_unet_" + name.replace(".", "_")
    tensors = {f"{key}.lora_down.weight": torch.ones(4, 16), f"{key}.lora_up.weight": torch.ones(16, 4), f"{key}.alpha": torch.tensor(2.0)}
    assert from_kohya(tensors, network)[f"{name}.lora_B.weight"].unique().tolist() == [0.5]


@pytest.mark.parametrize("layout", ["lora", "lora/pytorch_lora_weights.safetensors", "lora-kohya.safetensors"])
def test_a_run_may_start_from_a_lora(folder: Path, tmp_path: Path, layout: str) -> None:
    source = trained(folder)
    expected = output(source)
    source.export(tmp_path)
    begun = load_policy(str(folder), lora=LORA, seed=1, settings=PolicySettings(start_from=str(tmp_path / layout)))
    torch.testing.assert_close(output(begun), expected, rtol=0, atol=1e-5)
    with begun.without_adapter():
        torch.testing.assert_close(output(begun), expected, rtol=0, atol=1e-5)


def test_a_peft_folder_is_a_start_too(tmp_path: Path) -> None:
    folder = save_tiny("pixart", tmp_path / "model")
    source = trained(folder, LORA | {"targets": "attention"})
    expected = output(source)
    source.export(tmp_path / "out")
    begun = load_policy(str(folder), lora=None, seed=1, settings=PolicySettings(start_from=str(tmp_path / "out" / "lora")))
    torch.testing.assert_close(output(begun), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")  # two adapters are what is wanted
def test_what_was_trained_goes_on_top_of_the_lora_it_started_from(folder: Path, tmp_path: Path) -> None:
    trained(folder).export(tmp_path / "first")
    second = load_policy(str(folder), lora=LORA, seed=1, settings=PolicySettings(start_from=str(tmp_path / "first" / "lora")))
    second.load_state({name: value + 0.1 for name, value in second.state().items()})
    expected = output(second)
    second.export(tmp_path / "second")
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert isinstance(pipeline, StableDiffusionPipeline)
    for name in ("first", "second"):
        pipeline.load_lora_weights(tmp_path / name / "lora", adapter_name=name)
    pipeline.set_adapters(["first", "second"])
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        text = pipeline.encode_prompt(["a cat"], "cpu", 1, False)[0]
        theirs = pipeline.unet(x, torch.tensor([501]), text).sample
    torch.testing.assert_close(theirs, expected, rtol=0, atol=1e-5)


def test_a_lora_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    network = load_policy(str(folder), lora=None, seed=0).network
    with pytest.raises(ModelError, match="belongs to no module of UNet2DConditionModel"):
        from_kohya({"lora_unet_input_blocks_99.lora_down.weight": torch.zeros(2, 2)}, network)
    with pytest.raises(ModelError, match="fits no layer of UNet2DConditionModel"):
        merge_layers(network, {"somewhere.lora_A.weight": torch.zeros(2, 2), "somewhere.lora_B.weight": torch.zeros(2, 2)})
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="holds no LoRA"):
        read_lora(tmp_path / "other.safetensors", network)
    with pytest.raises(ModelError, match="cannot be read"):
        read_lora(tmp_path / "nowhere.safetensors", network)


def test_diffusers_reads_the_kohya_file_it_is_given(folder: Path, tmp_path: Path) -> None:
    policy = trained(folder)
    expected = output(policy)
    policy.export(tmp_path)
    assert any(name.endswith(".alpha") for name in load_file(tmp_path / "lora-kohya.safetensors"))
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert isinstance(pipeline, StableDiffusionPipeline)
    pipeline.load_lora_weights(tmp_path, weight_name="lora-kohya.safetensors")
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = pipeline.unet(x, torch.tensor([501]), pipeline.encode_prompt(["a cat"], "cpu", 1, False)[0]).sample
    torch.testing.assert_close(theirs, expected, rtol=0, atol=1e-5)
