"""The LoRA in Kohya's layout, read back by diffusers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, StableDiffusionXLPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import load_file
from torch import Tensor

from d3po.models.kohya import on_original_flux, to_kohya
from d3po.models.load import load_policy
from d3po.models.lora import scaled_lora
from tests.precision import assert_same
from tests.tiny import save_tiny
from tests.unit.models.test_interchange import EXACT, draw, output, trained

LINEAR = {"rank": 2, "alpha": 6.0, "targets": "linear"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A tiny FLUX with double blocks alone: diffusers reads single ones in their published width only."""
    config: Any = FluxTransformer2DModel.load_config(save_tiny("flux", tmp_path / "both"), subfolder="transformer")
    return save_tiny("flux", tmp_path / "model", transformer=FluxTransformer2DModel.from_config(config, num_single_layers=0))


def test_diffusers_draws_the_same_with_fluxs_file(saved: Path, tmp_path: Path) -> None:
    policy = trained(saved, LINEAR | {"targets": "attention"})
    expected = output(policy)
    policy.export(tmp_path / "out")
    plain: Any = load_policy(str(saved), lora=None, seed=0, settings=EXACT)
    assert float((output(plain) - expected).abs().max()) > 1e-3
    plain.pipeline.load_lora_weights(tmp_path / "out", weight_name="lora-kohya.safetensors")
    assert_same(output(plain), expected)
    blocks = load_file(tmp_path / "out" / "lora-kohya.safetensors")["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"]
    assert blocks.shape == (3 * 32, 3 * 2)
    assert int((blocks != 0).sum()) == 3 * 32 * 2


def test_every_linear_layer_of_flux_has_its_place(saved: Path) -> None:
    layers = scaled_lora(trained(saved, LINEAR).network)
    kohya = to_kohya(on_original_flux(layers, load_policy(str(saved), lora=None, seed=0).network))
    parts = {"img_attn_qkv": 3, "txt_attn_qkv": 3}
    assert sum(parts.get(name.partition(".")[0].partition("blocks_0_")[2], 1) for name in kohya if "lora_up" in name) == len(layers) // 2
    swapped = kohya["lora_unet_final_layer_adaLN_modulation_1.lora_up.weight"]
    assert torch.equal(swapped[32:], layers["norm_out.linear.lora_B.weight"][:32])
    assert torch.equal(swapped[:32], layers["norm_out.linear.lora_B.weight"][32:])


def test_a_single_block_of_fluxs_own_width_is_taken_apart_as_it_was() -> None:
    with torch.device("meta"):
        network = FluxTransformer2DModel(num_layers=0, num_single_layers=1)
    block = "single_transformer_blocks.0"
    layers: dict[str, Tensor] = {}
    for place, part in enumerate(("attn.to_q", "attn.to_v", "proj_out")):  # to_k and proj_mlp have none
        linear: Any = network.get_submodule(f"{block}.{part}")
        layers |= {
            f"{block}.{part}.lora_A.weight": draw(2, linear.in_features, seed=place),
            f"{block}.{part}.lora_B.weight": draw(3072, 2, seed=9 + place),
        }
    back: Any = FluxPipeline.lora_state_dict(to_kohya(on_original_flux(layers, network)))
    got = {name.removeprefix("transformer."): value for name, value in back.items()}
    assert all(torch.equal(got[name], value) for name, value in layers.items())
    assert all(not got[name].any() for name in got.keys() - layers.keys())


def test_diffusers_knows_every_linear_layer_of_sdxl_in_the_file(tmp_path: Path) -> None:
    policy = trained(save_tiny("sdxl", tmp_path), LINEAR)
    layers, network = scaled_lora(policy.network), policy.network
    read: Any = StableDiffusionXLPipeline.lora_state_dict
    state, _ = read(to_kohya(layers), unet_config=network.config)
    assert {name.removeprefix("unet.") for name in convert_unet_state_dict_to_peft(state)} == layers.keys()
