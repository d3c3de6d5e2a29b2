"""LoRAs of other tools: any layout as a start, and Kohya's written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from d3po.errors import ModelError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.interchange import merge_layers, read_lora, stack_layers, start_from
from d3po.models.kohya import to_kohya
from d3po.models.load import load_policy
from d3po.models.lora import scaled_lora
from d3po.models.pipeline import PipelinePolicy
from tests.precision import assert_same
from tests.tiny import save_tiny

LORA = {"rank": 2, "alpha": 6.0, "targets": "attention+conv"}
EXACT = PolicySettings(weights="float64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("stable-diffusion", tmp_path_factory.mktemp("sd"))


def trained(folder: Path, lora: dict[str, Any] | None = None) -> AbstractPolicy:
    """A policy whose adapter does something."""
    policy = load_policy(str(folder), lora=lora or LORA, seed=0, settings=EXACT)
    generator = torch.Generator().manual_seed(0)
    policy.load_state(
        {name: 0.2 * torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in policy.state().items()}
    )
    return policy


@torch.no_grad()
def output(policy: AbstractPolicy) -> Tensor:
    x = torch.randn(1, *policy.latent_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return policy.predict(x, torch.tensor([501]), policy.encode_prompts(["a cat"]), 1.0)


BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
QUERY = f"{BLOCK}.attn1.to_q"
SHORT = "down_blocks_1_attentions_0_transformer_blocks_0"
FACTS = {"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn2.to_q": 1}, "text_encoder.r": 1, "text_encoder.lora_alpha": 100}
LAYOUTS: dict[str, tuple[str, str, str, dict[str, Any], str, float]] = {
    "diffusers'": ("stable-diffusion", f"unet.{QUERY}", "lora_A lora_B", {}, QUERY, 1.0),
    "diffusers' with alpha": ("stable-diffusion", f"unet.{QUERY}", "lora_A lora_B", {"alpha": 8}, QUERY, 2.0),
    "diffusers' with metadata": ("stable-diffusion", f"unet.{QUERY}", "lora_A lora_B", {"metadata": FACTS}, QUERY, 2.0),
    "diffusers' of 2023": ("stable-diffusion", f"unet.{BLOCK}.attn1.processor.to_q", "_lora.down _lora.up", {}, QUERY, 1.0),
    "peft's": ("stable-diffusion", f"base_model.model.{QUERY}", "lora_A lora_B", {"config": {"r": 4, "lora_alpha": 12}}, QUERY, 3.0),
    "peft's with a pattern": (
        "stable-diffusion", f"base_model.model.{QUERY}", "lora_A lora_B",
        {"config": {"r": 16, "lora_alpha": 16, "rank_pattern": {"attn1.to_q": 4}, "alpha_pattern": {"attn1.to_q": 2}}}, QUERY, 0.5,
    ),
    "peft's, by the root of the rank": (
        "stable-diffusion", QUERY, "lora_A lora_B", {"config": {"r": 4, "lora_alpha": 12, "use_rslora": True}}, QUERY, 6.0,
    ),
    "Kohya's": ("stable-diffusion", f"lora_unet_{SHORT}_attn1_to_q", "lora_down lora_up", {"alpha": 2}, QUERY, 0.5),
    "Kohya's without alpha": ("stable-diffusion", f"lora_unet_{SHORT}_attn1_to_q", "lora_down lora_up", {}, QUERY, 1.0),
    "Kohya's of SDXL, down": (
        "sdxl", "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_out_0", "lora_down lora_up", {"alpha": 2},
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0", 0.5,
    ),
    "Kohya's of SDXL, middle": (
        "sdxl", "lora_unet_middle_block_1_transformer_blocks_0_ff_net_0_proj", "lora_down lora_up", {"alpha": 1},
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj", 0.25,
    ),
    "Kohya's of SDXL, up": (
        "sdxl", "lora_unet_output_blocks_1_1_proj_in", "lora_down lora_up", {"alpha": 4}, "up_blocks.0.attentions.1.proj_in", 1.0,
    ),
    "SD3, diffusers'": ("sd3", "transformer.transformer_blocks.0.attn.to_q", "lora_A lora_B", {"alpha": 2}, "transformer_blocks.0.attn.to_q", 0.5),
    "FLUX, Kohya's": (
        "flux", "lora_unet_double_blocks_0_txt_attn_proj", "lora_down lora_up", {"alpha": 2}, "transformer_blocks.0.attn.to_add_out", 0.5,
    ),
    "FLUX, a peft folder": (
        "flux", "base_model.model.transformer_blocks.0.ff.net.2", "lora_A lora_B", {"config": {"r": 4, "lora_alpha": 2}},
        "transformer_blocks.0.ff.net.2", 0.5,
    ),
}  # fmt: skip
"""By name: family, the layer's name in the file, names of its factors, what says its strength, its module, and alpha / rank."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PipelinePolicy]:
    root = tmp_path_factory.mktemp("families")
    made: dict[str, PipelinePolicy] = {}
    for name in ("stable-diffusion", "sdxl", "sd3", "flux"):
        policy = load_policy(str(save_tiny(name, root / name)), lora=None, seed=0, settings=EXACT)
        assert isinstance(policy, PipelinePolicy)
        made[name] = policy
    return made


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def write_lora(folder: Path, tensors: dict[str, Tensor], said: dict[str, Any]) -> Path:
    """A LoRA's file, and beside it or in it what says its strength."""
    metadata = {"lora_adapter_metadata": json.dumps(said["metadata"])} if "metadata" in said else None
    if "config" in said:
        (folder / "adapter_config.json").write_text(json.dumps(said["config"]))
    file = folder / ("adapter_model.safetensors" if "config" in said else "some.safetensors")
    save_file(tensors, file, metadata=metadata)
    return file


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_of_any_layout_is_merged_as_strongly_as_it_says(layout: str, networks: dict[str, PipelinePolicy], tmp_path: Path) -> None:
    family, key, factors, said, module, strength = LAYOUTS[layout]
    policy = networks[family]
    weight: Any = policy.network.get_submodule(module).weight
    before = weight.detach().clone()
    down, up = draw(4, weight.shape[1], seed=0), draw(weight.shape[0], 4, seed=1)
    names = [f"{key}{'' if factor.startswith('_') else '.'}{factor}.weight" for factor in factors.split()]
    tensors = dict(zip(names, (down, up), strict=True)) | ({f"{key}.alpha": torch.tensor(float(said["alpha"]))} if "alpha" in said else {})
    start_from(write_lora(tmp_path, tensors, said), policy.network, policy.pipeline)
    assert_same(weight.detach(), before + strength * up @ down)
    weight.data = before


def test_query_key_and_value_that_are_one_layer_in_a_file_are_taken_apart(networks: dict[str, PipelinePolicy], tmp_path: Path) -> None:
    policy = networks["flux"]
    key, down, up = "lora_unet_double_blocks_0_img_attn_qkv", draw(4, 32, seed=0), draw(96, 4, seed=1)
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(2.0)}
    layers = read_lora(write_lora(tmp_path, tensors, {}), policy.network, policy.pipeline).layers
    for place, part in enumerate(("to_q", "to_k", "to_v")):
        delta = layers[f"transformer_blocks.0.attn.{part}.lora_B.weight"] @ layers[f"transformer_blocks.0.attn.{part}.lora_A.weight"]
        assert_same(delta, 0.5 * up[32 * place : 32 * (place + 1)] @ down)


@pytest.mark.parametrize("targets", ["attention+conv", "linear"])
@pytest.mark.parametrize("family", ["stable-diffusion", "sdxl"])
def test_kohyas_layout_there_and_back_is_the_same(family: str, targets: str, networks: dict[str, PipelinePolicy], tmp_path: Path) -> None:
    layers = scaled_lora(trained(save_tiny(family, tmp_path / "model"), LORA | {"targets": targets}).network)
    kohya = to_kohya(layers)
    assert all(name.startswith("lora_unet_") for name in kohya)
    back = read_lora(write_lora(tmp_path, kohya, {}), networks[family].network, networks[family].pipeline).layers
    assert back.keys() == layers.keys()
    assert all(torch.equal(back[name], layers[name]) for name in layers)


@pytest.mark.parametrize(
    "text", ["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_{}", "text_encoder.text_model.layers.0.mlp.fc1.lora_{}"]
)
def test_layers_of_text_encoders_are_counted_and_left_out(text: str, networks: dict[str, PipelinePolicy], tmp_path: Path) -> None:
    policy, key = networks["sdxl"], "lora_unet_input_blocks_3_1_proj_in" if "te1" in text else "unet.down_blocks.1.attentions.0.proj_in"
    down, up = ("down", "up") if "te1" in text else ("A", "B")
    tensors = {f"{text.format(part)}.weight": torch.ones(4, 4) for part in (down, up)}
    assert_no_lora(write_lora(tmp_path, tensors, {}), policy)
    tensors |= {f"{key}.lora_{down}.weight": torch.ones(4, 16), f"{key}.lora_{up}.weight": torch.ones(16, 4)}
    lora = read_lora(write_lora(tmp_path, tensors, {}), policy.network, policy.pipeline)
    assert (len(lora.layers), lora.left_out) == (2, 1)
    assert lora.notes("x.safetensors") == [
        "warning: of the LoRA x.safetensors that the run starts from, 1 layers of text encoders are left out; its 1 layers of the denoiser are merged"
    ]


def assert_no_lora(file: Path, policy: PipelinePolicy) -> None:
    with pytest.raises(ModelError, match="holds no LoRA of a denoiser"):
        read_lora(file, policy.network, policy.pipeline)


@pytest.mark.parametrize(
    ("extra", "kind"),
    {
        "dora_scale": "but DoRA", "lora_magnitude_vector": "but DoRA", "hada_w1_a": "but LoHa", "lokr_w1": "but LoKr",
        "lora_mid.weight": "but LoCon in Tucker form", "diff_b": "1 of its 3 tensors are no factors of one, such as .*diff_b",
    }.items(),
)  # fmt: skip
def test_what_is_no_plain_lora_is_refused_by_name(extra: str, kind: str, networks: dict[str, PipelinePolicy], tmp_path: Path) -> None:
    policy, key = networks["stable-diffusion"], f"lora_unet_{SHORT}_attn1_to_q"
    tensors = {f"{key}.lora_down.weight": torch.ones(4, 16), f"{key}.lora_up.weight": torch.ones(16, 4), f"{key}.{extra}": torch.ones(1)}
    with pytest.raises(ModelError, match=f"no plain LoRA.*{kind}"):
        read_lora(write_lora(tmp_path, tensors, {}), policy.network, policy.pipeline)


@pytest.mark.parametrize("layout", ["lora", "lora/pytorch_lora_weights.safetensors", "lora-kohya.safetensors"])
def test_a_run_may_start_from_a_lora(folder: Path, tmp_path: Path, layout: str) -> None:
    source = trained(folder)
    expected = output(source)
    source.export(tmp_path)
    begun = load_policy(str(folder), lora=LORA, seed=1, settings=replace(EXACT, start_from=str(tmp_path / layout)))
    assert_same(output(begun), expected)
    with begun.without_adapter():
        assert_same(output(begun), expected)


def test_a_peft_folder_is_a_start_too(tmp_path: Path) -> None:
    folder = save_tiny("pixart", tmp_path / "model")
    source = trained(folder, LORA | {"targets": "attention"})
    expected = output(source)
    source.export(tmp_path / "out")
    begun = load_policy(str(folder), lora=None, seed=1, settings=replace(EXACT, start_from=str(tmp_path / "out" / "lora")))
    assert_same(output(begun), expected)


@pytest.mark.parametrize("family", ["stable-diffusion", "pixart"])
def test_what_was_trained_on_top_of_a_lora_is_exported_together_with_it(family: str, tmp_path: Path) -> None:
    """The first LoRA has another rank, and adapts other layers too."""
    model, above = save_tiny(family, tmp_path / "model"), {"rank": 2, "alpha": 6.0, "targets": "attention"}
    trained(model, {"rank": 3, "alpha": 1.5, "targets": "linear"}).export(tmp_path / "first")
    second = load_policy(str(model), lora=above, seed=1, settings=replace(EXACT, start_from=str(tmp_path / "first" / "lora")))
    second.load_state({name: value + 0.1 for name, value in second.state().items()})
    expected = output(second)
    second.export(tmp_path)
    files = ["lora/pytorch_lora_weights.safetensors", "lora-kohya.safetensors"] if family == "stable-diffusion" else ["lora"]
    for file in files:
        plain: Any = load_policy(str(model), lora=None, seed=0, settings=EXACT)
        assert float((output(plain) - expected).abs().max()) > 1e-3
        if family == "pixart":
            plain.pipeline.transformer = PeftModel.from_pretrained(plain.pipeline.transformer, tmp_path / file).get_base_model()
        else:
            plain.pipeline.load_lora_weights(tmp_path / Path(file).parent, weight_name=Path(file).name)
        assert_same(output(plain), expected)


def test_two_loras_are_one_of_both_ranks() -> None:
    """B A of the whole is the sum of both, by hand: 3 * 2 + 5 * 7 = 41; a layer that only one has is filled up with zeros."""
    first = {"a.lora_A.weight": torch.tensor([[2.0]]), "a.lora_B.weight": torch.tensor([[3.0]])}
    second = {"a.lora_A.weight": torch.tensor([[7.0]]), "a.lora_B.weight": torch.tensor([[5.0]])}
    alone = {"b.lora_A.weight": torch.ones(1, 4, 3, 3), "b.lora_B.weight": torch.ones(2, 1, 1, 1)}
    stacked = stack_layers(first, second | alone)
    assert stacked["a.lora_A.weight"].tolist() == [[2.0], [7.0]]
    assert stacked["a.lora_B.weight"].tolist() == [[3.0, 5.0]]
    assert float(stacked["a.lora_B.weight"] @ stacked["a.lora_A.weight"]) == 41.0
    assert (stacked["b.lora_A.weight"].shape, stacked["b.lora_B.weight"].shape) == ((2, 4, 3, 3), (2, 2, 1, 1))
    assert not stacked["b.lora_A.weight"][1].any()


@pytest.mark.parametrize(
    ("family", "key", "problem"),
    [
        ("stable-diffusion", "lora_unet_input_blocks_99_1_proj_in", "belongs to no module of UNet2DConditionModel"),
        ("stable-diffusion", "lora_unet_double_blocks_0_img_attn_qkv", "belongs to no module of UNet2DConditionModel"),
        (
            "sd3",
            "lora_unet_joint_blocks_0_x_block_attn_qkv",
            "belongs to no module of SD3Transformer2DModel.*layout that diffusers cannot read",
        ),
        ("flux", "lora_unet_input_blocks_3_1_proj_in", "no layout that diffusers reads for FluxPipeline"),
    ],
)
def test_a_lora_of_another_model_is_refused(
    family: str, key: str, problem: str, networks: dict[str, PipelinePolicy], tmp_path: Path
) -> None:
    policy = networks[family]
    tensors = {f"{key}.lora_down.weight": torch.ones(4, 16), f"{key}.lora_up.weight": torch.ones(16, 4)}
    with pytest.raises(ModelError, match=problem):
        read_lora(write_lora(tmp_path, tensors, {}), policy.network, policy.pipeline)


@pytest.mark.parametrize(
    ("down", "up", "words"),
    [
        (torch.zeros(2, 16), torch.zeros(16, 4), "has factors of two ranks, 2 and 4; is the file whole"),
        (torch.zeros(0, 16), torch.zeros(16, 1), "has factors of two ranks, 0 and 1"),
        (torch.full((2, 16), float("nan")), torch.zeros(16, 2), r"lora_A\.weight holds values that are infinite or no numbers"),
        (torch.zeros(2, 16), torch.full((16, 2), float("inf")), r"lora_B\.weight holds values that are infinite or no numbers"),
    ],
)  # fmt: skip
def test_a_lora_that_is_not_whole_is_refused_and_nothing_is_merged(
    down: torch.Tensor, up: torch.Tensor, words: str, networks: dict[str, PipelinePolicy]
) -> None:
    network = networks["stable-diffusion"].network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ModelError, match=words):
        merge_layers(network, {f"{QUERY}.lora_A.weight": down, f"{QUERY}.lora_B.weight": up})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_fits_no_layer_or_is_no_lora_is_refused(networks: dict[str, PipelinePolicy], tmp_path: Path) -> None:
    policy = networks["stable-diffusion"]
    for down, up in ((torch.zeros(2, 2), torch.zeros(16, 2)), (torch.zeros(2, 16), torch.zeros(3, 2))):
        with pytest.raises(ModelError, match="fits no layer of UNet2DConditionModel"):
            merge_layers(policy.network, {f"{QUERY}.lora_A.weight": down, f"{QUERY}.lora_B.weight": up})
    with pytest.raises(ModelError, match="fits no layer of UNet2DConditionModel"):
        merge_layers(policy.network, {f"{QUERY}.lora_B.weight": torch.zeros(16, 2)})
    assert_no_lora(write_lora(tmp_path, {"weight": torch.zeros(1)}, {}), policy)
    with pytest.raises(ModelError, match="cannot be read"):
        read_lora(tmp_path / "nowhere.safetensors", policy.network)


def test_diffusers_reads_the_kohya_file_it_is_given(folder: Path, tmp_path: Path) -> None:
    policy = trained(folder)
    expected = output(policy)
    policy.export(tmp_path)
    assert any(name.endswith(".alpha") for name in load_file(tmp_path / "lora-kohya.safetensors"))
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float64)
    assert isinstance(pipeline, StableDiffusionPipeline)
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora-kohya.safetensors")
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        theirs = pipeline.unet(x, torch.tensor([501]), pipeline.encode_prompt(["a cat"], "cpu", 1, False)[0]).sample
    assert_same(theirs, expected)
