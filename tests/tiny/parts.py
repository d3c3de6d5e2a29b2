"""The parts of which tiny pipelines are made: tokenizers of single letters, text encoders, autoencoders, schedulers."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # pyright: ignore[reportAttributeAccessIssue] - made at run time
from transformers import (
    CLIPConfig,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
CLIP_TOKENS = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(letter + "</w>" for letter in LETTERS)]
T5_TOKENS = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
WIDTH = 16
"""Of text embeddings."""


def clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(CLIP_TOKENS)}, merges=[], model_max_length=12)


def clip_config(layers: int = 1) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(CLIP_TOKENS), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=12, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=WIDTH,
    )  # fmt: skip


def clip_encoder() -> CLIPTextModel:
    return CLIPTextModel(clip_config())


def projected_clip_encoder() -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(clip_config(layers=2))


def t5_tokenizer() -> T5Tokenizer:
    return T5Tokenizer(vocab=T5_TOKENS, extra_ids=0, model_max_length=12)


def sentencepiece_vocabulary(path: Path) -> Path:
    """The T5 tokenizer's words as a model of sentencepiece."""
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}  # control, control, unknown; 1 is a word
    model = ModelProto()
    for word, score in T5_TOKENS:
        model.pieces.add(piece=word, score=score, type=kinds.get(word, 1))
    model.trainer_spec.model_type, model.trainer_spec.unk_id = 1, 2
    path.write_bytes(model.SerializeToString())
    return path


def t5_encoder(width: int = WIDTH) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(T5_TOKENS), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu")
    )


def autoencoder(channels: int = 4, **options: Any) -> AutoencoderKL:
    """From 8x8 pictures to 4x4 latents."""
    own: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "block_out_channels": (8, 8),
        "latent_channels": channels, "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8,
    }  # fmt: skip
    return AutoencoderKL(**own, **options)


def unet(in_channels: int = 4, **options: Any) -> UNet2DConditionModel:
    own: dict[str, Any] = {"cross_attention_dim": WIDTH, "attention_head_dim": 2, "norm_num_groups": 4}
    return UNet2DConditionModel(
        sample_size=4, in_channels=in_channels, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **(own | options),
    )  # fmt: skip


def flat_unet() -> UNet2DConditionModel:
    """A U-Net of one level without a middle, always with the same weights."""
    levels: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
        "mid_block_type": None,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8,), layers_per_block=1, cross_attention_dim=WIDTH,
            attention_head_dim=2, norm_num_groups=4, **levels,
        )  # fmt: skip


def ddim_scheduler(**options: Any) -> Any:
    """Stable Diffusion's. Any, because diffusers' pipelines are annotated with an enum of schedulers, which no scheduler belongs to."""
    own: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    own |= {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    return DDIMScheduler(**(own | options))


def safety_checker() -> StableDiffusionSafetyChecker:
    vision = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
    return StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision.to_dict(), text_config=clip_config().to_dict(), projection_dim=8))


def flow_scheduler(**options: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**options)
