"""The safeguard of Diffusion-SDPO against numbers worked out by hand, and what it promises: the winner's error does not rise."""

import pytest
import torch
from torch import Tensor

from d3po.objectives.diffusion_dpo import DiffusionDPO
from d3po.objectives.safeguard import PairProducts, safeguarded
from tests.precision import assert_same


def products(aa: float, bb: float, ab: float) -> PairProducts:
    return PairProducts(aa=torch.tensor([[aa]]), bb=torch.tensor([[bb]]), ab=torch.tensor([[ab]]))


def shares(target: float, among: PairProducts, mu: float) -> tuple[float, float]:
    """What is left of both images' gradients."""
    a, b = (torch.tensor([[number]], requires_grad=True) for number in (0.3, -0.2))
    held = safeguarded(a, b, torch.tensor([[target]]), among, mu)
    assert [each.item() for each in held] == [0.3, -0.2], "the values stay as they are"
    left_a, left_b = (torch.autograd.grad(each.sum(), of)[0].item() for each, of in zip(held, (a, b), strict=True))
    return left_a, left_b


@pytest.mark.parametrize(
    ("target", "aa", "bb", "ab", "mu", "expected"),
    [
        (1.0, 0.4, 0.9, 0.5, 0.5, (1.0, 0.4)),  # (1 - 0.5) 0.4 / 0.5
        (0.0, 0.9, 0.4, 0.5, 0.5, (0.4, 1.0)),  # the same pair the other way round
        (0.8, 0.4, 0.9, 0.5, 0.5, (1.0, 0.4)),  # a soft preference has a loser too
        (1.0, 0.4, 0.9, 0.1, 0.5, (1.0, 1.0)),  # 2 is bounded by 1
        (1.0, 0.4, 0.9, -0.5, 0.5, (1.0, 1.0)),  # losing pushes the winner's error down
        (1.0, 0.4, 0.9, 0.0, 0.5, (1.0, 1.0)),
        (1.0, 0.4, 0.9, 0.5, 1.0, (1.0, 0.0)),
        (0.5, 0.4, 0.9, 0.5, 0.5, (1.0, 1.0)),  # a tie has no loser
        (1.0, 0.0, 0.9, 0.0, 0.5, (1.0, 1.0)),  # a perfect winner: both gradients are at right angles
    ],
)
def test_the_losers_gradient_by_hand(target: float, aa: float, bb: float, ab: float, mu: float, expected: tuple[float, float]) -> None:
    assert shares(target, products(aa, bb, ab), mu) == pytest.approx(expected)


def winners_fall(differences: Tensor, mu: float) -> tuple[float, float]:
    """How fast the winner's error falls along the loss's gradient in a shift of both outputs, and along that of its own error with the same weight."""
    shift = torch.zeros(differences.shape[1], requires_grad=True)
    errors = (differences + shift).square().mean(dim=1)
    a, b = -errors[:1], -errors[1:]
    gram = differences @ differences.T
    objective = DiffusionDPO(beta=2.0, winner_safeguard=mu)
    target = torch.ones(1)
    held = objective.safeguarded(a, b, target, PairProducts(aa=gram[:1, 0], bb=gram[1:, 1], ab=gram[:1, 1]))
    loss = objective(*held, target).sum()
    weight = torch.sigmoid(b - a).item()  # beta / 2 is 1
    (of_winner,) = torch.autograd.grad(errors[0], shift, retain_graph=True)
    (of_loss,) = torch.autograd.grad(loss, shift)
    return (of_loss @ of_winner).item(), weight * (of_winner @ of_winner).item()


@pytest.mark.parametrize("mu", [0.001, 0.5, 1.0])
def test_a_step_lowers_the_winners_error_by_the_share_mu_at_least(mu: float) -> None:
    generator = torch.Generator().manual_seed(3)
    rose_without = 0
    for _ in range(50):
        differences = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        fall, alone = winners_fall(differences, mu)
        assert fall >= mu * alone - 1e-12
        rose_without += winners_fall(differences, 0.0)[0] < 0
    assert rose_without > 0, "without the safeguard the winner's error may rise"


def test_off_is_diffusion_dpo() -> None:
    a, b = torch.tensor([[0.1]], requires_grad=True), torch.tensor([[0.2]], requires_grad=True)
    held = DiffusionDPO(beta=2.0).safeguarded(a, b, torch.ones(1, 1), products(0.1, 0.9, 0.9))
    assert held[0] is a
    assert held[1] is b


def test_swapped_is_the_same_loss_and_gradient() -> None:
    a, b = torch.tensor([[0.1]], requires_grad=True), torch.tensor([[0.2]], requires_grad=True)
    objective = DiffusionDPO(beta=2.0, winner_safeguard=0.7)
    one = objective(*objective.safeguarded(a, b, torch.tensor([[0.9]]), products(0.3, 0.5, 0.4)), torch.tensor([[0.9]]))
    swapped, target = products(0.5, 0.3, 0.4), torch.tensor([[0.1]])
    other = objective(*objective.safeguarded(b, a, target, swapped), target)
    assert_same(one, other)
    for mine, theirs in zip(torch.autograd.grad(one.sum(), [a, b]), torch.autograd.grad(other.sum(), [a, b]), strict=True):
        assert_same(mine, theirs)


def test_finite_at_large_and_tiny_products() -> None:
    for size in (1e-300, 1e300):
        assert all(0 <= share <= 1 for share in shares(1.0, products(size, size, size / 2), 0.9))
    assert shares(1.0, products(1.0, 1.0, 1e-310), 0.9) == (1.0, 1.0)
