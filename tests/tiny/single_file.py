"""The tiny Stable Diffusion pipeline as one file in the layout of the original Stable Diffusion checkpoints."""

import re
from pathlib import Path
from typing import Any

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


def save_single_file(pipeline: Any, path: Path) -> Path:
    """Write the pipeline's weights as one checkpoint."""
    tensors = {f"model.diffusion_model.{_unet(name)}": value for name, value in pipeline.unet.state_dict().items()}
    tensors |= {f"first_stage_model.{_renamed(name, VAE)}": _squared(name, value) for name, value in pipeline.vae.state_dict().items()}
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
