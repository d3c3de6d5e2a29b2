"""LoRAs in the layout of Kohya's scripts, which ComfyUI and other programs read."""

from typing import Any

import torch
from torch import Tensor

from d3po.models.interchange import DOWN, KOHYA, UP

ORIGINAL = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
"""Layers of U-Nets that these programs know only by their original names."""
FLUX_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
}
"""Layers of a double block in FLUX's original network, and the layers of diffusers' network that they consist of."""
FLUX_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
FLUX_ENDS = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
}
"""Layers before and after the blocks. The modulation of the last layer is not among them, since its halves are in the opposite order."""


def to_kohya(layers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a LoRA to Kohya's layout: module names with underscores, `lora_down`, `lora_up`, and an alpha equal to the rank, so that the strength is 1."""
    tensors: dict[str, Tensor] = {}
    for name, value in layers.items():
        module, _, factor = name.rpartition(".lora_")
        key = KOHYA + ORIGINAL.get(module, module).replace(".", "_")
        tensors[f"{key}.lora_{'down' if factor.startswith('A') else 'up'}.weight"] = value.contiguous()
        if factor.startswith("A"):
            tensors[f"{key}.alpha"] = torch.tensor(float(len(value)))
    return tensors


def on_original_flux(layers: dict[str, Tensor], network: Any) -> dict[str, Tensor]:
    """Convert a LoRA of diffusers' FLUX transformer to the layers of the original network.

    Where the original network joins several layers into one, their A are stacked and their B form a block diagonal, all with the same rank. Loaders that
    split the layer again recover the parts exactly.
    """
    origins = dict(FLUX_ENDS)
    for block in range(len(network.transformer_blocks)):
        origins |= _within(FLUX_DOUBLE, f"double_blocks.{block}", f"transformer_blocks.{block}")
    for block in range(len(network.single_transformer_blocks)):
        origins |= _within(FLUX_SINGLE, f"single_blocks.{block}", f"single_transformer_blocks.{block}")
    original: dict[str, Tensor] = {}
    for module, parts in origins.items():
        if any(f"{part}.{DOWN}" in layers for part in parts):
            original |= _fused(module, parts, layers, network)
    if f"norm_out.linear.{DOWN}" in layers:
        scale, shift = layers[f"norm_out.linear.{UP}"].chunk(2)
        original[f"final_layer.adaLN_modulation.1.{DOWN}"] = layers[f"norm_out.linear.{DOWN}"]
        original[f"final_layer.adaLN_modulation.1.{UP}"] = torch.cat([shift, scale])
    return original


def _within(table: dict[str, tuple[str, ...]], theirs: str, ours: str) -> dict[str, tuple[str, ...]]:
    return {f"{theirs}.{module}": tuple(f"{ours}.{part}" for part in parts) for module, parts in table.items()}


def _fused(module: str, parts: tuple[str, ...], layers: dict[str, Tensor], network: Any) -> dict[str, Tensor]:
    """Join the LoRAs of a layer's parts into one; a part without a LoRA counts as zeros."""
    like = next(layers[f"{part}.{DOWN}"] for part in parts if f"{part}.{DOWN}" in layers)
    widths = [network.get_submodule(part).out_features for part in parts]
    downs = [layers.get(f"{part}.{DOWN}", torch.zeros_like(like)) for part in parts]
    ups = [layers.get(f"{part}.{UP}", like.new_zeros(width, len(like))) for part, width in zip(parts, widths, strict=True)]
    return {f"{module}.{DOWN}": torch.cat(downs), f"{module}.{UP}": torch.block_diag(*ups)}
