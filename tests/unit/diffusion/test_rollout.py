"""Rollouts: what is recorded can be replayed, does not depend on the batch, and costs the memory of one step."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from d3po.diffusion.noise import NoiseStreams, seeded
from d3po.diffusion.parameterization import Epsilon
from d3po.diffusion.rollout import RolloutStep, rollout
from d3po.diffusion.schedule import NoiseSchedule, StepGrid, step_grid
from d3po.diffusion.transition import DDIM
from tests.precision import assert_same

SHAPE = (2, 4, 4)
Predict = Callable[[Tensor, Tensor], Tensor]


def start(images: range) -> Tensor:
    return torch.stack([torch.randn(SHAPE, generator=seeded("start", image)) for image in images])


def sample(predict: Predict, ddim: DDIM, grid: StepGrid, images: range) -> list[RolloutStep]:
    streams = NoiseStreams([("step", image) for image in images])
    return list(rollout(predict, ddim, grid, start(images), streams.draw, reduce="mean", stored=torch.float64))


def test_replay_recomputes_the_recorded_log_probs(ddim: DDIM, grid: StepGrid, predict: Predict) -> None:
    steps = sample(predict, ddim, grid, range(3))
    assert len(steps) == len(grid)
    x_t = start(range(3))
    for i, recorded in enumerate(steps):
        t, previous = grid.timesteps[i].expand(3), grid.previous[i].expand(3)
        replayed = ddim.step(predict(x_t, t), x_t, t, previous).log_prob(recorded.latents, reduce="mean")
        assert_same(replayed, recorded.log_probs)
        x_t = recorded.latents


def test_image_is_the_same_alone_and_in_a_batch_of_eight(ddim: DDIM, grid: StepGrid, predict: Predict) -> None:
    together = sample(predict, ddim, grid, range(8))
    for image in range(8):
        for both, alone in zip(together, sample(predict, ddim, grid, range(image, image + 1)), strict=True):
            assert_same(both.latents[image], alone.latents[0])
            assert_same(both.log_probs[image], alone.log_probs[0])


def test_images_from_one_start_part_through_their_noise(ddim: DDIM, grid: StepGrid, predict: Predict) -> None:
    shared = start(range(1)).expand(2, *SHAPE)
    first = next(rollout(predict, ddim, grid, shared, NoiseStreams([("a",), ("b",)]).draw, reduce="mean"))
    assert not torch.allclose(first.latents[0], first.latents[1])


def test_deterministic_rollout_draws_no_noise_and_has_no_log_probs(schedule: NoiseSchedule, grid: StepGrid, predict: Predict) -> None:
    def refuse(shape: tuple[int, ...]) -> Tensor:
        raise AssertionError("a deterministic step asked for noise")

    ddim = DDIM(schedule=schedule, parameterization=Epsilon(), eta=0.0)
    steps = list(rollout(predict, ddim, grid, start(range(2)), refuse, reduce="mean"))
    assert all(step.log_probs.isnan().all() for step in steps)
    assert all(step.latents.isfinite().all() for step in steps)


def test_only_the_step_without_density_is_without_log_prob(schedule: NoiseSchedule, grid: StepGrid, predict: Predict) -> None:
    to_one = NoiseSchedule(alphas_cumprod=schedule.alphas_cumprod, final_alpha_cumprod=1.0)
    steps = sample(predict, DDIM(schedule=to_one, parameterization=Epsilon(), eta=1.0), grid, range(2))
    assert [bool(step.log_probs.isnan().all()) for step in steps] == [False] * 19 + [True]


def test_sum_is_the_mean_times_the_dimensions(ddim: DDIM, grid: StepGrid, predict: Predict) -> None:
    def first(reduce) -> Tensor:
        return next(rollout(predict, ddim, grid, start(range(2)), NoiseStreams([(0,), (1,)]).draw, reduce=reduce)).log_probs

    assert_same(first("sum"), first("mean") * torch.Size(SHAPE).numel())


def test_sampling_keeps_no_graph(ddim: DDIM, grid: StepGrid, predict: Predict) -> None:
    weight = torch.ones(1, requires_grad=True)
    step = next(rollout(lambda x, t: weight * predict(x, t), ddim, grid, start(range(1)), NoiseStreams([(0,)]).draw, reduce="mean"))
    assert not step.latents.requires_grad
    assert not step.log_probs.requires_grad
    assert torch.is_grad_enabled()


def most_tensors_alive(steps: int, ddim: DDIM, predict: Predict) -> int:
    """The largest number of a rollout's own tensors (predictions, noises, outcomes) alive at once."""
    made: list[weakref.ref[Tensor]] = []

    def watched(tensor: Tensor) -> Tensor:
        made.append(weakref.ref(tensor))
        return tensor

    streams = NoiseStreams([(0,), (1,)])
    sampler = rollout(
        lambda x, t: watched(predict(x, t)),
        ddim,
        step_grid(1000, steps, spacing="leading", steps_offset=1),
        start(range(2)),
        lambda shape: watched(streams.draw(shape)),
        reduce="mean",
    )
    most = 0
    for step in sampler:
        watched(step.latents)
        watched(step.log_probs)
        most = max(most, sum(reference() is not None for reference in made))
    assert len(made) == 4 * steps
    return most


def test_memory_does_not_grow_with_the_number_of_steps(ddim: DDIM, predict: Predict) -> None:
    assert most_tensors_alive(10, ddim, predict) == most_tensors_alive(50, ddim, predict) < 10


def test_network_that_knows_the_clean_latent_leads_to_it(ddim: DDIM, grid: StepGrid, schedule: NoiseSchedule) -> None:
    """Up to the noise that the schedule leaves at its end."""
    x0 = torch.full(SHAPE, 0.5)

    def knowing(x_t: Tensor, timesteps: Tensor) -> Tensor:
        a = schedule.alpha_bar(timesteps).view(-1, 1, 1, 1)
        return (x_t - a.sqrt() * x0) / (1 - a).sqrt()

    final = sample(knowing, ddim, grid, range(8))[-1].latents
    last_noise = (1 - schedule.final_alpha_cumprod) ** 0.5
    assert float((final - x0 * schedule.final_alpha_cumprod**0.5).std()) == pytest.approx(last_noise, rel=0.2)
