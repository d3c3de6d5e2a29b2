"""DiffusionNFT against the two squared norms of its definition, and against numbers worked out by hand."""

import pytest
import torch
from torch import Tensor

from d3po.objectives.base import ImageTerms
from d3po.objectives.diffusion_nft import DiffusionNFT
from d3po.options import ErrorWeighting
from tests.precision import assert_same

LIKES = torch.tensor([1.0, -1.0, 0.3, 0.0], dtype=torch.float64)


def predictions() -> tuple[Tensor, Tensor, Tensor]:
    """The exact network output, the reference's and the policy's, of two noise levels of four images with five latent dimensions."""
    generator = torch.Generator().manual_seed(0)
    exact, reference, policy = (torch.randn(2, 4, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    return exact, reference, policy.requires_grad_()


def mean_square(difference: Tensor) -> Tensor:
    return difference.square().mean(dim=-1)


def terms_of(exact: Tensor, reference: Tensor, policy: Tensor, likes: Tensor) -> ImageTerms:
    before = mean_square(reference - exact)
    return ImageTerms(
        log_ratio=before - mean_square(policy - exact), value=likes, change=mean_square(policy - reference), reference_error=before
    )


def numbers(log_ratio: float, change: float, reference_error: float, like: float) -> ImageTerms:
    """The terms of one image at one noise level."""
    log_ratios, changes, errors = (torch.tensor([[number]], requires_grad=True) for number in (log_ratio, change, reference_error))
    return ImageTerms(log_ratio=log_ratios, value=torch.tensor([like]), change=changes, reference_error=errors)


@pytest.mark.parametrize("weighting", ["uniform", "self_normalised"])
@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5])
def test_loss_and_gradient_are_those_of_the_two_implicit_policies(weighting: ErrorWeighting, beta: float) -> None:
    exact, reference, policy = predictions()
    positive, negative = (mean_square(reference + side * beta * (policy - reference) - exact) for side in (1, -1))
    if weighting == "self_normalised":
        positive, negative = (error / error.detach().sqrt() for error in (positive, negative))
    goodness = (LIKES + 1) / 2
    expected = (goodness * positive + (1 - goodness) * negative) / beta
    losses = DiffusionNFT(beta=beta, weighting=weighting)(terms_of(exact, reference, policy, LIKES))
    assert_same(losses, expected)
    assert_same(torch.autograd.grad(losses.sum(), policy)[0], torch.autograd.grad(expected.sum(), policy)[0])


def test_up_to_a_constant_the_uniform_loss_is_the_change_held_against_what_is_gained() -> None:
    exact, reference, policy = predictions()
    terms = terms_of(exact, reference, policy, LIKES)
    assert terms.change is not None
    assert terms.reference_error is not None
    losses = DiffusionNFT(beta=0.7, weighting="uniform")(terms)
    assert_same(losses - terms.reference_error / 0.7, 0.7 * terms.change - LIKES * (terms.log_ratio + terms.change))


def test_by_hand() -> None:
    """Errors: 0.5 - 0.5 (0.1 + 0.02) + 0.25 * 0.02 = 0.445 of the positive policy, 0.565 of the negative one."""
    terms = numbers(0.1, 0.02, 0.5, 0.5)
    assert DiffusionNFT(beta=0.5, weighting="uniform")(terms).item() == pytest.approx((0.75 * 0.445 + 0.25 * 0.565) / 0.5)
    normalised = DiffusionNFT(beta=0.5, weighting="self_normalised")(terms).item()
    assert normalised == pytest.approx((0.75 * 0.445**0.5 + 0.25 * 0.565**0.5) / 0.5)


def test_a_liked_picture_at_beta_one_is_the_policys_own_error() -> None:
    exact, reference, policy = predictions()
    losses = DiffusionNFT(beta=1.0, weighting="uniform")(terms_of(exact, reference, policy, torch.ones(4, dtype=torch.float64)))
    assert_same(losses, mean_square(policy - exact))


def test_the_first_gradient_does_not_depend_on_beta() -> None:
    exact, reference, _ = predictions()
    gradients: list[Tensor] = []
    for beta in (0.1, 1.0):
        policy = reference.clone().requires_grad_()
        losses = DiffusionNFT(beta=beta, weighting="self_normalised")(terms_of(exact, reference, policy, LIKES))
        gradients.append(torch.autograd.grad(losses.sum(), policy)[0])
    assert gradients[0].abs().sum() > 0
    first, second = gradients
    assert_same(first, second)


def test_a_dislike_is_a_like_of_the_mirrored_policy() -> None:
    exact, reference, policy = predictions()
    objective = DiffusionNFT(beta=0.5, weighting="self_normalised")
    mirrored = terms_of(exact, reference, 2 * reference - policy, -LIKES)
    assert_same(objective(terms_of(exact, reference, policy, LIKES)), objective(mirrored))


def test_a_picture_that_is_neither_good_nor_bad_pulls_the_policy_back_to_the_reference() -> None:
    exact, reference, policy = predictions()
    losses = DiffusionNFT(beta=1.0, weighting="uniform")(terms_of(exact, reference, policy, torch.zeros(4, dtype=torch.float64)))
    assert_same(torch.autograd.grad(losses.sum(), policy)[0], 2 * (policy - reference) / 5)


def test_a_pictures_weight_does_not_depend_on_the_unit_of_the_errors() -> None:
    """Where all errors are a hundred times as large, the self-normalised loss is ten times as large, not a hundred."""
    objective = DiffusionNFT(beta=1.0, weighting="self_normalised")
    small, large = (objective(numbers(0.1 * unit, 0.02 * unit, 0.5 * unit, 0.3)).item() for unit in (1, 100))
    assert large == pytest.approx(10 * small)


@pytest.mark.parametrize("weighting", ["uniform", "self_normalised"])
@pytest.mark.parametrize(
    ("log_ratio", "change", "reference_error"), [(-1000.0, 1000.0, 0.1), (0.1, 0.1, 0.1), (0.0, 0.0, 0.0), (1e-9, 0.0, 0.0)]
)
def test_finite_however_large_or_small_the_errors_are(
    weighting: ErrorWeighting, log_ratio: float, change: float, reference_error: float
) -> None:
    """Rounding may leave an error a little below zero; it must not become the root of a negative number."""
    for like in (1.0, -1.0):
        terms = numbers(log_ratio, change, reference_error, like)
        losses = DiffusionNFT(beta=1.0, weighting=weighting)(terms)
        assert terms.change is not None
        assert losses.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(losses.sum(), [terms.log_ratio, terms.change]))
