"""The KL that KL controller and guards read, against the exact one between the two Gaussians of the same weights.

Everything is computed in float64. The model's prediction is linear in its input and its prompt, so that guidance multiplies the prompt's part; policy,
reference and sampler are three policies of one model, each with weights of its own.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from d3po.artifacts.shards import Shard, writing_shard
from d3po.batch_sizer import BatchSizer
from d3po.config import RunConfig, override
from d3po.diffusion.divergence import WIDTH
from d3po.diffusion.rollout import rollout
from d3po.models.base import SamplerSettings
from d3po.models.custom import CustomPolicy
from d3po.models.replay import Replay
from d3po.objective_settings import ObjectiveName
from d3po.options import LogProbReduce
from d3po.training.data import GroupLabels, PromptGroup
from d3po.training.likelihood import DenoisingLikelihood, TrajectoryLikelihood
from d3po.training.reference import reference_steps, swapped_weights
from d3po.training.trainer import Trainer
from tests.precision import BOUND, assert_same, in_float64
from tests.unit.training.linear import needs

STEPS, IMAGES, CHANNELS = 4, 2, 4
PROMPTS = ["a", "bb"]
Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def exactly() -> Iterator[None]:
    with in_float64():
        yield


class Prompted(nn.Module):
    """Predicts W(x + c), the prompt's number c being its length; W is what a LoRA moves."""

    prediction = "epsilon"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.sample_shape = (size // CHANNELS, CHANNELS)
        self.layer = nn.Linear(CHANNELS, CHANNELS)
        self.alphas_cumprod = torch.linspace(0.999, 0.01, 1000)

    def encode(self, prompts: list[str]) -> Tensor:
        return torch.tensor([[float(len(prompt))] for prompt in prompts])

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.layer(x_t + condition[:, None].to(x_t))


def made_policy(size: int) -> CustomPolicy:
    torch.manual_seed(0)
    return CustomPolicy(Prompted(size), lora={"rank": 2, "alpha": 2.0, "targets": "linear"}, seed=0)


def made_replay(policy: CustomPolicy, guidance: float, reduce: LogProbReduce = "mean") -> Replay:
    sampler = policy.sampler(SamplerSettings(steps=STEPS))
    return Replay(transition=sampler.transition, grid=sampler.grid, guidance=guidance, reduce=reduce)


def weights(policy: CustomPolicy, number: int, far: float) -> Weights:
    """Those of a policy that has been trained: so far from the pretrained one, in a direction of its own."""
    generator = torch.Generator().manual_seed(number)
    start = policy.state()
    return {name: value + far * torch.randn(value.shape, generator=generator) * ("lora_B" in name) for name, value in start.items()}


def exact_kl(policy: CustomPolicy, how: Replay, x_t: Tensor, step: int, prompts: list[str], theirs: Weights) -> Tensor:
    """(B,): |mu - nu|^2 / (2 s^2 D)."""
    timesteps, previous = (each[step].expand(len(x_t)) for each in (how.grid.timesteps, how.grid.previous))
    condition, means = policy.encode_prompts(prompts), list[Tensor]()
    for weight in (policy.state(), theirs):
        with swapped_weights(policy, weight), torch.no_grad():
            prediction = policy.predict(x_t, timesteps, condition, how.guidance)
            means.append(how.transition.step(prediction, x_t, timesteps, previous).mean)
    std = how.transition.std(timesteps, previous).double()
    return (means[0] - means[1]).square().flatten(1).mean(dim=1) / (2 * std**2)


def sampled(policy: CustomPolicy, how: Replay, folder: Path) -> Shard:
    """TrajectoryLikelihood of the policy as it is, images of one prompt side by side."""
    path, generator = folder / "shard.safetensors", torch.Generator().manual_seed(1)
    prompts = [prompt for prompt in PROMPTS for _ in range(IMAGES)]
    condition, start = policy.encode_prompts(prompts), torch.randn(len(prompts), *policy.latent_shape, generator=generator)
    with writing_shard(path, num_steps=STEPS, batch=len(prompts), latent_shape=policy.latent_shape, dtype="float64") as shard:
        shard.append(start)
        for step in rollout(
            lambda x, t: how.predict(policy, x, t, condition),
            how.transition,
            how.grid,
            start,
            lambda shape: torch.randn(len(prompts), *shape, generator=generator),
            reduce=how.reduce,
            stored=torch.float64,
        ):
            shard.append(step.latents, step.log_probs, step.sketches)
        shard.finish()
    return Shard(path=path)


def groups_of(policy: CustomPolicy, how: Replay, shard: Shard, reference: Weights) -> list[PromptGroup]:
    condition = policy.encode_prompts([prompt for prompt in PROMPTS for _ in range(IMAGES)])
    steps = reference_steps(
        policy, how, shard, condition, micro_batch_size=3, sizer=BatchSizer("reference", print), within=swapped_weights(policy, reference)
    )
    return [
        PromptGroup(
            prompt=number,
            identity=prompt,
            shard=shard,
            indices=(indices := torch.arange(IMAGES) + number * IMAGES),
            pairs=torch.tensor([[0, 1]]),
            targets=torch.ones(1),
            weights=torch.ones(1),
            reference=steps.of(indices),
            labels=GroupLabels(values=torch.tensor([1.0, -1.0]), signs=torch.tensor([1.0, -1.0]), weights=torch.ones(IMAGES)),
        )
        for number, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("guidance", [1.0, 3.0, 7.5])
@pytest.mark.parametrize(("sampler", "reference"), [(0.0, 0.0), (0.1, 0.1), (0.1, 0.0), (0.1, 0.05)])
@pytest.mark.parametrize("size", [8, WIDTH])
def test_the_kl_of_sampled_steps_is_exact_whoever_sampled(
    tmp_path: Path, size: int, sampler: float, reference: float, guidance: float
) -> None:
    """First round; later ones held to their sampler, the pretrained model and a moving average."""
    policy = made_policy(size)
    how, theirs = made_replay(policy, guidance), weights(policy, 1 if sampler == reference else 2, reference)
    with swapped_weights(policy, weights(policy, 1, sampler)):
        shard = sampled(policy, how, tmp_path)
    policy.load_state(weights(policy, 3, 0.2))
    groups, steps = groups_of(policy, how, shard, theirs), torch.tensor([0, 2])
    evidence = TrajectoryLikelihood(policy, how, needs()).read(groups, policy.encode_prompts(PROMPTS), steps, (0, 0, 0))
    assert evidence.drift is not None
    assert not evidence.drift.requires_grad
    prompts = [prompt for prompt in PROMPTS for _ in range(IMAGES)]
    for place, step in enumerate(steps.tolist()):
        assert_same(evidence.drift[place], exact_kl(policy, how, shard.latents(step), step, prompts, theirs))


@pytest.mark.parametrize("size", [1024, 16_384])
def test_the_kl_of_large_latents_is_exact_within_the_sketches_spread(tmp_path: Path, size: int) -> None:
    """The sampler is neither of the two, where log-ratios told a tenth of the KL and less.

    Five standard deviations of a sketch, sqrt(2 sum_b e_b^2) with e_b = 1 / WIDTH, hold of each image.
    """
    policy = made_policy(size)
    how, theirs = made_replay(policy, 3.0), weights(policy, 2, 0.0)
    with swapped_weights(policy, weights(policy, 1, 0.1)):
        shard = sampled(policy, how, tmp_path)
    policy.load_state(weights(policy, 1, 0.2))
    groups, step = groups_of(policy, how, shard, theirs), torch.tensor([1])
    evidence = TrajectoryLikelihood(policy, how, needs()).read(groups, policy.encode_prompts(PROMPTS), step, (0, 0, 0))
    assert evidence.drift is not None
    kl = exact_kl(policy, how, shard.latents(1), 1, [prompt for prompt in PROMPTS for _ in range(IMAGES)], theirs)
    assert kl.min() > 0.01
    ratios = evidence.drift[0] / kl
    assert ((ratios - 1).abs() < 5 * math.sqrt(2 / WIDTH)).all()
    square = (evidence.log_ratio.detach() * size).square().mean().item()
    assert (math.sqrt(1 + square) - 1) / size < 0.5 * kl.mean().item(), (
        "what the spread of log-ratios says, as if reference or policy had sampled"
    )


def test_the_samplers_sketches_are_those_of_a_reference_that_sampled(tmp_path: Path) -> None:
    policy = made_policy(16)
    how = made_replay(policy, 3.0)
    shard = sampled(policy, how, tmp_path)
    sketches = shard.sketches()
    assert sketches is not None
    (first, second) = groups_of(policy, how, shard, policy.state())
    assert first.reference is not None
    assert second.reference is not None
    again = torch.cat([first.reference.sketches, second.reference.sketches], dim=1)
    stochastic = how.transition.stochastic(how.grid)
    assert stochastic.sum() == STEPS - 1
    assert_same(again[stochastic], sketches[stochastic])


@pytest.mark.parametrize("guidance", [1.0, 3.0, 7.5])
def test_the_kl_of_pictures_is_that_of_the_guided_step(tmp_path: Path, guidance: float) -> None:
    """At timesteps of the grid, with the grid's steps: of the first image of each prompt, for all of its images.

    The step's slope and std come from the schedule in float32, some twenty roundings of 6e-8, once squared; hence the bound.
    """
    policy = made_policy(16)
    how, theirs = made_replay(policy, guidance), weights(policy, 2, 0.1)
    groups = groups_of(policy, how, sampled(policy, how, tmp_path), theirs)
    policy.load_state(weights(policy, 3, 0.2))
    steps, places = how.grid.timesteps[[0, 2]], [0, 2]
    reader = DenoisingLikelihood(policy, how, needs())
    reader.compare_with(lambda: swapped_weights(policy, theirs))
    evidence = reader.read(groups, policy.encode_prompts(PROMPTS), steps, (0, 0, 0))
    assert evidence.drift is not None
    noise = reader._noise(groups, steps, (0, 0, 0), policy.latent_shape).unflatten(0, (2, 2 * IMAGES))
    for place, timestep, drift in zip(places, steps, evidence.drift, strict=True):
        clean = torch.stack([group.clean()[0] for group in groups])
        x_t, _ = how.transition.noised(clean, noise[places.index(place), ::IMAGES], timestep.expand(2))
        assert_same(drift[::IMAGES], exact_kl(policy, how, x_t, place, PROMPTS, theirs), bound=1e-5)
        assert torch.equal(drift[::IMAGES], drift[1::IMAGES])


def test_steps_trained_without_guidance_are_measured_with_it(tmp_path: Path) -> None:
    policy = made_policy(16)
    how, theirs = made_replay(policy, 7.5), weights(policy, 2, 0.1)
    unguided = made_replay(policy, 1.0)
    shard = sampled(policy, how, tmp_path)
    groups = groups_of(policy, unguided, shard, theirs)
    policy.load_state(weights(policy, 3, 0.2))
    reader = TrajectoryLikelihood(policy, unguided, needs(), how)
    reader.compare_with(lambda: swapped_weights(policy, theirs))
    evidence = reader.read(groups, policy.encode_prompts(PROMPTS), torch.tensor([1]), (0, 0, 0))
    assert evidence.drift is not None
    assert_same(evidence.drift[0, ::IMAGES], exact_kl(policy, how, shard.latents(1)[::IMAGES], 1, PROMPTS, theirs))
    assert reader.read(groups, policy.encode_prompts(PROMPTS), torch.tensor([1]), (0, 0, 0), measures=False).drift is None


def test_outside_the_interval_of_guidance_a_timestep_is_guided_as_the_step_it_falls_into(tmp_path: Path) -> None:
    """The grid is 999, 749, 499, 249; of 760 the step is that of 999, which is not guided."""
    policy = made_policy(16)
    whole = made_replay(policy, 7.5)
    assert whole.grid.timesteps.tolist() == [999, 749, 499, 249]
    how = Replay(transition=whole.transition, grid=whole.grid, guidance=7.5, reduce="mean", guidance_range=(0, 800))
    groups = groups_of(policy, whole, sampled(policy, whole, tmp_path), policy.state())
    policy.load_state(weights(policy, 3, 0.2))
    condition, outside, inside = policy.encode_prompts(PROMPTS), torch.tensor([760]), torch.tensor([740])

    def drift(replay: Replay, timestep: Tensor) -> Tensor:
        measured = DenoisingLikelihood(policy, replay, needs()).read(groups, condition, timestep, (0, 0, 0)).drift
        assert measured is not None
        return measured

    assert_same(drift(how, outside), drift(made_replay(policy, 1.0), outside))
    assert_same(drift(how, inside), drift(whole, inside))


@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("objective", ["d3po", "ddpo", "dpok"])
def test_an_updates_kl_is_the_mean_of_its_steps_kls(tmp_path: Path, objective: ObjectiveName, reduce: LogProbReduce) -> None:
    """Of steps of very different KL, whatever unit log-probs have; the sampler being the pretrained model, dpok's two KLs are one."""
    policy = made_policy(16)
    how, theirs = made_replay(policy, 3.0, reduce), policy.state()
    shard = sampled(policy, how, tmp_path)
    groups, steps = groups_of(policy, how, shard, theirs), torch.tensor([0, 1, 2])
    policy.load_state(weights(policy, 3, 0.2))
    prompts = [prompt for prompt in PROMPTS for _ in range(IMAGES)]
    expected = torch.stack([exact_kl(policy, how, shard.latents(step), step, prompts, theirs).mean() for step in steps.tolist()])
    assert expected.max() > 2 * expected.min()
    settings = {"objective.name": objective, "objective.log_prob": reduce, "training.micro_batch_size": "3"}
    settings |= {"objective.d3po.clip": "none"} if objective == "d3po" else {}
    trainer = Trainer(policy, how, override(RunConfig(), settings, where="test"))
    metrics = trainer.update(groups, policy.encode_prompts(PROMPTS), steps)
    for key in ["kl", "kl_to_pretrained"] if objective == "dpok" else ["kl"]:
        by_band = {"": expected.mean(), "/early": expected[:2].mean(), "/middle": expected[2]}
        assert {band: metrics[key + band] for band in by_band} == pytest.approx(
            {band: value.item() for band, value in by_band.items()}, rel=BOUND
        )
