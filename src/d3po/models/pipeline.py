"""The base class of policies made from a diffusers pipeline: adapter, guidance, picture decoder, export."""

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num
from safetensors.torch import save_file
from torch import Tensor, nn

from d3po.diffusion.transition import at_least_float32
from d3po.errors import ConfigError
from d3po.models.base import AbstractPolicy, Condition, Embeddings, PolicySettings, Sampler, SamplerSettings
from d3po.models.interchange import StartingLora, stack_layers, start_from
from d3po.models.kohya import to_kohya
from d3po.models.lora import attach_lora, merge_lora, scaled_lora, switched_off
from d3po.models.schedulers import SchedulerFacts, discrete_sampler, read_scheduler
from d3po.models.text_encoders import EncoderShelf, cut_lines, encode_once
from d3po.models.widening import narrow, widen
from d3po.options import Decoding

PROMPTS_PER_CALL = 16
"""Prompts in one call of the text encoders: they need much memory, and a round may have hundreds of prompts."""


class PipelinePolicy(AbstractPolicy):
    """A diffusers pipeline with a LoRA on its denoiser (or, with `lora=None`, with the whole denoiser trained).

    A subclass for a model family defines how prompts are encoded (`_encode`), how the denoiser is called (`_network_output`) and how the pipeline's parts
    are named.
    """

    denoiser = "unet"
    """The pipeline's attribute that holds the denoiser."""
    plain_guidance = "cfg"
    """Guidance of networks that do not take the scale as an input, as in the family's diffusers pipeline: `cfg`, or `none`."""

    def __init__(
        self,
        pipeline: Any,
        *,
        lora: dict[str, Any] | None,
        seed: int,
        settings: PolicySettings | None = None,
        load_part: Callable[[str], nn.Module] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.settings = settings or PolicySettings()
        self._shelf = EncoderShelf(pipeline, self.settings.text_encoders, load_part)
        _choose_decoding(getattr(pipeline, "vae", None), self.settings.decoding)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        if self.settings.max_sequence_length and self._default_sequence_length() is None:
            raise ConfigError(
                f"sampling.max_sequence_length is {self.settings.max_sequence_length}, but {type(pipeline).__name__} has no T5 encoder; set it to 0"
            )
        self.latent_shape = self.latent_shape_of(self.settings.width, self.settings.height)
        self.guidance_kind = self._guidance_kind()
        self.guided_forwards = 2 if self.guidance_kind == "cfg" else 1
        self.guidance_is_input = self.guidance_kind == "embedded"
        self._started = StartingLora()
        if self.settings.start_from:
            self._started = start_from(Path(self.settings.start_from), self.network, pipeline)
            self.notes = self._started.notes(self.settings.start_from)
        widened = self.settings.arithmetic == "float32"
        self._dtype = torch.float32 if widened else next(self.network.parameters()).dtype
        self._has_adapter = lora is not None
        if lora is not None:
            self._trainable = attach_lora(self.network, seed=seed, **lora)
        else:
            self.network.requires_grad_(True)
            self._trainable = dict(self.network.named_parameters())
        if widened:
            widen(self.network)

    @property
    def network(self) -> nn.Module:
        return getattr(self.pipeline, self.denoiser)

    @abstractmethod
    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encode prompts into the network's condition: tensors by name, whose first dimension is that of the prompts."""

    @abstractmethod
    def _network_output(self, x_t: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"], given: Mapping[str, Tensor]) -> Tensor:
        """Call the network. `given` is the condition; `given["guidance"]` is the scale of each element in float32, for networks that take it as input."""

    def encode_prompts(self, prompts: Sequence[str]) -> Embeddings:
        every = self._encoded([*prompts, self.settings.negative_prompt])
        return Embeddings(
            given={name: value[:-1] for name, value in every.items()}, negative={name: value[-1:] for name, value in every.items()}
        )

    @torch.no_grad()
    def _encoded(self, prompts: list[str]) -> dict[str, Tensor]:
        """`_encode` in batches, or from the cache where prompts were encoded before."""

        def encode(batches: list[list[str]]) -> list[dict[str, Tensor]]:
            with self._shelf.at_work(self.device):
                return [self._encode(batch) for batch in batches]

        if self.prompt_cache is None:
            parts = encode([prompts[start : start + PROMPTS_PER_CALL] for start in range(0, len(prompts), PROMPTS_PER_CALL)])
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        kept = encode_once(prompts, self.prompt_cache, encode)
        return {name: torch.cat([kept[prompt][name].to(self.device) for prompt in prompts]) for name in kept[prompts[0]]}

    def cut_prompts(self, prompts: Sequence[str]) -> list[str]:
        read = self._as_read(prompts)
        return [
            line
            for name, part in self.pipeline.components.items()
            if name.startswith("tokenizer") and part is not None
            for line in cut_lines(name.replace("tokenizer", "text_encoder"), part, prompts, read, self._limit(part))
        ]

    def _as_read(self, prompts: Sequence[str]) -> list[str]:
        """The prompts as the tokenizers receive them."""
        return list(prompts)

    def _limit(self, tokenizer: Any) -> int:
        """The most tokens that the tokenizer's encoder reads, start and end tokens included. For a T5 encoder the pipeline chooses the number."""
        default = self._default_sequence_length()
        if default is None or not type(tokenizer).__name__.startswith("T5"):
            return tokenizer.model_max_length
        return self.settings.max_sequence_length or default

    def _default_sequence_length(self) -> int | None:
        """The pipeline's default number of tokens for a T5 encoder; None if its `encode_prompt` has no such argument."""
        encode = getattr(self.pipeline, "encode_prompt", None)
        argument = None if encode is None else inspect.signature(encode).parameters.get("max_sequence_length")
        return None if argument is None else argument.default

    def _sequence_length(self) -> dict[str, int]:
        """The argument of `encode_prompt` that sets a T5 encoder's number of tokens; empty if it is to be the pipeline's default."""
        return {"max_sequence_length": self.settings.max_sequence_length} if self.settings.max_sequence_length else {}

    def sampler(self, settings: SamplerSettings) -> Sampler:
        return discrete_sampler(self.facts, settings)

    @property
    def facts(self) -> SchedulerFacts:
        """The discrete-time schedule that the model was trained with."""
        return read_scheduler(self.pipeline.scheduler)

    def predict(
        self, x_t: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"], condition: Condition, guidance: float | Float[Tensor, " B"]
    ) -> Float[Tensor, " B *latent"]:
        assert isinstance(condition, Embeddings)
        scales = guidance.to(x_t) if isinstance(guidance, Tensor) else x_t.new_full((len(x_t),), guidance)
        if self.guidance_kind == "embedded":
            return self._called(x_t, timesteps, condition.given, scales)
        indices = _guided_indices(guidance, scales)
        if self.guidance_kind == "none" or len(indices) == 0:
            return self._called(x_t, timesteps, condition.given, torch.ones_like(scales))
        inputs, times = torch.cat([x_t[indices], x_t]), torch.cat([timesteps[indices], timesteps])
        output = self._called(inputs, times, condition.with_negatives(len(indices)), torch.ones_like(times, dtype=x_t.dtype))
        away, towards = output[: len(indices)], output[len(indices) :]
        scale = scales[indices].view(-1, *[1] * (x_t.ndim - 1))
        guided = away + scale * (towards[indices] - away)
        return guided if len(indices) == len(x_t) else towards.index_copy(0, indices, guided)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, " B *latent"]) -> Float[Tensor, "B 3 height width"]:
        vae = self.pipeline.vae
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        pictures = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor + shift).sample
        return (at_least_float32(pictures) / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode(self, pictures: Float[Tensor, "B 3 height width"]) -> Float[Tensor, " B *latent"]:
        vae = self.pipeline.vae
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        latents = vae.encode((2 * pictures - 1).to(vae.device, vae.dtype)).latent_dist.mode()
        return (at_least_float32(latents) - shift) * vae.config.scaling_factor

    def without_adapter(self) -> AbstractContextManager[None]:
        if not self._has_adapter:
            raise ValueError("the whole network is trained, so there is no adapter to switch off")
        return switched_off(self.network)

    def to(self, device: str) -> None:
        self._shelf.to(device)

    def enable_gradient_checkpointing(self) -> None:
        network: Any = self.network
        network.enable_gradient_checkpointing()

    def trainable(self) -> dict[str, nn.Parameter]:
        return self._trainable

    def export(self, directory: Path) -> list[Path]:
        network: Any = self.network
        narrow(network)
        network.to(memory_format=torch.contiguous_format)  # safetensors keeps no other
        written: list[Path] = []
        if self._has_adapter:
            layers = stack_layers(self._started.layers, scaled_lora(self.network))
            written.append(self._save_lora(directory / "lora", layers))
            if kohya := self._kohya(layers):
                written.append(directory / "lora-kohya.safetensors")
                save_file(kohya, written[-1], metadata={"format": "pt"})
            merge_lora(self.network)
            self._has_adapter = False
        with self._shelf.at_work(self.device):
            self.pipeline.save_pretrained(directory / "merged")
        return [*written, directory / "merged"]

    def _save_lora(self, directory: Path, layers: dict[str, Tensor]) -> Path:
        saver: Any = type(self.pipeline).save_lora_weights
        saver(directory, **{f"{self.denoiser}_lora_layers": layers})
        return directory / "pytorch_lora_weights.safetensors"

    def _kohya(self, layers: dict[str, Tensor]) -> dict[str, Tensor]:
        """The LoRA in Kohya's layout; empty if the family has none."""
        return to_kohya(layers) if self.denoiser == "unet" and hasattr(self.pipeline, "load_lora_weights") else {}

    def divide(self, device: torch.device) -> None:
        from d3po.models.divided import DividedNetwork, divide_by_fsdp
        from d3po.models.zero3 import divide_by_zero3, zero3_settings

        trainable = list(self._trainable.values())
        if self.settings.divide == "zero3":
            divide_by_zero3(self.network, zero3_settings(self.settings.deepspeed, self._dtype))
        else:
            divide_by_fsdp(self.network, trainable, device)
        self.divided = DividedNetwork(self.network, self._called_here, trainable, device)
        if self.divided.lends:
            parts = self.pipeline.components.items()
            self.pipeline.register_modules(**{name: None for name, part in parts if isinstance(part, nn.Module) and name != self.denoiser})

    def _called(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        return (self.divided or self._called_here)(x_t, timesteps, given, scale)

    def _called_here(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            inputs = {name: self._cast(value) for name, value in given.items()} | {"guidance": scale}
            return at_least_float32(_without_variance(self._network_output(self._cast(x_t), timesteps, inputs), x_t.shape[1]))

    def _cast(self, value: Tensor) -> Tensor:
        """Cast an input to the precision in which the network computes."""
        return value.to(self._dtype) if value.is_floating_point() else value

    def latent_shape_of(self, width: int, height: int) -> tuple[int, ...]:
        sides = zip((height, width), self._default_sides(), strict=True)
        return (self._latent_channels(), *(self._in_latents(pixels, default, self._pixels_a_latent) for pixels, default in sides))

    def picture_size(self) -> tuple[int, int]:
        _, height, width = self.latent_shape
        return height * self._pixels_a_latent, width * self._pixels_a_latent

    @property
    def _pixels_a_latent(self) -> int:
        """The factor by which a picture's side in pixels is larger than its side in latents."""
        return getattr(self.pipeline, "vae_scale_factor", 1)

    def _default_sides(self) -> tuple[int, ...]:
        """Height and width, in latents, of the pictures that the network was trained on; 0 if its configuration does not say."""
        config: Any = self.network.config
        side = config.sample_size or 0
        return (side, side) if isinstance(side, int) else tuple(side)

    def _latent_channels(self) -> int:
        config: Any = self.network.config
        return config.in_channels

    def _in_latents(self, pixels: int, default: int, factor: int) -> int:
        """A picture's side in latents, from its side in pixels; `default` if that is 0.

        Raises:
            ConfigError: the side is no multiple of what the model can draw, or is neither set nor known.
        """
        if pixels == 0 and default == 0:
            raise ConfigError(
                f"the configuration of the model's {type(self.network).__name__} does not say what size it draws (sample_size); "
                "set sampling.width and sampling.height"
            )
        if pixels == 0:
            return default
        step = factor * self._patch()
        if pixels % step:
            raise ConfigError(
                f"sampling.width, sampling.height and sampling.buckets must be multiples of {step} for this model; {pixels} is not"
            )
        return pixels // factor

    def _patch(self) -> int:
        config: Any = self.network.config
        return getattr(config, "patch_size", None) or 2 ** (len(getattr(config, "block_out_channels", (0,))) - 1)

    def _guidance_kind(self) -> str:
        """The guidance that the network is used with: `cfg`, `embedded` or `none`."""
        wanted = self.settings.guidance
        if wanted == "model":
            return "embedded" if self._embeds_guidance else self.plain_guidance
        if wanted == "embedded" and not self._embeds_guidance:
            raise ConfigError(
                f"sampling.guidance_kind is 'embedded', but {type(self.network).__name__} takes no guidance as input; choose 'cfg' or 'model'"
            )
        return wanted

    @property
    def _embeds_guidance(self) -> bool:
        """Whether the network takes the guidance scale as an input."""
        config: Any = self.network.config
        return getattr(config, "time_cond_proj_dim", None) is not None

    def _embedded_scale(self, given: Mapping[str, Tensor]) -> Tensor | None:
        """The embedded guidance scale of U-Nets that were distilled with guidance (Luo et al. 2023, arXiv 2310.04378): features of scale - 1.

        None for U-Nets without such an input.
        """
        config: Any = self.network.config
        size, scale = getattr(config, "time_cond_proj_dim", None), given["guidance"]
        return (
            None if size is None else self._cast(self.pipeline.get_guidance_scale_embedding(scale.cpu() - 1, embedding_dim=size).to(scale))
        )


def _choose_decoding(vae: Any, decoding: Decoding) -> None:
    if vae is not None and decoding != "whole":
        vae.enable_slicing()
    if vae is not None and decoding == "tiled":
        vae.enable_tiling()


def _without_variance(output: Tensor, channels: int) -> Tensor:
    """The first half of the channels, if the network also predicts a variance; diffusers' pipelines ignore that variance too."""
    return output[:, :channels] if output.shape[1] == 2 * channels else output


def _guided_indices(guidance: float | Tensor, scales: Tensor) -> Tensor:
    """Indices of the batch elements whose scale is not 1, and which therefore need a second forward pass."""
    if isinstance(guidance, Tensor):
        return (scales != 1).nonzero().flatten()
    return torch.arange(0 if guidance == 1 else len(scales), device=scales.device)
