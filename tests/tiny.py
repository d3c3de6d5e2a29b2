"""A tiny, randomly initialised Stable Diffusion pipeline of diffusers' real classes, saved to disk in a blink."""

from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def save_tiny_pipeline(directory: Path, *, prediction_type: Literal["epsilon", "v_prediction"] = "epsilon") -> Path:
    """8x8 pictures, 4x4x4 latents, about 30 000 weights."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                block_out_channels=(8, 8),
                latent_channels=4,
                layers_per_block=1,
                norm_num_groups=4,
                sample_size=8,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokens), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                    max_position_embeddings=12, bos_token_id=0, eos_token_id=1, pad_token_id=1,
                )
            ),
            tokenizer=CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=12),
            unet=UNet2DConditionModel(
                sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
            ),
            scheduler=DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
                steps_offset=1, prediction_type=prediction_type,
            ),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.save_pretrained(directory)
    return directory
