"""The cost of an update: d3po's, and that of the published algorithm taken literally, with the same network and the same recorded trajectories."""

import dataclasses
import math
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import Figure, Measure, interleaved, opened_run, ratio_figure
from d3po.models.base import AbstractPolicy, Condition
from d3po.objectives.base import PairObjective
from d3po.run.feedback.measured import compare_round
from d3po.run.opened import open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.train.dataset import References, load_round
from d3po.training.data import PromptGroup
from d3po.training.trainer import Trainer

SETTINGS = {
    "sampling.steps": "9",  # the last of them is deterministic, which leaves the 8 that an update of the default recipe trains
    "sampling.guidance": "3.0",
    "sampling.images_per_prompt": "7",
    "sampling.prompts_per_round": "4",
    "sampling.prompts_per_shard": "4",
    "adapter.rank": "8",
    "adapter.alpha": "8.0",
    "adapter.targets": "attention+conv",
    "objective.d3po.beta": "10",
    "objective.d3po.clip": "none",
    "training.learning_rate": "1e-12",  # the weights hardly change, so that every repeat does the same work
    "training.weight_decay": "0.0",
    "training.max_grad_norm": "1e9",
    "training.micro_batch_size": "64",
}
ALL_STEPS = torch.arange(8)
ONE_STEP = torch.tensor([4])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A sampled and compared round, with a policy that differs slightly from its reference, and a second network that is the reference."""

    session: Session
    groups: list[PromptGroup]
    condition: Condition
    reference: AbstractPolicy

    @property
    def trainer(self) -> Trainer:
        return self.session.trainer


def figures() -> dict[str, Measure]:
    return {"pair": pair, "prompt": prompt, "overhead": overhead}


def pair(repeats: int, model: str) -> list[Figure]:
    """K=2: one pair, at 8 timesteps in one network call, and at one timestep alone."""
    with prepared(model) as subject:
        group = [first_images(subject.groups[0], 2)]
        check_same_gradient(subject, group)
        return [
            _against_literal(subject, group, steps, repeats, f"step_cost.pair.{label}", what, target=0.60)
            for steps, label, what in (
                (ALL_STEPS, "stacked", "time per pair-timestep, K=2, 8 timesteps in one call / literal"),
                (ONE_STEP, "alone", "time per pair-timestep, K=2, one timestep a call (micro_batch_size = 2) / literal"),
            )
        ]


def prompt(repeats: int, model: str) -> list[Figure]:
    """K=7: all 21 pairs of a prompt at one timestep."""
    with prepared(model) as subject:
        group = [subject.groups[0]]
        images = len(group[0])
        pairs = images * (images - 1) // 2
        assert len(group[0].pairs) == pairs, f"{pairs - len(group[0].pairs)} of {pairs} pairs are ties"
        what = f"time per prompt, K={images}, all {pairs} pairs, one timestep / literal"
        return [_against_literal(subject, group, ONE_STEP, repeats, "step_cost.prompt", what, target=0.10)]


def overhead(repeats: int, model: str) -> list[Figure]:
    """The share of an update's time outside the network's forward and backward passes."""
    with prepared(model) as subject:
        cases = {
            "default": ([first_images(group, 4) for group in subject.groups], "4 prompts, K=4, 8 timesteps (2 calls of 64 forward passes)"),
            "pair": ([first_images(subject.groups[0], 2)], "1 prompt, K=2, 8 timesteps (1 call of 16 forward passes)"),
        }
        return [_overhead(subject, groups, repeats, f"step_cost.overhead.{name}", what) for name, (groups, what) in cases.items()]


@contextmanager
def prepared(model: str) -> Generator[Subject, None, None]:
    """Sample and compare a round of four prompts, seven images each."""
    with opened_run(SETTINGS, model) as session:
        sample_round(session, 0)
        compare_round(session.run, 0)
        groups, condition = load_round(session, 0, References(start=None, moving=None))
        reference = Session(open_run(session.run.folder, session.run.narrator, config=session.run.config))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in session.policy.trainable().values():
                parameter.add_(1e-3 * torch.randn(parameter.shape, generator=generator))
        yield Subject(session=session, groups=groups, condition=condition, reference=reference.policy)
        reference.close()


def first_images(group: PromptGroup, count: int) -> PromptGroup:
    """The group with only its first `count` images."""
    kept = (group.pairs < count).all(dim=1)
    return dataclasses.replace(
        group,
        indices=group.indices[:count],
        pairs=group.pairs[kept],
        targets=group.targets[kept],
        weights=group.weights[kept],
        reference=None if group.reference is None else group.reference.of(torch.arange(count)),
    )


def literal_update(subject: Subject, groups: Sequence[PromptGroup], steps: Tensor, trajectories: dict[int, Tensor]) -> None:
    """Make one optimizer step in the way of the published training script: pair by pair and timestep by timestep, with a separate network call for each
    image, the reference's log-prob from a second network each time, and a backward pass at each timestep.

    Two things make it faster than that script: there is one optimizer step, not one for each pair, and `trajectories` (by prompt, (T+1, K, C, H, W)) are in
    memory.
    """
    session, objective = subject.session, subject.trainer.objective
    assert isinstance(objective, PairObjective)
    subject.trainer.optimizer.zero_grad()
    for group in groups:
        latents, condition = trajectories[group.prompt], subject.condition.select(torch.tensor([group.prompt]))
        for (a, b), target in zip(group.pairs.tolist(), group.targets, strict=True):
            for step in steps.split(1):
                ratios: list[Tensor] = []
                for image in (a, b):
                    x_t, x_next = latents[step, image, None], latents[step + 1, image, None]
                    with torch.no_grad():
                        before = session.replay.log_probs(subject.reference, x_t, x_next, step, condition)
                    ratios.append(session.replay.log_probs(session.policy, x_t, x_next, step, condition) - before)
                objective(ratios[0], ratios[1], target.expand(1, 1)).mean().backward()
    torch.nn.utils.clip_grad_norm_(session.policy.trainable().values(), session.run.config.training.max_grad_norm)
    subject.trainer.optimizer.step()


def in_memory(subject: Subject, groups: Sequence[PromptGroup]) -> dict[int, Tensor]:
    """The whole trajectories, (T+1, K, C, H, W), by prompt."""
    positions = range(len(subject.session.replay.grid) + 1)
    return {group.prompt: torch.stack(list(group.latents(positions).values())) for group in groups}


def check_same_gradient(subject: Subject, groups: Sequence[PromptGroup]) -> None:
    """Check that both updates compute the same gradient, up to the literal one's factor, the number of pairs and timesteps.

    Raises:
        RuntimeError: they differ.
    """
    subject.trainer.update(groups, subject.condition, ONE_STEP)
    ours = gradient(subject)
    literal_update(subject, groups, ONE_STEP, in_memory(subject, groups))
    literal = gradient(subject) / sum(len(group.pairs) for group in groups)
    error = float((ours - literal).norm() / literal.norm())
    if not error < 1e-3:
        raise RuntimeError(
            f"the two updates differ: relative error of the gradient {error:.2g}, norms {ours.norm():.3g}, {literal.norm():.3g}"
        )


def gradient(subject: Subject) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in subject.session.policy.trainable().values() if parameter.grad is not None])


class Watch:
    """Measures the time in a trainer's network: forward passes by hooks, backward passes from the gradient's arrival at the output until they end."""

    def __init__(self, trainer: Trainer) -> None:
        self.inside = 0.0
        self._trainer, self._started = trainer, math.nan
        self._accelerator: Any = trainer.accelerator

    def __enter__(self) -> "Watch":
        network, accelerator = self._trainer.policy.network, self._accelerator
        self._handles = [network.register_forward_pre_hook(self._start), network.register_forward_hook(self._after_forward)]
        accelerator.backward, self._backward = self._watched_backward, accelerator.backward
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._accelerator.backward = self._backward

    def _start(self, *_: object) -> None:
        self._started = time.perf_counter()

    def _stop(self) -> None:
        self.inside += time.perf_counter() - self._started

    def _after_forward(self, module: object, arguments: object, output: Any) -> None:  # noqa: ARG002
        output.sample.register_hook(self._start)
        self._stop()

    def _watched_backward(self, loss: Tensor) -> None:
        self._backward(loss)
        self._stop()


def _against_literal(
    subject: Subject, groups: list[PromptGroup], steps: Tensor, repeats: int, name: str, what: str, *, target: float
) -> Figure:
    trajectories = in_memory(subject, groups)
    ours, literal = interleaved(
        lambda: subject.trainer.update(groups, subject.condition, steps),
        lambda: literal_update(subject, groups, steps, trajectories),
        repeats,
    )
    return ratio_figure(name, what, ours, literal, target=target, labels=("ours", "literal"))


def _overhead(subject: Subject, groups: list[PromptGroup], repeats: int, name: str, what: str) -> Figure:
    subject.trainer.update(groups, subject.condition, ONE_STEP)
    totals: list[float] = []
    shares: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        with Watch(subject.trainer) as watch:
            subject.trainer.update(groups, subject.condition, ALL_STEPS)
            totals.append(time.perf_counter() - start)
        shares.append(1 - watch.inside / totals[-1])
    total, outside = statistics.median(totals), statistics.median(t * s for t, s in zip(totals, shares, strict=True))
    behind = f"update {total:.3g} s, outside {outside * 1000:.3g} ms"
    return Figure(name=name, what=f"share of an update outside the network: {what}", values=shares, target=0.05, behind=behind)
