"""The one-file example and the library are the same method: same trajectories, same losses, same weights."""

import copy
import importlib.util
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Self

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from d3po.annotation.selection import all_pairs
from d3po.artifacts.shards import Shard, open_shard, writing_shard
from d3po.config import Objective, RunConfig, Training
from d3po.diffusion.parameterization import Epsilon
from d3po.diffusion.rollout import rollout
from d3po.diffusion.schedule import NoiseSchedule, step_grid
from d3po.diffusion.transition import DDIM
from d3po.models.base import AbstractPolicy, Condition, Sampler, SamplerSettings
from d3po.models.replay import Replay
from d3po.models.schedulers import SchedulerFacts, discrete_sampler
from d3po.objective_settings import D3POSettings
from d3po.training.data import PromptGroup, ReferenceSteps
from d3po.training.trainer import Trainer
from tests.precision import BOUND, assert_all_same, assert_same, in_float64

GROUPS, ROUNDS, SEED = 4, 2, 5


@pytest.fixture(scope="module", autouse=True)
def everything_in_float64() -> Iterator[None]:
    with in_float64():
        yield


@pytest.fixture(scope="module")
def one_file() -> Iterator[ModuleType]:
    path = Path(__file__).parents[2] / "examples" / "d3po_in_one_file.py"
    spec = importlib.util.spec_from_file_location("d3po_in_one_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["d3po_in_one_file"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["d3po_in_one_file"]


@dataclass(frozen=True, kw_only=True)
class PromptNumbers:
    """Prompts as the example knows them."""

    numbers: Int[Tensor, " B"]

    def select(self, indices: Int[Tensor, " N"]) -> Self:
        return type(self)(numbers=self.numbers[indices])


class OneFilePolicy(AbstractPolicy):
    """The example's network in the library's terms."""

    def __init__(self, one_file: ModuleType, network: nn.Module) -> None:
        self._network, self._prompts = network, one_file.PROMPTS
        self.latent_shape = one_file.SHAPE
        self.facts = SchedulerFacts(
            schedule=NoiseSchedule(alphas_cumprod=one_file.alphas_cumprod(), final_alpha_cumprod=1.0),
            parameterization=Epsilon(),
            spacing="leading",
            steps_offset=1,
            chained=False,
            clip_range=None,
            threshold_ratio=None,
            threshold_max=1.0,
        )

    @property
    def network(self) -> nn.Module:
        return self._network

    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        return PromptNumbers(numbers=torch.tensor([self._prompts.index(prompt) for prompt in prompts]))

    def sampler(self, settings: SamplerSettings) -> Sampler:
        return discrete_sampler(self.facts, settings)

    def predict(
        self, x_t: Float[Tensor, "B C H W"], timesteps: Int[Tensor, " B"], condition: Condition, guidance: float | Float[Tensor, " B"]
    ) -> Float[Tensor, "B C H W"]:
        assert isinstance(condition, PromptNumbers)
        assert guidance == 1
        return self._network(x_t, timesteps, condition.numbers)

    def encode(self, pictures: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, latents: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 height width"]:
        return (latents.expand(-1, 3, -1, -1) / 2 + 0.5).clamp(0, 1)

    def without_adapter(self) -> AbstractContextManager[None]:
        return nullcontext()

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self._network.named_parameters())

    def enable_gradient_checkpointing(self) -> None:
        raise NotImplementedError

    def export(self, directory: Path) -> list[Path]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def pretrained(one_file: ModuleType) -> nn.Module:
    torch.manual_seed(SEED)
    network = one_file.Denoiser(width=32)
    one_file.pretrain(network, torch.Generator().manual_seed(SEED), updates=100)
    return network


@pytest.fixture
def network(pretrained: nn.Module) -> nn.Module:
    return copy.deepcopy(pretrained)


@pytest.fixture
def policy(one_file: ModuleType, pretrained: nn.Module) -> OneFilePolicy:
    """A copy that shares no weight with `network`."""
    return OneFilePolicy(one_file, copy.deepcopy(pretrained))


@pytest.fixture
def replay(one_file: ModuleType, policy: OneFilePolicy) -> Replay:
    facts = policy.facts
    return Replay(
        transition=DDIM(schedule=facts.schedule, parameterization=facts.parameterization, eta=one_file.ETA),
        grid=step_grid(
            facts.num_train_timesteps, one_file.STEPS, spacing=facts.spacing, steps_offset=facts.steps_offset, clamp_previous=True
        ),
        guidance=1.0,
        reduce="mean",
    )


@pytest.fixture(params=[4, 20, 64], ids="at most {} rows a call".format)
def config(one_file: ModuleType, request: pytest.FixtureRequest) -> RunConfig:
    return RunConfig(
        objective=Objective(
            log_prob="mean", d3po=D3POSettings(beta=one_file.BETA, clip="two_sided", clip_range=one_file.CLIP, targets="signed")
        ),
        training=Training(
            learning_rate=one_file.LEARNING_RATE,
            weight_decay=one_file.WEIGHT_DECAY,
            max_grad_norm=one_file.MAX_GRAD_NORM,
            prompts_per_update=one_file.GROUPS_PER_UPDATE,
            micro_batch_size=request.param,
        ),
    )


@dataclass
class Draws:
    """The randomness of one round, given to both."""

    start: Tensor
    noise: Tensor
    order: Tensor


def draws(one_file: ModuleType, round: int) -> Draws:
    generator = torch.Generator().manual_seed(SEED + round)
    return Draws(
        start=torch.randn(GROUPS, *one_file.SHAPE, generator=generator).repeat_interleave(one_file.IMAGES, dim=0),
        noise=torch.randn(one_file.STEPS, GROUPS * one_file.IMAGES, *one_file.SHAPE, generator=generator),
        order=torch.randperm(GROUPS, generator=generator),
    )


def sample_shard(policy: OneFilePolicy, replay: Replay, condition: Condition, drawn: Draws, path: Path) -> Shard:
    fresh = iter(drawn.noise)
    with writing_shard(
        path, num_steps=len(replay.grid), batch=len(drawn.start), latent_shape=policy.latent_shape, dtype="float64"
    ) as shard:
        shard.append(drawn.start)
        for step in rollout(
            lambda x_t, timesteps: policy.predict(x_t, timesteps, condition, 1.0),
            replay.transition,
            replay.grid,
            drawn.start,
            lambda shape: next(fresh),
            reduce=replay.reduce,
            stored=torch.float64,
        ):
            shard.append(step.latents, step.log_probs, step.sketches)
        checksum = shard.finish()
    return open_shard(path, checksum)


def prompt_groups(one_file: ModuleType, shard: Shard) -> list[PromptGroup]:
    rewards = one_file.reward(shard.latents(one_file.STEPS))
    pairs, sketches = all_pairs(range(one_file.IMAGES)), shard.sketches()
    assert sketches is not None
    groups = []
    for prompt in range(GROUPS):
        indices = torch.arange(one_file.IMAGES) + prompt * one_file.IMAGES
        scores = rewards[indices].tolist()
        groups.append(
            PromptGroup(
                prompt=prompt,
                shard=shard,
                indices=indices,
                pairs=torch.tensor(pairs),
                targets=torch.tensor([float(scores[a] > scores[b]) for a, b in pairs]),
                weights=torch.ones(len(pairs)),
                reference=ReferenceSteps(log_probs=shard.log_probs(), sketches=sketches).of(indices),
            )
        )
    return groups


def losses_of_the_library(one_file: ModuleType, policy: OneFilePolicy, replay: Replay, config: RunConfig, folder: Path) -> list[float]:
    trainer = Trainer(policy, replay, config)
    condition = policy.encode_prompts([one_file.PROMPTS[group % len(one_file.PROMPTS)] for group in range(GROUPS)])
    per_image = condition.select(torch.arange(GROUPS).repeat_interleave(one_file.IMAGES))
    losses = []
    for round in range(ROUNDS):
        drawn = draws(one_file, round)
        groups = prompt_groups(one_file, sample_shard(policy, replay, per_image, drawn, folder / f"{round}.safetensors"))
        for _ in range(one_file.EPOCHS):
            for part in drawn.order.split(one_file.GROUPS_PER_UPDATE):
                metrics = trainer.update([groups[i] for i in part.tolist()], condition, torch.arange(one_file.STEPS))
                losses.append(metrics["loss"])
    return losses


def losses_of_the_one_file(one_file: ModuleType, network: nn.Module) -> list[float]:
    optimizer = one_file.make_optimizer(network)
    prompts = (torch.arange(GROUPS) % len(one_file.PROMPTS)).repeat_interleave(one_file.IMAGES)
    losses = []
    for round in range(ROUNDS):
        drawn = draws(one_file, round)
        recorded = one_file.sample(network, prompts, drawn.start, drawn.noise)
        rewards = one_file.reward(recorded.latents[-1])
        for _ in range(one_file.EPOCHS):
            for part in drawn.order.split(one_file.GROUPS_PER_UPDATE):
                images = (part[:, None] * one_file.IMAGES + torch.arange(one_file.IMAGES)).flatten()
                losses.append(one_file.update(network, optimizer, recorded, images, rewards))
    return losses


def test_trajectories_are_those_of_the_library(
    one_file: ModuleType, network: nn.Module, policy: OneFilePolicy, replay: Replay, tmp_path: Path
) -> None:
    drawn = draws(one_file, 0)
    prompts = torch.arange(GROUPS).repeat_interleave(one_file.IMAGES)
    recorded = one_file.sample(network, prompts, drawn.start, drawn.noise)
    shard = sample_shard(policy, replay, PromptNumbers(numbers=prompts), drawn, tmp_path / "shard.safetensors")
    assert torch.equal(replay.grid.timesteps, one_file.sampler_timesteps()[0])
    assert torch.equal(replay.grid.previous, one_file.sampler_timesteps()[1])
    assert_same(shard.log_probs(), recorded.log_probs)
    for position in range(one_file.STEPS + 1):
        assert_same(shard.latents(position), recorded.latents[position])


def test_losses_and_weights_are_those_of_the_library(
    one_file: ModuleType,
    network: nn.Module,
    policy: OneFilePolicy,
    replay: Replay,
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a learning rate at which the loss moves, for at a small one any two losses are log 2."""
    monkeypatch.setattr(one_file, "LEARNING_RATE", 1e-3)
    config = config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": 1e-3})})
    ours = losses_of_the_library(one_file, policy, replay, config, tmp_path)
    theirs = losses_of_the_one_file(one_file, network)
    assert len(ours) == ROUNDS * one_file.EPOCHS * GROUPS // one_file.GROUPS_PER_UPDATE
    assert ours == pytest.approx(theirs, abs=BOUND)
    assert max(ours) - min(ours) > 1e-3
    assert_all_same(policy.trainable(), dict(network.named_parameters()))


def test_loss_of_the_first_update_is_log_two(one_file: ModuleType, network: nn.Module) -> None:
    assert losses_of_the_one_file(one_file, network)[0] == pytest.approx(math.log(2), abs=BOUND)


def test_pictures_of_ties_teach_nothing(one_file: ModuleType) -> None:
    ratios = torch.randn(one_file.STEPS, one_file.IMAGES, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pairs, targets = one_file.compare(torch.zeros(one_file.IMAGES))
    one_file.d3po_loss(ratios, pairs, targets).mean().backward()
    assert (targets == 0.5).all()
    assert ratios.grad is not None
    assert (ratios.grad == 0).all()


def test_win_rate_of_equal_rewards_is_half_and_of_better_ones_is_one(one_file: ModuleType) -> None:
    rewards = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert one_file.win_rate(rewards, rewards) == pytest.approx(0.5)
    assert one_file.win_rate(rewards + 100, rewards) == 1


def test_example_stays_short() -> None:
    path = Path(__file__).parents[2] / "examples" / "d3po_in_one_file.py"
    assert len(path.read_text().splitlines()) <= 300


def test_whole_example_runs_and_teaches(one_file: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In small: a shorter pretraining and one round at a larger learning rate."""
    pretrain = one_file.pretrain
    monkeypatch.setattr(one_file, "pretrain", lambda network, generator: pretrain(network, generator, updates=300))
    monkeypatch.setattr(one_file, "LEARNING_RATE", 5e-5)
    rates = one_file.main(rounds=1, seed=0)
    assert rates[0] > 0.6
    assert "round 1: loss 0.693" in capsys.readouterr().out
