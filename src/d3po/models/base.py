"""What the rest of d3po needs to know of a diffusion model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from d3po.diffusion.schedule import StepGrid
from d3po.diffusion.transition import Transition
from d3po.errors import ConfigError
from d3po.models.text_encoders import PromptCache
from d3po.options import Arithmetic, Decoding, Dividing, GuidanceKind, LastStep, SamplerKind, Spacing, TextEncoders, Weights

if TYPE_CHECKING:
    from d3po.models.divided import DividedNetwork


@runtime_checkable
class Condition(Protocol):
    """What a network is conditioned on, one row per prompt or image."""

    def rows(self, indices: Int[Tensor, " B"]) -> "Condition":
        """The condition of the given rows, in that order, repeats allowed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """A condition as tensors by name, one row a prompt, and one row of what guidance moves away from (the negative prompt)."""

    given: Mapping[str, Tensor]
    negative: Mapping[str, Tensor]

    def rows(self, indices: Int[Tensor, " B"]) -> "Embeddings":
        """The condition of the given rows, in that order, repeats allowed."""
        return Embeddings(given={name: value[indices.to(value.device)] for name, value in self.given.items()}, negative=self.negative)

    def with_negatives(self, count: int) -> dict[str, Tensor]:
        """`count` rows of the negative prompt, and below them all rows given."""
        return {
            name: torch.cat([self.negative[name].expand(count, *value.shape[1:]), value]) if count else value
            for name, value in self.given.items()
        }


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How a run wants to sample, in terms that every family understands or refuses."""

    steps: int
    kind: SamplerKind = "model"
    eta: float = 1.0
    """Noise of DDIM and of ancestral steps."""
    noise_level: float = 0.7
    """Noise of a flow's SDE steps."""
    spacing: Spacing | None = None
    """Spread of timesteps of a discrete-time model; None is its own."""
    last_step: LastStep = "model"
    latent_shape: tuple[int, ...] = ()
    """Of what is sampled, by which some flow models shift their noise levels; empty is the model's own."""
    zero_terminal_snr: bool = False
    """Rescale a discrete-time schedule so that its last timestep is noise alone."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """How a model is made a policy, beside its adapter."""

    guidance: GuidanceKind = "model"
    negative_prompt: str = ""
    max_sequence_length: int = 0
    """Tokens that a T5 encoder is given; 0: as many as the pipeline's default."""
    width: int = 0
    """Of the picture in pixels; 0 is the model's own."""
    height: int = 0
    parts: str = ""
    """The folder or hub id of a pipeline that lends a single-file model the parts which are not in its file."""
    weights: Weights = "float32"
    """Precision of the frozen weights; the autoencoder's are at least in float32, as some overflow in half precision."""
    arithmetic: Arithmetic = "weights"
    """Precision in which the denoiser computes."""
    decoding: Decoding = "whole"
    """How latents are decoded, for models that have a decoder."""
    text_encoders: TextEncoders = "keep"
    """Where text encoders are between uses."""
    divide: Dividing = "no"
    """By what the denoiser's frozen weights are divided, in a run of several processes."""
    deepspeed: str = ""
    """DeepSpeed's own settings, a JSON file; empty takes those that hold least."""
    start_from: str = ""
    """A LoRA that is merged into the network before anything else."""
    inpaint_image: str = ""
    """The picture whose masked part is painted anew."""
    inpaint_mask: str = ""
    """Its mask: white is painted, black is kept."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A model's reverse steps, and the ones that a rollout takes."""

    transition: Transition
    grid: StepGrid


class AbstractPolicy(ABC):
    """A diffusion model as a policy: it predicts, it can be trained, and its adapter can be switched off."""

    latent_shape: tuple[int, ...]
    guided_rows: int = 2
    """Rows in the network that a guided image costs."""
    guidance_is_input: bool = False
    """Whether the network is told the scale, and so has no prediction without one."""
    autocast: torch.dtype | None = None
    """Precision of the network's arithmetic, in sampling and in training alike; None is the weights' own."""
    prompt_cache: PromptCache | None = None
    """Where embeddings of prompts are kept, by models that have text encoders."""
    notes: Sequence[str] = ()
    """What the user has to know of how it was loaded."""
    divided: "DividedNetwork | None" = None
    """The denoiser's division among processes, after `divide`."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The denoiser, adapter included."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, one row each."""

    def cut_prompts(self, prompts: Sequence[str]) -> list[str]:  # noqa: ARG002
        """Which of the prompts are longer than a text encoder reads, one line an encoder; what is beyond is never seen."""
        return []

    def latent_shape_of(self, width: int, height: int) -> tuple[int, ...]:
        """The shape of the latents of a picture of this size in pixels; 0 is the model's own side.

        Raises:
            ConfigError: the model cannot make pictures of that size.
        """
        raise ConfigError(f"sampling.buckets asks for {width}x{height}, but this model makes samples of one shape; leave it empty")

    @abstractmethod
    def sampler(self, settings: SamplerSettings) -> Sampler:
        """The reverse steps that this model takes under the run's settings.

        Raises:
            ConfigError: a setting does not fit the model.
        """

    @abstractmethod
    def predict(
        self, x_t: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"], condition: Condition, guidance: float | Float[Tensor, " B"]
    ) -> Float[Tensor, " B *latent"]:
        """The guided prediction, in the model's own parameterisation.

        `guidance` is one scale for all rows or one each. A scale of 1 means none, in one network row per image; a network that takes the
        scale as an input is given it.
        """

    @abstractmethod
    def decode(self, latents: Float[Tensor, " B *latent"]) -> Float[Tensor, "B 3 height width"]:
        """Pictures in [0, 1]."""

    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels of what `decode` makes of latents of the model's own shape."""
        height, width = self.decode(torch.zeros(1, *self.latent_shape, device=self.device)).shape[2:]
        return height, width

    @abstractmethod
    def encode(self, pictures: Float[Tensor, "B 3 height width"]) -> Float[Tensor, " B *latent"]:
        """The latents of pictures in [0, 1] of the size that `decode` gives; the mode, where the encoder gives a distribution.

        Raises:
            ModelError: the model has no encoder.
        """

    @abstractmethod
    def without_adapter(self) -> AbstractContextManager[None]:
        """Within this context the network is the pretrained one."""

    @abstractmethod
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training moves, by name."""

    @abstractmethod
    def export(self, directory: Path) -> list[Path]:
        """Write the adapter as a LoRA that a plain diffusers pipeline loads, and the merged model; return what was written."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass: less memory, more time, same gradients."""

    def divide(self, device: torch.device) -> None:  # noqa: ARG002
        """Divide the denoiser's frozen weights among the processes that a launcher started; called by all of them, once, each with its device.

        In all processes but the first, which call nothing but the denoiser, every other part of the model is let go.

        Raises:
            ConfigError: the model is not one whose network can be divided.
        """
        raise ConfigError("hardware.divide is on, but a network of your own is not divided; set it to 'no'")

    def to(self, device: str) -> None:
        """Move every part of the model (here the denoiser alone); its trainable parameters stay the same objects."""
        self.network.to(device)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def state(self) -> dict[str, Tensor]:
        """A copy of the trainable weights, on the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.trainable().items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Set the trainable weights.

        Raises:
            ValueError: names differ from the policy's own.
        """
        own = self.trainable()
        if own.keys() != state.keys():
            strangers = sorted(own.keys() ^ state.keys())
            raise ValueError(f"{len(strangers)} weights do not match this policy, the first is {strangers[0]}")
        for name, parameter in own.items():
            parameter.copy_(state[name])
