"""Inpainting with Stable Diffusion: the masked part of one picture is generated from the prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from d3po.errors import ConfigError, ModelError
from d3po.models.pipeline import PipelinePolicy
from d3po.pictures import read_picture


class InpaintingPolicy(PipelinePolicy):
    """A `StableDiffusionInpaintPipeline` whose U-Net also takes the mask and the masked picture as input (9 channels).

    The run has one picture and one mask, `sampling.inpaint_image` and `sampling.inpaint_mask`, which are scaled to the sampled size.
    """

    def __init__(self, pipeline: Any, **rest: Any) -> None:
        super().__init__(pipeline, **rest)
        self._fixed: dict[tuple[int, ...], Tensor] = {}
        self._fixed_at(self.latent_shape[1:])

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {"text": self.pipeline.encode_prompt(list(prompts), self.device, 1, False)[0]}

    def _called(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        fixed = self._fixed_at(tuple(x_t.shape[2:])).to(x_t)
        return super()._called(x_t, timesteps, {**given, "fixed": fixed.expand(len(x_t), *fixed.shape[1:])}, scale)

    def _network_output(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        inputs = torch.cat([x_t, given["fixed"]], dim=1)
        return self.network(inputs, timesteps, given["text"], timestep_cond=self._embedded_scale(given)).sample

    def _latent_channels(self) -> int:
        channels, latent = super()._latent_channels(), int(self.pipeline.vae.config.latent_channels)
        if channels != 2 * latent + 1:
            raise ModelError(
                f"this inpainting model's U-Net takes {channels} channels, but one that sees its mask takes {2 * latent + 1}; "
                "use it as a plain Stable Diffusion model"
            )
        return latent

    @torch.no_grad()
    def _fixed_at(self, size: tuple[int, ...]) -> Float[Tensor, "1 c h w"]:
        """The mask and the encoded masked picture, concatenated along the channels, for latents of the given height and width.

        Raises:
            ConfigError: the picture or the mask is not set.
        """
        if size in self._fixed:
            return self._fixed[size]
        settings, pipeline = self.settings, self.pipeline
        if not (settings.inpaint_image and settings.inpaint_mask):
            raise ConfigError(
                "an inpainting model needs a picture and a mask; name them by sampling.inpaint_image and sampling.inpaint_mask"
            )
        height, width = (side * pipeline.vae_scale_factor for side in size)
        seen = read_picture(Path(settings.inpaint_image), "sampling.inpaint_image")
        white = read_picture(Path(settings.inpaint_mask), "sampling.inpaint_mask").convert("L")
        picture = pipeline.image_processor.preprocess(seen, height=height, width=width)
        mask = pipeline.mask_processor.preprocess(white, height=height, width=width)
        vae = pipeline.vae
        around = vae.encode((picture * (mask < 0.5)).to(vae.device, vae.dtype)).latent_dist.mode() * vae.config.scaling_factor
        self._fixed[size] = torch.cat([torch.nn.functional.interpolate(mask, size=size).to(around), around], dim=1)
        return self._fixed[size]
