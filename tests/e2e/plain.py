"""Pictures of plain diffusers: what somebody who has only the base model and an exported LoRA gets."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DiffusionPipeline
from peft import PeftModel
from torch import Tensor

from d3po.models.base import AbstractPolicy

STEPS = 4
SPACING = "trailing"
"""By which DDIMScheduler, like d3po, begins each step where the one before ended, whatever the model's own scheduler."""
GUIDANCE = 3.0
PROMPT = "a cat"
ROUNDED = 1e-6
"""How far flows may be apart: diffusers' scheduler rounds their latents, of sizes up to 4, to float32 in each of the steps."""


def load(directory: Path) -> DiffusionPipeline:
    """In float64."""
    return DiffusionPipeline.from_pretrained(directory, local_files_only=True, dtype=torch.float64)


def reloaded(family: str, base: Path, lora: Path) -> DiffusionPipeline:
    """The base model with the exported LoRA, loaded as diffusers' own documentation says (peft's, where diffusers has no loader)."""
    pipeline = load(base)
    if hasattr(pipeline, "load_lora_weights"):
        pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
    else:
        part = "unet" if family == "unconditional" else "transformer"
        setattr(pipeline, part, PeftModel.from_pretrained(getattr(pipeline, part), lora))
    return quiet(pipeline)


def quiet(pipeline: Any) -> Any:
    """Without a progress bar, and with a scheduler that can be deterministic."""
    pipeline.set_progress_bar_config(disable=True)
    if hasattr(pipeline.scheduler, "alphas_cumprod"):
        config = pipeline.scheduler.config
        scheduler: Any = DDIMScheduler.from_config(config, clip_sample=config.get("clip_sample", False), timestep_spacing=SPACING)
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()  # the same numbers, whose roots are then taken in float64
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
        pipeline.scheduler = scheduler
    return pipeline


def start(policy: AbstractPolicy) -> Tensor:
    """x_T of the one picture."""
    return torch.randn(1, *policy.latent_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@torch.no_grad()
def plain_picture(family: str, pipeline: Any, policy: AbstractPolicy) -> Tensor:
    """(1, 3, 8, 8) in [0, 1], made by the pipeline's own call without noise between the steps."""
    if family == "unconditional":
        ddim = quiet(DDIMPipeline(unet=pipeline.unet, scheduler=pipeline.scheduler))
        pixels = ddim(num_inference_steps=STEPS, generator=torch.Generator().manual_seed(0), output_type="np").images
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)
    latents = start(policy)
    call: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "height": 8, "width": 8, "output_type": "pt"}
    if family == "flux":
        latents = pipeline._pack_latents(latents, 1, 4, 4, 4)
    if family == "inpainting":
        inpainting: Any = policy
        fixed = inpainting._fixed_at(policy.latent_shape[1:])
        picture = torch.zeros(1, 3, 8, 8)
        call |= {"image": picture, "mask_image": fixed[:, :1].repeat_interleave(2, -1).repeat_interleave(2, -2), "strength": 1.0}
        call |= {"masked_image_latents": fixed[:, 1:]}
    if family == "pixart":
        call |= {"use_resolution_binning": False}
    return pipeline([PROMPT], latents=latents, **call).images
