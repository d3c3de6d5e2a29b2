"""What one judgement weighs: as much alone in an update as beside others. In float64, on a reader whose log-ratios are linear in the weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from d3po.config import RunConfig, override
from d3po.diffusion.noise import seeded
from d3po.models.base import Condition
from d3po.models.custom import CustomPolicy
from d3po.objective_settings import ObjectiveName
from d3po.objectives.base import PairObjective
from d3po.training.data import GroupLabels, PromptGroup, mean_weight
from d3po.training.distributed import Distributed
from d3po.training.likelihood import NoiseKey, StepTerms, TrajectoryLikelihood
from d3po.training.trainer import Trainer
from tests.unit.training.linear import group, needs, policy, replay

STEPS = torch.tensor([0, 1, 2])
GUESSER = 0.22
STILL = {"training.learning_rate": "1e-30", "training.weight_decay": "0", "training.max_grad_norm": "1e9"}
"""Nothing moves and nothing is clipped, so that gradients of several updates can be compared."""


class Linear(TrajectoryLikelihood):
    """Log-ratios are a fixed direction of each image and step, times all trained weights."""

    def __init__(self, made: CustomPolicy) -> None:
        super().__init__(made, replay(made), needs())
        self._weights = list(made.trainable().values())

    def read(
        self,
        groups: Sequence[PromptGroup],
        condition: Condition,
        steps: Tensor,
        noise_key: NoiseKey,
        *,
        measures: bool = True,
    ) -> StepTerms:
        theta = torch.cat([weight.flatten() for weight in self._weights])
        ratios = [[theta @ self._direction(each, image, step) for each in groups for image in range(len(each))] for step in steps.tolist()]
        log_ratio = torch.stack([torch.stack(row) for row in ratios])
        return StepTerms(log_ratio=log_ratio, drift=torch.zeros_like(log_ratio))

    def _direction(self, of: PromptGroup, image: int, step: int) -> Tensor:
        size = sum(weight.numel() for weight in self._weights)
        return torch.randn(size, dtype=torch.float64, generator=seeded(0, of.identity, image, step))


@dataclass(frozen=True)
class OneOf(Distributed):
    """One of several processes, whose gradient is looked at before it is added to the others'."""

    rank: int = 0
    size: int = 2

    def gather(self, item: object) -> list[object]:
        return [item]

    def add_gradients(self, parameters: object) -> None: ...


def trainer_of(name: ObjectiveName, distributed: Distributed | None = None, **settings: str) -> Trainer:
    torch.manual_seed(0)
    made = policy(moved=0.2)
    made.network.double()
    chosen = STILL | {"objective.name": name} | {key.replace("__", "."): value for key, value in settings.items()}
    trainer = Trainer(made, replay(made), override(RunConfig(), chosen, where="test"), distributed=distributed)
    trainer.likelihood = Linear(made)
    return trainer


def prompts(folder: Path, trainer: Trainer, weights: Sequence[Sequence[float]], branch: int | None = None) -> list[PromptGroup]:
    """A prompt for each row: so many pairs of its images, or so many images, with these weights."""
    made: list[PromptGroup] = []
    for number, mine in enumerate(torch.tensor(row) for row in weights):
        images = group(folder, text=chr(97 + number) * (number + 1), images=max(4, len(mine)))
        if isinstance(trainer.objective, PairObjective):
            pairs = torch.combinations(torch.arange(4))[: len(mine)]
            said = replace(images, pairs=pairs, targets=torch.arange(len(mine)) % 2.0, weights=mine)
        else:
            values = torch.linspace(-1, 1, len(mine))
            indices = torch.arange(len(mine))
            said = replace(images, indices=indices, reference=None, labels=GroupLabels(values=values, signs=values.sign(), weights=mine))
        made.append(replace(said, branch=branch))
    return made


def gradient(trainer: Trainer, groups: Sequence[PromptGroup], usual: float | None = None) -> Tensor:
    condition = trainer.policy.encode_prompts(["a"])
    trainer.update(groups, condition, STEPS, usual=usual)
    return torch.cat([weight.grad.flatten() for weight in trainer.policy.trainable().values() if weight.grad is not None]).clone()


def assert_same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


UNEVEN = [[1.0] * 6, [0.5], [GUESSER, 2.0]]


@pytest.mark.parametrize("branch", [None, 1])
@pytest.mark.parametrize("name", ["d3po", "ipo_step", "ddpo"])
def test_an_update_of_all_prompts_is_the_mean_of_updates_of_each(tmp_path: Path, name: ObjectiveName, branch: int | None) -> None:
    trainer = trainer_of(name)
    groups = prompts(tmp_path, trainer, UNEVEN, branch)
    alone = [gradient(trainer, [each], usual=mean_weight(groups)) for each in groups]
    assert_same(gradient(trainer, groups), torch.stack(alone).mean(dim=0))


@pytest.mark.parametrize("together", [1, 2, 3])
def test_a_round_comes_to_the_same_however_it_is_cut_into_updates(tmp_path: Path, together: int) -> None:
    """Each update counts as often as it has prompts, the last one fewer."""
    trainer = trainer_of("d3po", training__prompts_per_update=str(together))
    groups = prompts(tmp_path, trainer, UNEVEN)
    sums: list[Tensor] = []
    updates = [replace(update, steps=STEPS) for update in trainer.plan(len(groups), 0)]

    def keep(update: object, metrics: object) -> None:
        grads = [weight.grad.flatten() for weight in trainer.policy.trainable().values() if weight.grad is not None]
        sums.append(torch.cat(grads) * len(updates[len(sums)].groups))

    trainer.run(groups, trainer.policy.encode_prompts(["a"]), updates, after_update=keep)
    assert len(sums) == -(-3 // together)
    assert_same(torch.stack(sums).sum(dim=0) / 3, gradient(trainer, groups))


@pytest.mark.parametrize("together", [False, True])
def test_a_guessers_pair_has_its_share_of_the_effect(tmp_path: Path, together: bool) -> None:
    trainer = trainer_of("d3po")
    (beside, sure), (_, unsure) = (prompts(tmp_path, trainer, [[1.0], [weight]]) for weight in (1.0, GUESSER))
    usual = 1.0

    def effect_of(pair: PromptGroup) -> Tensor:
        both = 2 * gradient(trainer, [beside, pair], usual) - gradient(trainer, [beside], usual)
        return both if together else gradient(trainer, [pair], usual)

    torch.testing.assert_close(effect_of(unsure), GUESSER * effect_of(sure), rtol=1e-7, atol=1e-9)  # weights are kept in float32


@pytest.mark.parametrize("alone", [True, False])
def test_a_prompt_of_six_pairs_weighs_six_times_one_of_a_pair(tmp_path: Path, alone: bool) -> None:
    """Twin prompts with one pair said once or six times over: every vote has one weight, in whatever update it comes."""
    trainer = trainer_of("d3po")
    (once,) = prompts(tmp_path, trainer, [[1.0]])
    often = replace(once, pairs=once.pairs.repeat(6, 1), targets=once.targets.repeat(6), weights=once.weights.repeat(6))
    one = gradient(trainer, [once], usual=3.5)
    six = gradient(trainer, [often], usual=3.5) if alone else 2 * gradient(trainer, [once, often]) - one
    assert_same(six, 6 * one)


def test_where_all_weigh_alike_the_loss_is_the_plain_mean(tmp_path: Path) -> None:
    trainer = trainer_of("ipo_step")
    groups = prompts(tmp_path, trainer, [[0.3] * 4, [0.3] * 4])
    losses: list[Tensor] = []
    for each in groups:
        ratios = trainer.likelihood.read([each], trainer.policy.encode_prompts(["a"]), STEPS, (0, 0, 0)).log_ratio
        a, b = ratios[:, each.pairs[:, 0]], ratios[:, each.pairs[:, 1]]
        assert isinstance(trainer.objective, PairObjective)
        losses.append(trainer.objective(a, b, each.targets.to(a).expand_as(a)))
    plain = torch.autograd.grad(torch.cat(losses, dim=1).mean(), list(trainer.policy.trainable().values()))
    assert_same(gradient(trainer, groups), torch.cat([each.flatten() for each in plain]))


def test_processes_share_an_update_without_changing_what_it_weighs(tmp_path: Path) -> None:
    whole = trainer_of("d3po")
    groups = prompts(tmp_path, whole, UNEVEN)
    parts = [gradient(trainer_of("d3po", OneOf(rank)), groups) for rank in range(2)]
    assert all(part.any() for part in parts)
    assert_same(sum(parts, torch.zeros_like(parts[0])), gradient(whole, groups))


def test_where_a_round_goes_on_does_not_change_what_its_updates_weigh(tmp_path: Path) -> None:
    norms: list[list[float]] = []
    for first in (0, 2):
        trainer = trainer_of("d3po", training__prompts_per_update="1")
        groups, mine = prompts(tmp_path, trainer, UNEVEN), list[float]()
        updates = trainer.plan(3, 0)[first:]
        trainer.run(
            groups, trainer.policy.encode_prompts(["a"]), updates, after_update=lambda _, m, mine=mine: mine.append(m["gradient_norm"])
        )
        norms.append(mine)
    assert norms[0][2:] == norms[1]
