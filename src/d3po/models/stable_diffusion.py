"""Stable Diffusion 1.x and 2.x, and the embedded emoji model, which is one in miniature."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from jaxtyping import Float, Int
from peft import get_peft_model_state_dict
from torch import Tensor, nn

from d3po.diffusion.schedule import NoiseSchedule
from d3po.models.base import AbstractPolicy, Condition, SchedulerFacts
from d3po.models.lora import ADAPTER, attach_lora


@dataclass(frozen=True, kw_only=True)
class TextCondition:
    """Text embeddings of B prompts, and those of the empty prompt for classifier-free guidance."""

    text: Float[Tensor, "B L D"]
    empty: Float[Tensor, "1 L D"]

    def rows(self, indices: Int[Tensor, " N"]) -> "TextCondition":
        return TextCondition(text=self.text[indices.to(self.text.device)], empty=self.empty)


class StableDiffusionPolicy(AbstractPolicy):
    """A `StableDiffusionPipeline` with a LoRA on its U-Net (or, with `lora=None`, with the whole U-Net trained)."""

    def __init__(self, pipeline: Any, *, lora: dict[str, Any] | None, seed: int) -> None:
        self.pipeline = pipeline
        self.facts = read_scheduler(pipeline.scheduler)
        unet = pipeline.unet
        self.latent_shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        for module in (pipeline.vae, pipeline.text_encoder):
            module.requires_grad_(False).eval()
        unet.eval()
        self._has_adapter = lora is not None
        if lora is not None:
            self._trainable = attach_lora(unet, seed=seed, **lora)
        else:
            unet.requires_grad_(True)
            self._trainable = dict(unet.named_parameters())

    @property
    def network(self) -> nn.Module:
        return self.pipeline.unet

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> TextCondition:
        text = self.pipeline.encode_prompt([*prompts, ""], self.device, 1, False)[0]
        return TextCondition(text=text[:-1], empty=text[-1:])

    def predict(
        self, x_t: Float[Tensor, "B C H W"], timesteps: Int[Tensor, " B"], condition: Condition, guidance: float
    ) -> Float[Tensor, "B C H W"]:
        assert isinstance(condition, TextCondition)
        if guidance == 1:
            return self._network_output(x_t, timesteps, condition.text)
        text = torch.cat([condition.empty.expand_as(condition.text), condition.text])
        output = self._network_output(torch.cat([x_t, x_t]), torch.cat([timesteps, timesteps]), text)
        unconditional, conditional = output.chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    def _scaled_lora(self) -> dict[str, Any]:
        """The LoRA with alpha / rank folded into its second factor, as loaders assume alpha = rank where nothing is said."""
        config = self.pipeline.unet.peft_config[ADAPTER]
        scale = config.lora_alpha / config.r
        state = get_peft_model_state_dict(self.pipeline.unet, adapter_name=ADAPTER)
        return {name: value * scale if "lora_B" in name else value for name, value in state.items()}

    def _network_output(self, x_t: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return self.network(x_t, timesteps, text).sample.float()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 height width"]:
        vae = self.pipeline.vae
        pictures = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
        return (pictures.float() / 2 + 0.5).clamp(0, 1)

    @contextmanager
    def without_adapter(self) -> Generator[None, None, None]:
        if not self._has_adapter:
            raise ValueError("the whole network is trained, so there is no adapter to switch off")
        self.pipeline.unet.disable_adapters()
        try:
            yield
        finally:
            self.pipeline.unet.enable_adapters()

    def to(self, device: str) -> None:
        self.pipeline.to(device)

    def enable_gradient_checkpointing(self) -> None:
        self.pipeline.unet.enable_gradient_checkpointing()

    def trainable(self) -> dict[str, nn.Parameter]:
        return self._trainable

    def export(self, directory: Path) -> list[Path]:
        written: list[Path] = []
        if self._has_adapter:
            StableDiffusionPipeline.save_lora_weights(directory / "lora", unet_lora_layers=self._scaled_lora())
            written.append(directory / "lora" / "pytorch_lora_weights.safetensors")
            self.pipeline.unet.fuse_lora(adapter_names=[ADAPTER])
            self.pipeline.unet.unload_lora()
        self.pipeline.save_pretrained(directory / "merged")
        return [*written, directory / "merged"]


def read_scheduler(scheduler: Any) -> SchedulerFacts:
    """The facts of a diffusers discrete-time scheduler of any class; its own sampling method is not used."""
    config = scheduler.config
    alphas = scheduler.alphas_cumprod.float()
    return SchedulerFacts(
        schedule=NoiseSchedule(
            alphas_cumprod=alphas,
            final_alpha_cumprod=1.0 if config.get("set_alpha_to_one", True) else float(alphas[0]),
        ),
        prediction_type=config.get("prediction_type", "epsilon"),
        spacing=config.get("timestep_spacing", "leading"),
        steps_offset=config.get("steps_offset", 0),
        clip_range=config.get("clip_sample_range", 1.0)
        if config.get("clip_sample", False) and not config.get("thresholding", False)
        else None,
        threshold_ratio=config.get("dynamic_thresholding_ratio", 0.995) if config.get("thresholding", False) else None,
        threshold_max=config.get("sample_max_value", 1.0),
    )
