"""Tiny pipelines as one file in the layout of the original checkpoints: Stable Diffusion whole, Stable Diffusion 3 its transformer alone."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    r"time_embedding\.linear_1": "time_embed.0", r"time_embedding\.linear_2": "time_embed.2", r"conv_in": "input_blocks.0.0",
    r"conv_norm_out": "out.0", r"conv_out": "out.2",
    # two levels of one layer: a residual block, then the downsampler or, on the lower level, attention
    r"down_blocks\.0\.resnets\.0": "input_blocks.1.0", r"down_blocks\.0\.downsamplers\.0\.conv": "input_blocks.2.0.op",
    r"down_blocks\.1\.resnets\.0": "input_blocks.3.0", r"down_blocks\.1\.attentions\.0": "input_blocks.3.1",
    r"mid_block\.resnets\.0": "middle_block.0", r"mid_block\.attentions\.0": "middle_block.1", r"mid_block\.resnets\.1": "middle_block.2",
    r"up_blocks\.0\.resnets\.0": "output_blocks.0.0", r"up_blocks\.0\.attentions\.0": "output_blocks.0.1",
    r"up_blocks\.0\.resnets\.1": "output_blocks.1.0", r"up_blocks\.0\.attentions\.1": "output_blocks.1.1",
    r"up_blocks\.0\.upsamplers\.0\.conv": "output_blocks.1.2.conv",
    r"up_blocks\.1\.resnets\.0": "output_blocks.2.0", r"up_blocks\.1\.resnets\.1": "output_blocks.3.0",
}  # fmt: skip
VAE = {
    r"encoder\.down_blocks\.(\d)\.resnets\.(\d)": r"encoder.down.\1.block.\2",
    r"encoder\.down_blocks\.(\d)\.downsamplers\.0\.conv": r"encoder.down.\1.downsample.conv",
    # the original counts the decoder's levels from the picture's side
    r"decoder\.up_blocks\.0\.resnets\.(\d)": r"decoder.up.1.block.\1", r"decoder\.up_blocks\.1\.resnets\.(\d)": r"decoder.up.0.block.\1",
    r"decoder\.up_blocks\.0\.upsamplers\.0\.conv": "decoder.up.1.upsample.conv",
    r"mid_block\.resnets\.0": "mid.block_1", r"mid_block\.resnets\.1": "mid.block_2", r"conv_norm_out": "norm_out",
    r"mid_block\.attentions\.0\.group_norm": "mid.attn_1.norm", r"mid_block\.attentions\.0\.to_q": "mid.attn_1.q",
    r"mid_block\.attentions\.0\.to_k": "mid.attn_1.k", r"mid_block\.attentions\.0\.to_v": "mid.attn_1.v",
    r"mid_block\.attentions\.0\.to_out\.0": "mid.attn_1.proj_out", "conv_shortcut": "nin_shortcut",
}  # fmt: skip
SD3 = {
    r"pos_embed\.proj": "x_embedder.proj", r"time_text_embed\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
    r"time_text_embed\.timestep_embedder\.linear_2": "t_embedder.mlp.2", r"time_text_embed\.text_embedder\.linear_1": "y_embedder.mlp.0",
    r"time_text_embed\.text_embedder\.linear_2": "y_embedder.mlp.2", r"proj_out": "final_layer.linear",
    r"norm_out\.linear": "final_layer.adaLN_modulation.1", r"transformer_blocks": "joint_blocks",
    r"attn\.to_out\.0": "x_block.attn.proj", r"attn\.to_add_out": "context_block.attn.proj",
    r"attn\.norm_q": "x_block.attn.ln_q", r"attn\.norm_k": "x_block.attn.ln_k",
    r"attn\.norm_added_q": "context_block.attn.ln_q", r"attn\.norm_added_k": "context_block.attn.ln_k",
    r"norm1\.linear": "x_block.adaLN_modulation.1", r"norm1_context\.linear": "context_block.adaLN_modulation.1",
    r"ff\.net\.0\.proj": "x_block.mlp.fc1", r"ff\.net\.2": "x_block.mlp.fc2",
    r"ff_context\.net\.0\.proj": "context_block.mlp.fc1", r"ff_context\.net\.2": "context_block.mlp.fc2",
}  # fmt: skip
FUSED = {"x_block.attn.qkv": ("to_q", "to_k", "to_v"), "context_block.attn.qkv": ("add_q_proj", "add_k_proj", "add_v_proj")}


def save_sd3_transformer(network: Any, path: Path) -> Path:
    """Write a Stable Diffusion 3 transformer's weights as a checkpoint that holds nothing else."""
    own = dict(network.state_dict())
    tensors = {"pos_embed": own.pop("pos_embed.pos_embed")}
    for i in range(network.config.num_layers):
        for fused, names in FUSED.items():
            for kind in ("weight", "bias"):
                layers = [own.pop(f"transformer_blocks.{i}.attn.{name}.{kind}") for name in names]
                tensors[f"joint_blocks.{i}.{fused}.{kind}"] = torch.cat(layers)
    for name, value in own.items():
        # the original's last modulations give shift and scale, diffusers' scale and shift
        last = name.startswith(("norm_out", f"transformer_blocks.{network.config.num_layers - 1}.norm1_context"))
        tensors[_renamed(name, SD3)] = torch.cat(value.chunk(2)[::-1]) if last else value
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def save_single_file(pipeline: Any, path: Path, *, without: str = "") -> Path:
    """Write the pipeline's weights as one checkpoint, but for those of the part that is left out."""
    tensors = {f"model.diffusion_model.{_unet(name)}": value for name, value in pipeline.unet.state_dict().items()}
    if without != "vae":
        tensors |= {f"first_stage_model.{_renamed(name, VAE)}": _squared(name, value) for name, value in pipeline.vae.state_dict().items()}
    if without != "text_encoder":
        tensors |= {f"cond_stage_model.transformer.{_text(name)}": value for name, value in pipeline.text_encoder.state_dict().items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def _unet(name: str) -> str:
    renamed = _renamed(name, UNET)
    return _renamed(renamed, RESNET) if "resnets" in name else renamed


def _text(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _squared(name: str, value: Tensor) -> Tensor:
    """The original's attention in the autoencoder is made of 1x1 convolutions."""
    return value[:, :, None, None] if "attentions" in name and value.ndim == 2 else value


def _renamed(name: str, table: dict[str, str]) -> str:
    for pattern, replacement in table.items():
        name = re.sub(rf"(?:^|(?<=\.)){pattern}(?=\.)", replacement, name)
    return name
