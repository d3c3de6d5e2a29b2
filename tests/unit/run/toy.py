"""A model whose every number can be worked out by hand, and which needs no library of models: pictures of 3 colours and 4 x 4 pixels."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from d3po.diffusion.parameterization import CleanSample
from d3po.diffusion.schedule import NoiseSchedule, step_grid
from d3po.diffusion.transition import DDIM
from d3po.models.base import AbstractPolicy, Condition, Embeddings, Sampler, SamplerSettings
from d3po.run.session import Session

STEPS = 4
"""Denoising steps of the runs; the last one is deterministic."""
GUIDANCE = 2.0


class Network(nn.Module):
    """Expects the clean picture x_0 = x_t / 2 + shift + told, and remembers the batch size of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))
        self.calls: list[int] = []

    def forward(self, x_t: Tensor, told: Tensor, shift: Tensor) -> Tensor:
        self.calls.append(len(x_t))
        return x_t / 2 + shift[:, None, None] + told[:, None, None, None]

    @property
    def forwards(self) -> int:
        """Forward passes in all calls, one an image."""
        return sum(self.calls)


class ToyPolicy(AbstractPolicy):
    """The shift, 0 before training, is the adapter; what a prompt tells is a hundredth of its length, times the guidance."""

    latent_shape = (3, 4, 4)

    def __init__(self) -> None:
        self.made = Network()
        self.encoded: list[int] = []
        """How many pictures the encoder was given in each call."""
        self._adapted = True

    @property
    def network(self) -> Network:
        return self.made

    def encode_prompts(self, prompts: Sequence[str]) -> Embeddings:
        return Embeddings(given={"length": torch.tensor([len(prompt) / 100 for prompt in prompts])}, negative={})

    def latent_shape_of(self, width: int, height: int) -> tuple[int, ...]:
        return (3, height or 4, width or 4)

    def sampler(self, settings: SamplerSettings) -> Sampler:
        schedule = NoiseSchedule(alphas_cumprod=torch.linspace(0.99, 0.1, 100), final_alpha_cumprod=1.0)
        return Sampler(
            transition=DDIM(schedule=schedule, parameterization=CleanSample(), eta=settings.eta),
            grid=step_grid(100, settings.steps, spacing="trailing"),
        )

    def predict(self, x_t: Tensor, timesteps: Tensor, condition: Condition, guidance: float | Tensor) -> Tensor:
        assert isinstance(condition, Embeddings)
        shift = self.made.shift if self._adapted else torch.zeros(3)
        return self.made(x_t, guidance * condition.given["length"], shift)

    def decode(self, latents: Tensor) -> Tensor:
        return (latents / 2 + 0.5).clamp(0, 1)

    def encode(self, pictures: Tensor) -> Tensor:
        self.encoded.append(len(pictures))
        return 2 * pictures - 1

    @contextmanager
    def without_adapter(self) -> Generator[None, None, None]:
        self._adapted = False
        yield
        self._adapted = True

    def trainable(self) -> dict[str, nn.Parameter]:
        return {"shift": self.made.shift}

    def move(self, shift: float) -> None:
        """Set the adapter, of all three colours."""
        self.load_state({"shift": torch.full((3,), shift)})

    def export(self, directory: Path) -> list[Path]:
        path = directory / "lora" / "shift.txt"
        path.parent.mkdir(parents=True)
        path.write_text(str(self.made.shift.tolist()))
        return [path.parent]

    def enable_gradient_checkpointing(self) -> None:
        pass


def policy_of(session: Session) -> ToyPolicy:
    """The toy that a session has loaded."""
    policy = session.policy
    assert isinstance(policy, ToyPolicy)
    return policy
