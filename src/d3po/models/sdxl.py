"""Stable Diffusion XL, whose condition consists of two text encoders' embeddings, a pooled embedding and the picture's size."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3po.models.base import Embeddings
from d3po.models.pipeline import PipelinePolicy


class SDXLPolicy(PipelinePolicy):
    """A `StableDiffusionXLPipeline` without a refiner. The size condition is that of an uncropped picture of the sampled size."""

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, _, pooled, _ = self.pipeline.encode_prompt(list(prompts), device=self.device, do_classifier_free_guidance=False)
        return {"text": text, "pooled": pooled}

    def encode_prompts(self, prompts: Sequence[str]) -> Embeddings:
        condition = super().encode_prompts(prompts)
        if self.settings.negative_prompt or not self.pipeline.config.get("force_zeros_for_empty_prompt", True):
            return condition
        zeros = {name: torch.zeros_like(condition.negative[name]) for name in ("text", "pooled")}
        return Embeddings(given=condition.given, negative={**condition.negative, **zeros})

    def _network_output(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        size = [side * self.pipeline.vae_scale_factor for side in x_t.shape[2:]]
        sizes = x_t.new_tensor([*size, 0, 0, *size]).expand(len(x_t), -1)
        added = {"text_embeds": given["pooled"], "time_ids": sizes}
        scale = self._embedded_scale(given)
        return self.network(x_t, timesteps, encoder_hidden_states=given["text"], timestep_cond=scale, added_cond_kwargs=added).sample

    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return super().decode(latents * std + mean * self.pipeline.vae.config.scaling_factor)

    def encode(self, pictures: Tensor) -> Tensor:
        latents = super().encode(pictures)
        mean, std = self._statistics(latents)
        return (latents - mean * self.pipeline.vae.config.scaling_factor) / std

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation by which the autoencoder's latents are normalised; 0 and 1 if it does not define them."""
        config: Any = self.pipeline.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return latents.new_zeros(()), latents.new_ones(())
        return latents.new_tensor(mean).view(1, -1, 1, 1), latents.new_tensor(std).view(1, -1, 1, 1)
