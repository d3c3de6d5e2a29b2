"""PixArt-Sigma: a diffusion transformer with one T5 text encoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusers.utils import is_bs4_available, is_ftfy_available
from torch import Tensor

from d3po.models.peft_folder import save_peft_folder
from d3po.models.pipeline import PipelinePolicy


class PixArtPolicy(PipelinePolicy):
    """A `PixArtSigmaPipeline`.

    Prompts are cleaned as in diffusers' pipeline: markup and addresses are removed if ftfy and beautifulsoup4 are installed; otherwise prompts are only
    put in lower case.
    """

    denoiser = "transformer"

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, mask, _, _ = self.pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, device=self.device, clean_caption=_cleans(), **self._sequence_length()
        )
        return {"text": text, "mask": mask}

    def _as_read(self, prompts: Sequence[str]) -> list[str]:
        return self.pipeline._text_preprocessing(list(prompts), clean_caption=_cleans())

    def _network_output(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return self.network(
            x_t,
            encoder_hidden_states=given["text"],
            encoder_attention_mask=given["mask"],
            timestep=timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample

    def _save_lora(self, directory: Path, layers: dict[str, Tensor]) -> Path:
        return save_peft_folder(directory, layers)


def _cleans() -> bool:
    return is_bs4_available() and is_ftfy_available()
