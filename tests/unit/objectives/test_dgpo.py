"""DGPO against numbers worked out by hand, and against Diffusion-DPO, which it is for two pictures."""

import math

import pytest
import torch
from torch import Tensor

from d3po.objectives.base import ImageTerms
from d3po.objectives.dgpo import DGPO
from d3po.objectives.diffusion_dpo import DiffusionDPO
from tests.precision import assert_same


def terms(log_ratio: Tensor, advantages: list[float], prompts: list[int]) -> ImageTerms:
    return ImageTerms(log_ratio=log_ratio, value=torch.tensor(advantages), prompts=torch.tensor(prompts))


def gradient(losses: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(losses.mean(), of)[0]


@pytest.mark.parametrize("ratios", [[0.3, -0.1], [-0.2, 0.4], [0.0, 0.0]])
def test_two_pictures_are_a_pair_of_diffusion_dpo(ratios: list[float]) -> None:
    log_ratio = torch.tensor([ratios], requires_grad=True)
    pair = DiffusionDPO(beta=7.0)(log_ratio[:, :1], log_ratio[:, 1:], torch.ones(1, 1))
    losses = DGPO(beta=7.0)(terms(log_ratio, [1.0, -1.0], [0, 0]))
    assert_same(losses, pair.expand(1, 2))
    assert_same(gradient(losses, log_ratio), gradient(pair, log_ratio))


def test_scores_of_two_pictures_are_advantages_of_one_and_minus_one() -> None:
    assert DGPO(beta=1.0).values(torch.tensor([3.0, 8.0, 0.2, 0.1]), torch.tensor([0, 0, 1, 1])).tolist() == pytest.approx([-1, 1, 1, -1])


def test_three_pictures_by_hand() -> None:
    """Scores 1, 2, 3 have the advantages -a, 0, a with a = 1 / sqrt(2/3)."""
    objective = DGPO(beta=6.0)
    prompts = torch.zeros(3, dtype=torch.long)
    a = math.sqrt(1.5)
    advantages = objective.values(torch.tensor([1.0, 2.0, 3.0]), prompts)
    assert advantages.tolist() == pytest.approx([-a, 0.0, a])
    log_ratio = torch.tensor([[-0.1, 0.5, 0.2]], requires_grad=True)
    losses = objective(ImageTerms(log_ratio=log_ratio, value=advantages, prompts=prompts))
    margin = 6.0 / 3 * a * (0.1 + 0.2)
    assert losses[0].tolist() == pytest.approx([math.log(1 + math.exp(-margin))] * 3)
    weight = 1 / (1 + math.exp(margin))
    assert gradient(losses, log_ratio)[0].tolist() == pytest.approx([2 * a * weight, 0.0, -2 * a * weight])


def test_each_prompt_is_a_group_of_its_own_wherever_its_pictures_stand() -> None:
    log_ratio = torch.tensor([[0.3, 0.1, -0.1, 0.4, -0.2], [0.0, 0.2, 0.1, 0.5, 0.3]])
    advantages, prompts = [1.0, 1.2, -1.0, -0.8, -0.4], [7, 2, 7, 2, 2]
    losses = DGPO(beta=3.0)(terms(log_ratio, advantages, prompts))
    for members in ([0, 2], [1, 3, 4]):
        alone = DGPO(beta=3.0)(terms(log_ratio[:, members], [advantages[i] for i in members], [0] * len(members)))
        assert_same(losses[:, members], alone)


def test_reversed_log_ratios_are_reversed_advantages() -> None:
    log_ratio, advantages = torch.tensor([[0.3, -0.1, 0.2]]), [1.0, -0.7, -0.3]
    mirrored = DGPO(beta=3.0)(terms(-log_ratio, [-each for each in advantages], [0, 0, 0]))
    assert_same(DGPO(beta=3.0)(terms(log_ratio, advantages, [0, 0, 0])), mirrored)


def test_equal_scores_are_no_gradient() -> None:
    objective = DGPO(beta=3.0)
    advantages = objective.values(torch.tensor([2.0, 2.0, 2.0]), torch.zeros(3, dtype=torch.long))
    log_ratio = torch.tensor([[0.3, -0.1, 0.2]], requires_grad=True)
    losses = objective(terms(log_ratio, advantages.tolist(), [0, 0, 0]))
    assert losses[0].tolist() == pytest.approx([math.log(2)] * 3)
    assert not gradient(losses, log_ratio).any()


def test_a_picture_alone_in_its_prompt_teaches_nothing() -> None:
    objective = DGPO(beta=3.0)
    assert not objective.can_learn_from(torch.tensor([1.0, -1.0]), torch.tensor([0, 1]))
    assert not objective.can_learn_from(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([0, 0, 1]))
    assert objective.can_learn_from(torch.tensor([1.0, -1.0, -1.0]), torch.tensor([0, 1, 0]))


@pytest.mark.parametrize("size", [1000.0, -1000.0])
def test_finite_at_large_margins(size: float) -> None:
    log_ratio = torch.tensor([[size, -size, 0.0]], requires_grad=True)
    losses = DGPO(beta=100.0)(terms(log_ratio, [1.2, -1.2, 0.0], [0, 0, 0]))
    assert losses.isfinite().all()
    assert gradient(losses, log_ratio).isfinite().all()
