"""Inpainting with Stable Diffusion: one picture's masked part is painted anew, as the prompts say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from d3po.errors import ConfigError, ModelError
from d3po.models.pipeline import PipelinePolicy


class InpaintingPolicy(PipelinePolicy):
    """A `StableDiffusionInpaintPipeline` whose U-Net sees the mask and the picture around it (9 input channels).

    Picture and mask are the run's, `sampling.inpaint_image` and `sampling.inpaint_mask`, scaled to the size that is sampled.
    """

    def __init__(self, pipeline: Any, **rest: Any) -> None:
        super().__init__(pipeline, **rest)
        mask, around = self._read_picture()
        self._mask, self._around = mask, around

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text = self.pipeline.encode_prompt(list(prompts), self.device, 1, False)[0]
        fixed = torch.cat([self._mask, self._around], dim=1).to(text)
        return {"text": text, "around": fixed.expand(len(text), *fixed.shape[1:])}

    def _network_output(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return self.network(torch.cat([x_t, given["around"]], dim=1), timesteps, given["text"]).sample

    def _latent_channels(self) -> int:
        channels, latent = super()._latent_channels(), int(self.pipeline.vae.config.latent_channels)
        if channels != 2 * latent + 1:
            raise ModelError(
                f"this inpainting model's U-Net takes {channels} channels, but one that sees its mask takes {2 * latent + 1}; "
                "use it as a plain Stable Diffusion model"
            )
        return latent

    @torch.no_grad()
    def _read_picture(self) -> tuple[Float[Tensor, "1 1 h w"], Float[Tensor, "1 c h w"]]:
        """The mask at the latents' size, and the encoded picture with its masked part taken out."""
        settings, pipeline = self.settings, self.pipeline
        if not (settings.inpaint_image and settings.inpaint_mask):
            raise ConfigError(
                "an inpainting model needs a picture and a mask; name them by sampling.inpaint_image and sampling.inpaint_mask"
            )
        height, width = (side * pipeline.vae_scale_factor for side in self.latent_shape[1:])
        picture = pipeline.image_processor.preprocess(_opened(settings.inpaint_image, "RGB"), height=height, width=width)
        mask = pipeline.mask_processor.preprocess(_opened(settings.inpaint_mask, "L"), height=height, width=width)
        vae = pipeline.vae
        around = vae.encode((picture * (mask < 0.5)).to(vae.device, vae.dtype)).latent_dist.mode() * vae.config.scaling_factor
        return torch.nn.functional.interpolate(mask, size=self.latent_shape[1:]), around


def _opened(path: str, mode: str) -> Image.Image:
    try:
        return Image.open(Path(path)).convert(mode)
    except (OSError, UnidentifiedImageError) as error:
        raise ConfigError(f"{path} cannot be read as a picture: {error}") from error
