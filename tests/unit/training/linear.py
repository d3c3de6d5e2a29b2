"""A linear model in float64 whose every number can be worked out by hand, and what trains it."""

from pathlib import Path

import torch
from torch import Tensor, nn

from d3po.artifacts.shards import Shard, writing_shard
from d3po.models.base import SamplerSettings
from d3po.models.custom import CustomPolicy
from d3po.models.replay import Replay
from d3po.objectives.base import Needs
from d3po.options import LastStep, ReferenceUse
from d3po.training.data import GroupLabels, PromptGroup, ReferenceSteps

STEPS = 4


class Shift(nn.Module):
    """Predicts the noise as a shift of x_t; the shift is what a LoRA on its one layer moves."""

    sample_shape = (3,)
    prediction = "epsilon"

    def __init__(self, timesteps: int = 1000) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.alphas_cumprod = torch.linspace(0.999, 0.01, timesteps)

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return self.layer(x_t)


def policy(moved: float = 0.0, timesteps: int = 1000) -> CustomPolicy:
    torch.manual_seed(0)
    made = CustomPolicy(Shift(timesteps), lora={"rank": 1, "alpha": 1.0, "targets": "linear"}, seed=0)
    made.network.double()
    with torch.no_grad():
        for name, parameter in made.trainable().items():
            if "lora_B" in name:
                parameter.add_(moved)
    return made


def replay(made: CustomPolicy, last_step: LastStep = "model") -> Replay:
    sampler = made.sampler(SamplerSettings(steps=STEPS, last_step=last_step))
    return Replay(transition=sampler.transition, grid=sampler.grid, guidance=1.0, reduce="mean")


def group(folder: Path, text: str = "a", images: int = 2, values: list[float] | None = None) -> PromptGroup:
    """Images of one prompt with random trajectories, and, if given, what an objective made of their labels."""
    path = folder / f"{text}.safetensors"
    generator = torch.Generator().manual_seed(len(text))
    with writing_shard(path, num_steps=STEPS, batch=images, latent_shape=(3,), dtype="float64") as shard:
        shard.append(torch.randn(images, 3, generator=generator))
        for _ in range(STEPS):
            shard.append(torch.randn(images, 3, generator=generator), torch.zeros(images), torch.zeros(images, 3))
        shard.finish()
    nothing = torch.zeros(0)
    said = None if values is None else torch.tensor(values)
    labels = None if said is None else GroupLabels(values=said, signs=said.sign(), weights=torch.ones(images))
    return PromptGroup(
        prompt=0, identity=text, shard=Shard(path=path), indices=torch.arange(images), pairs=torch.zeros(0, 2, dtype=torch.long),
        targets=nothing, weights=nothing, labels=labels,
        reference=ReferenceSteps(log_probs=torch.zeros(STEPS, images), sketches=torch.zeros(STEPS, images, 3)),
    )  # fmt: skip


def needs(reference: ReferenceUse = "chosen", *, exact_kl: bool = False) -> Needs:
    return Needs(labels="pairs", evidence="pictures", reference=reference, exact_kl=exact_kl)
