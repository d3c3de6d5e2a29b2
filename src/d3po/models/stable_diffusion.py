"""Stable Diffusion 1.x and 2.x, and the embedded models, which have the same structure."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from d3po.models.pipeline import PipelinePolicy


class StableDiffusionPolicy(PipelinePolicy):
    """A `StableDiffusionPipeline` with epsilon or v prediction, as its scheduler says."""

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {"text": self.pipeline.encode_prompt(list(prompts), self.device, 1, False)[0]}

    def _network_output(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return self.network(x_t, timesteps, given["text"], timestep_cond=self._embedded_scale(given)).sample
