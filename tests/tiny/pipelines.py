"""One tiny pipeline a family: 8x8 pictures, 4x4 latents, some ten thousand weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DModel,
)

from tests.tiny import parts

WITHOUT_CHECKER: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
"""Which diffusers allows, and its annotations do not."""


def save_tiny_pipeline(directory: Path, *, prediction_type: Literal["epsilon", "v_prediction"] = "epsilon") -> Path:
    """A Stable Diffusion pipeline."""
    return save_tiny("stable-diffusion", directory, scheduler=parts.ddim_scheduler(prediction_type=prediction_type))


def save_tiny(family: str, directory: Path, **replaced: Any) -> Path:
    """The tiny pipeline of a family, always with the same weights; `replaced` parts are put in place of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = TINY[family]()
    pipeline.register_modules(**replaced)
    pipeline.save_pretrained(directory)
    return directory


def stable_diffusion() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=parts.autoencoder(), text_encoder=parts.clip_encoder(), tokenizer=parts.clip_tokenizer(), unet=parts.unet(),
        scheduler=parts.ddim_scheduler(), **WITHOUT_CHECKER,
    )  # fmt: skip


def inpainting() -> StableDiffusionInpaintPipeline:
    return StableDiffusionInpaintPipeline(
        vae=parts.autoencoder(), text_encoder=parts.clip_encoder(), tokenizer=parts.clip_tokenizer(), unet=parts.unet(in_channels=9),
        scheduler=parts.ddim_scheduler(), **WITHOUT_CHECKER,
    )  # fmt: skip


def sdxl() -> StableDiffusionXLPipeline:
    network = parts.unet(
        cross_attention_dim=2 * parts.WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + parts.WIDTH, transformer_layers_per_block=(1, 2), use_linear_projection=True,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=parts.autoencoder(), text_encoder=parts.CLIPTextModel(parts.clip_config(layers=2)), tokenizer=parts.clip_tokenizer(),
        text_encoder_2=parts.projected_clip_encoder(), tokenizer_2=parts.clip_tokenizer(), unet=network, scheduler=parts.ddim_scheduler(),
        add_watermarker=False,
    )  # fmt: skip


def sd3() -> StableDiffusion3Pipeline:
    network = SD3Transformer2DModel(
        sample_size=4, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=32,
        caption_projection_dim=32, pooled_projection_dim=2 * parts.WIDTH, out_channels=4, pos_embed_max_size=8, qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=network, scheduler=parts.flow_scheduler(shift=3.0), vae=parts.autoencoder(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=parts.projected_clip_encoder(), tokenizer=parts.clip_tokenizer(),
        text_encoder_2=parts.projected_clip_encoder(), tokenizer_2=parts.clip_tokenizer(),
        text_encoder_3=parts.t5_encoder(width=32), tokenizer_3=parts.t5_tokenizer(),
    )  # fmt: skip


def flux(*, guidance_embeds: bool = True) -> FluxPipeline:
    network = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=parts.WIDTH, pooled_projection_dim=parts.WIDTH, axes_dims_rope=(4, 4, 8), guidance_embeds=guidance_embeds,
    )  # fmt: skip
    return FluxPipeline(
        transformer=network, scheduler=parts.flow_scheduler(use_dynamic_shifting=True, shift=3.0),
        vae=parts.autoencoder(shift_factor=0.06, scaling_factor=0.4),
        text_encoder=parts.clip_encoder(), tokenizer=parts.clip_tokenizer(), text_encoder_2=parts.t5_encoder(), tokenizer_2=parts.t5_tokenizer(),
    )  # fmt: skip


def pixart() -> PixArtSigmaPipeline:
    network = PixArtTransformer2DModel(
        sample_size=4, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4, out_channels=8,
        cross_attention_dim=16, caption_channels=parts.WIDTH, use_additional_conditions=False,
    )  # fmt: skip
    scheduler: Any = DPMSolverMultistepScheduler(beta_end=0.02, beta_start=0.0001)
    return PixArtSigmaPipeline(
        tokenizer=parts.t5_tokenizer(), text_encoder=parts.t5_encoder(), vae=parts.autoencoder(), transformer=network, scheduler=scheduler,
    )  # fmt: skip


def unconditional(out_channels: int = 3, **options: Any) -> DDPMPipeline:
    network = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=out_channels, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=8, **options,
    )  # fmt: skip
    return DDPMPipeline(unet=network, scheduler=DDPMScheduler())


TINY: dict[str, Callable[[], Any]] = {
    "stable-diffusion": stable_diffusion,
    "inpainting": inpainting,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "pixart": pixart,
    "unconditional": unconditional,
}
