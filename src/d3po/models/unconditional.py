"""Unconditional DDPM and DDIM pipelines: no prompts, no text encoder, diffusion in pixel space."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from d3po.diffusion.transition import at_least_float32
from d3po.errors import ModelError
from d3po.models.peft_folder import save_peft_folder
from d3po.models.pipeline import PipelinePolicy


class UnconditionalPolicy(PipelinePolicy):
    """A `DDPMPipeline` or `DDIMPipeline`. The network does not read a run's "prompts"; they only name starting noises.

    Raises:
        ModelError: the network takes a class as input.
    """

    plain_guidance = "none"

    def __init__(self, pipeline: Any, **rest: Any) -> None:
        if pipeline.unet.class_embedding is not None:
            raise ModelError(
                "this model's network takes a class as input, but d3po gives an unconditional model no condition; "
                "wrap it as custom:module:function, whose encode(prompts) gives classes"
            )
        super().__init__(pipeline, **rest)

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {"row": torch.zeros(len(prompts), device=self.device)}

    def _network_output(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        return self.network(x_t, timesteps).sample

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, " B *latent"]) -> Float[Tensor, "B 3 height width"]:
        pictures = (at_least_float32(latents) / 2 + 0.5).clamp(0, 1)
        return pictures.expand(-1, 3, -1, -1) if pictures.shape[1] == 1 else pictures

    def encode(self, pictures: Float[Tensor, "B 3 height width"]) -> Float[Tensor, " B *latent"]:
        channels = self.latent_shape[0]
        return 2 * (pictures.mean(dim=1, keepdim=True) if channels == 1 else pictures) - 1

    def _save_lora(self, directory: Path, layers: dict[str, Tensor]) -> Path:
        return save_peft_folder(directory, layers)
