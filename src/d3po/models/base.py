"""The interface of diffusion models: everything that the rest of d3po needs to know about a model."""

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
    """What a network is conditioned on: a batch with one element for each prompt or image."""

    def select(self, indices: Int[Tensor, " B"]) -> "Condition":
        """The elements at the given indices, in that order; an index may occur several times."""
        ...


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """A condition as tensors by name."""

    given: Mapping[str, Tensor]
    """Prompt embeddings; the first dimension is the batch."""
    negative: Mapping[str, Tensor]
    """Embeddings of the negative prompt, from which guidance moves away; the batch size is 1."""

    def select(self, indices: Int[Tensor, " B"]) -> "Embeddings":
        """The elements at the given indices, in that order; an index may occur several times."""
        return Embeddings(given={name: value[indices.to(value.device)] for name, value in self.given.items()}, negative=self.negative)

    def with_negatives(self, count: int) -> dict[str, Tensor]:
        """Repeat the negative prompt `count` times and append `given`, along the batch."""
        return {
            name: torch.cat([self.negative[name].expand(count, *value.shape[1:]), value]) if count else value
            for name, value in self.given.items()
        }


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How a run samples, in terms that every model family either supports or refuses."""

    steps: int
    kind: SamplerKind = "model"
    eta: float = 1.0
    """Noise of DDIM and of ancestral steps."""
    noise_level: float = 0.7
    """Noise of a flow's SDE steps."""
    spacing: Spacing | None = None
    """Spacing of the timesteps of a discrete-time model; None takes that of its scheduler."""
    last_step: LastStep = "model"
    latent_shape: tuple[int, ...] = ()
    """Shape of the sampled latents, on which the noise levels of some flow models depend; empty takes the model's default shape."""
    zero_terminal_snr: bool = False
    """Rescale a discrete-time schedule so that its last timestep is pure noise (zero terminal SNR)."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """How a policy is made from a model, apart from its adapter."""

    guidance: GuidanceKind = "model"
    negative_prompt: str = ""
    max_sequence_length: int = 0
    """Length in tokens of a T5 encoder's input; 0 takes the pipeline's default."""
    width: int = 0
    """Width of a picture in pixels; 0 takes the model's default."""
    height: int = 0
    """Height of a picture in pixels; 0 takes the model's default."""
    parts: str = ""
    """Folder or hub id of a pipeline that provides the parts missing from a single-file model."""
    weights: Weights = "float32"
    """Precision of the frozen weights; the autoencoder's are at least float32, since some overflow in half precision."""
    arithmetic: Arithmetic = "weights"
    """Precision of the denoiser's arithmetic."""
    decoding: Decoding = "whole"
    """How latents are decoded, for models that have a decoder."""
    text_encoders: TextEncoders = "keep"
    """Where text encoders are kept between uses."""
    divide: Dividing = "no"
    """How the denoiser's frozen weights are divided among the processes of a run."""
    deepspeed: str = ""
    """JSON file of DeepSpeed settings; empty takes the settings that use least memory."""
    start_from: str = ""
    """A LoRA that is merged into the network before anything else."""
    inpaint_image: str = ""
    """The picture whose masked part is inpainted."""
    inpaint_mask: str = ""
    """The mask: white is inpainted, black is kept."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A model's reverse step distribution, and the steps that a rollout takes."""

    transition: Transition
    grid: StepGrid


class AbstractPolicy(ABC):
    """A diffusion model as a policy: it makes predictions, can be trained, and its adapter can be switched off."""

    latent_shape: tuple[int, ...]
    """The default shape of one image's latents."""
    guided_forwards: int = 2
    """Forward passes that one guided prediction of one image costs."""
    guidance_is_input: bool = False
    """Whether the network takes the guidance scale as an input, so that it has no prediction without one."""
    autocast: torch.dtype | None = None
    """Precision of the network's arithmetic, both in sampling and in training; None takes that of the weights."""
    prompt_cache: PromptCache | None = None
    """Where prompt embeddings are cached; used by models with text encoders."""
    notes: Sequence[str] = ()
    """What to tell the user about how the model was loaded."""
    divided: "DividedNetwork | None" = None
    """The network as it is divided among processes, once `divide` was called."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The denoiser, adapter included."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        """Encode the prompts: a condition with one element for each."""

    def cut_prompts(self, prompts: Sequence[str]) -> list[str]:  # noqa: ARG002
        """Warnings about prompts that are longer than a text encoder reads, one line for each encoder; the tokens beyond its limit have no effect."""
        return []

    def latent_shape_of(self, width: int, height: int) -> tuple[int, ...]:
        """The shape of the latents of a picture of this size in pixels; 0 takes the model's default side.

        Raises:
            ConfigError: the model cannot make pictures of that size.
        """
        raise ConfigError(f"sampling.buckets asks for {width}x{height}, but this model makes samples of one shape; leave it empty")

    @abstractmethod
    def sampler(self, settings: SamplerSettings) -> Sampler:
        """Make the sampler of this model under the run's settings.

        Raises:
            ConfigError: a setting does not fit the model.
        """

    @abstractmethod
    def predict(
        self, x_t: Float[Tensor, " B *latent"], timesteps: Num[Tensor, " B"], condition: Condition, guidance: float | Float[Tensor, " B"]
    ) -> Float[Tensor, " B *latent"]:
        """The guided prediction, in the model's own parameterisation (noise, velocity, ...).

        `guidance` is one scale for the batch or one for each element. A scale of 1 means no guidance and costs one forward pass an image, but a network
        that takes the scale as an input is given the 1.
        """

    @abstractmethod
    def decode(self, latents: Float[Tensor, " B *latent"]) -> Float[Tensor, "B 3 height width"]:
        """Decode latents into pictures with values in [0, 1]."""

    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels of a picture decoded from latents of the model's default shape."""
        height, width = self.decode(torch.zeros(1, *self.latent_shape, device=self.device)).shape[2:]
        return height, width

    @abstractmethod
    def encode(self, pictures: Float[Tensor, "B 3 height width"]) -> Float[Tensor, " B *latent"]:
        """Encode pictures with values in [0, 1], of the size that `decode` gives. Where the encoder gives a distribution, its mode is taken.

        Raises:
            ModelError: the model has no encoder.
        """

    @abstractmethod
    def without_adapter(self) -> AbstractContextManager[None]:
        """Context in which the adapter is switched off, so that the network is the pretrained one."""

    @abstractmethod
    def trainable(self) -> dict[str, nn.Parameter]:
        """The trainable parameters by name."""

    @abstractmethod
    def export(self, directory: Path) -> list[Path]:
        """Write the adapter as a LoRA that a plain diffusers pipeline loads, and the merged model. Returns the written paths."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass: less memory, more time, the same gradients."""

    def divide(self, device: torch.device) -> None:  # noqa: ARG002
        """Divide the denoiser's frozen weights among the processes that a launcher started. All of them must call this once, each with its device.

        All processes but the first only evaluate the denoiser afterwards, so they drop every other part of the model.

        Raises:
            ConfigError: the network of this model cannot be divided.
        """
        raise ConfigError("hardware.divide is on, but a network of your own is not divided; set it to 'no'")

    def to(self, device: str) -> None:
        """Move the model to a device (by default the denoiser alone). The trainable parameters stay the same objects."""
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
            ValueError: the names are not those of the policy's trainable parameters.
        """
        parameters = self.trainable()
        if parameters.keys() != state.keys():
            strangers = sorted(parameters.keys() ^ state.keys())
            raise ValueError(f"{len(strangers)} weights do not match this policy, the first is {strangers[0]}")
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
