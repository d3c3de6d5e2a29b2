"""Stable Diffusion 3 and 3.5: flow transformers with three text encoders."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from d3po.models.base import Sampler, SamplerSettings
from d3po.models.pipeline import PipelinePolicy
from d3po.models.schedulers import flow_sampler


class SD3Policy(PipelinePolicy):
    """A `StableDiffusion3Pipeline`. If it has no T5 encoder, that encoder's embedding is zero, as in diffusers."""

    denoiser = "transformer"

    def sampler(self, settings: SamplerSettings) -> Sampler:
        network: Any = self.network
        _, height, width = settings.latent_shape or self.latent_shape
        tokens = (height // network.config.patch_size) * (width // network.config.patch_size)
        return flow_sampler(self.pipeline.scheduler, settings, sigmas=None, tokens=tokens)

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), None, None, device=self.device, do_classifier_free_guidance=False, **self._sequence_length()
        )
        return {"text": text, "pooled": pooled}

    def _network_output(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return self.network(
            hidden_states=x_t, timestep=timesteps, encoder_hidden_states=given["text"], pooled_projections=given["pooled"]
        ).sample
