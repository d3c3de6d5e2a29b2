"""Pipelines of the published sizes with random weights: Stable Diffusion 1.5 and XL, with the real configuration of every part.

Only the tokenizers are not the real ones, which would have to be downloaded. They know the letters a to z, and pad to the real length of 77 tokens.
"""

from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

classes: Any = diffusers  # untyped, since its constructors are annotated with narrower types than they accept
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
TOKENS = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(letter + "</w>" for letter in LETTERS)]
PLACES = 77


def save(name: str, directory: Path) -> Path:
    """Write the model `sd15` or `sdxl` in float32, unless it is there already."""
    if not (directory / "model_index.json").exists():
        torch.manual_seed(0)
        {"sd15": sd15, "sdxl": sdxl}[name]().save_pretrained(directory)
    return directory


def sd15() -> diffusers.StableDiffusionPipeline:
    network = classes.UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280),
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"), up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    )  # fmt: skip
    return classes.StableDiffusionPipeline(
        vae=autoencoder(512, 0.18215), text_encoder=CLIPTextModel(clip_l()), tokenizer=tokenizer(), unet=network, scheduler=scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> diffusers.StableDiffusionXLPipeline:
    network = classes.UNet2DConditionModel(
        sample_size=128, cross_attention_dim=2048, attention_head_dim=(5, 10, 20), block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
    )  # fmt: skip
    return classes.StableDiffusionXLPipeline(
        vae=autoencoder(1024, 0.13025), text_encoder=CLIPTextModel(clip_l()), text_encoder_2=CLIPTextModelWithProjection(clip_big_g()),
        tokenizer=tokenizer(), tokenizer_2=tokenizer(), unet=network, scheduler=scheduler(), add_watermarker=False,
    )  # fmt: skip


def autoencoder(size: int, scaling: float) -> diffusers.AutoencoderKL:
    return classes.AutoencoderKL(
        sample_size=size, scaling_factor=scaling, latent_channels=4, layers_per_block=2, block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip


def clip_l() -> CLIPTextConfig:
    return clip(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu")


def clip_big_g() -> CLIPTextConfig:
    return clip(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, hidden_act="gelu", projection_dim=1280
    )


def clip(**sizes: Any) -> CLIPTextConfig:
    return CLIPTextConfig(vocab_size=49408, max_position_embeddings=PLACES, bos_token_id=0, eos_token_id=1, pad_token_id=1, **sizes)


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(TOKENS)}, merges=[], model_max_length=PLACES)


def scheduler() -> diffusers.DDIMScheduler:
    return classes.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
