"""FLUX.1: a flow transformer on packed latents. The dev model takes the guidance scale as an input."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d3po.models.base import Sampler, SamplerSettings
from d3po.models.kohya import on_original_flux, to_kohya
from d3po.models.pipeline import PipelinePolicy
from d3po.models.schedulers import flow_sampler

PACKED = 2
"""Each token of the transformer's sequence is a square of this side in the latents."""


class FluxPolicy(PipelinePolicy):
    """A `FluxPipeline`. Latents are kept as pictures (C, H, W) and packed only for the network.

    A network without a guidance input (schnell) is sampled without guidance, as in diffusers' pipeline. With classifier-free guidance
    (`sampling.guidance_kind = "cfg"`) a network that has a guidance input is given a scale of 1.
    """

    denoiser = "transformer"
    plain_guidance = "none"

    @property
    def _embeds_guidance(self) -> bool:
        network: Any = self.network
        return network.config.guidance_embeds

    def sampler(self, settings: SamplerSettings) -> Sampler:
        _, height, width = settings.latent_shape or self.latent_shape
        sigmas = np.linspace(1.0, 1 / settings.steps, settings.steps).tolist()
        return flow_sampler(self.pipeline.scheduler, settings, sigmas=sigmas, tokens=(height // PACKED) * (width // PACKED))

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, pooled, _ = self.pipeline.encode_prompt(list(prompts), None, device=self.device, **self._sequence_length())
        return {"text": text, "pooled": pooled}

    def _network_output(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        count, channels, height, width = x_t.shape
        places = self.pipeline._prepare_latent_image_ids(count, height // PACKED, width // PACKED, x_t.device, x_t.dtype)
        packed = self.network(
            hidden_states=self.pipeline._pack_latents(x_t, count, channels, height, width),
            timestep=timesteps / 1000,
            guidance=given["guidance"] if self._embeds_guidance else None,
            pooled_projections=given["pooled"],
            encoder_hidden_states=given["text"],
            txt_ids=torch.zeros(given["text"].shape[1], 3, device=x_t.device, dtype=x_t.dtype),
            img_ids=places,
        ).sample
        return self.pipeline._unpack_latents(packed, height, width, 1)

    def _kohya(self, layers: dict[str, Tensor]) -> dict[str, Tensor]:
        return to_kohya(on_original_flux(layers, self.network))

    def _default_sides(self) -> tuple[int, ...]:
        return (self.pipeline.default_sample_size, self.pipeline.default_sample_size)

    def _latent_channels(self) -> int:
        return super()._latent_channels() // PACKED**2

    def _patch(self) -> int:
        return PACKED
