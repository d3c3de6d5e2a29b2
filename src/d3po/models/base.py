"""What the rest of d3po needs to know of a diffusion model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from d3po.diffusion.schedule import NoiseSchedule
from d3po.options import PredictionType, Spacing


@runtime_checkable
class Condition(Protocol):
    """What a network is conditioned on, one row per prompt or image."""

    def rows(self, indices: Int[Tensor, " B"]) -> "Condition":
        """The condition of the given rows, in that order, repeats allowed."""
        ...


@dataclass(frozen=True, kw_only=True)
class SchedulerFacts:
    """What a model was trained with, read once from its scheduler's configuration."""

    schedule: NoiseSchedule
    prediction_type: PredictionType
    spacing: Spacing
    steps_offset: int
    clip_range: float | None
    threshold_ratio: float | None
    threshold_max: float

    @property
    def num_train_timesteps(self) -> int:
        return len(self.schedule.alphas_cumprod)


class AbstractPolicy(ABC):
    """A diffusion model as a policy: it predicts, it can be trained, and its adapter can be switched off."""

    facts: SchedulerFacts
    latent_shape: tuple[int, int, int]
    autocast: torch.dtype | None = None
    """Precision of the network's arithmetic, in sampling and in training alike; None is the weights' own."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The denoiser, adapter included."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, one row each."""

    @abstractmethod
    def predict(
        self, x_t: Float[Tensor, "B C H W"], timesteps: Int[Tensor, " B"], condition: Condition, guidance: float
    ) -> Float[Tensor, "B C H W"]:
        """The guided prediction, in the model's own parameterisation. `guidance=1` means none, in one network row per image."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 height width"]:
        """Pictures in [0, 1]."""

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
