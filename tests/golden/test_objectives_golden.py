"""Losses and gradients of the other objectives against numbers recorded from their published trainers (see objectives.json)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms, PairObjective
from d3po.objectives.d3po import D3PO
from d3po.objectives.ddpo import DDPO
from d3po.objectives.dgpo import DGPO
from d3po.objectives.diffusion_dpo import DiffusionDPO
from d3po.objectives.diffusion_nft import DiffusionNFT
from d3po.objectives.ipo import IPO
from d3po.objectives.kto import KTO
from d3po.objectives.mapo import MaPO
from d3po.objectives.safeguard import PairProducts
from d3po.objectives.sft import SFT

Case = dict[str, Any]
GOLDEN = json.loads(Path(__file__).with_name("objectives.json").read_text())
PICTURES = GOLDEN["pictures"]
DDPO_GOLDEN = GOLDEN["ddpo"]


def number(values: Any, *, requires_grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def cases(objective: str) -> list[Case]:
    return GOLDEN[objective]["cases"]


def error(prediction: Tensor) -> Tensor:
    """The mean squared denoising error of each picture."""
    return (prediction - number(PICTURES["target"])).square().mean(dim=(1, 2, 3))


def prediction_of(case: Case) -> Tensor:
    return number(PICTURES["policy"][case["policy"]], requires_grad=True)


def pair_loss(objective: PairObjective, log_ratio: Tensor) -> Tensor:
    """Of pictures, or of steps, of which the first half won."""
    winners, losers = log_ratio[None].chunk(2, dim=1)
    return objective(winners, losers, torch.ones_like(winners)).mean()


def must_equal(number_here: Tensor, recorded: Any) -> None:
    torch.testing.assert_close(number_here, number(recorded), rtol=1e-8, atol=1e-10)


def must_be(loss: Tensor, recorded: Any, gradients: list[tuple[Tensor, list[Any]]]) -> None:
    must_equal(loss, recorded)
    for gradient, (_, expected) in zip(torch.autograd.grad(loss, [of for of, _ in gradients]), gradients, strict=True):
        must_equal(gradient, expected)


@pytest.mark.parametrize("case", cases("diffusion_dpo"))
def test_diffusion_dpo(case: Case) -> None:
    prediction = prediction_of(case)
    log_ratio = error(number(PICTURES["reference"])) - error(prediction)
    must_be(pair_loss(DiffusionDPO(beta=case["beta"]), log_ratio), case["loss"], [(prediction, case["gradient"])])


@pytest.mark.parametrize("case", cases("diffusion_sdpo"))
def test_diffusion_dpo_with_its_safeguard(case: Case) -> None:
    prediction = prediction_of(case)
    winners, losers = (error(number(PICTURES["reference"])) - error(prediction))[None].chunk(2, dim=1)
    apart_w, apart_l = (prediction.detach() - number(PICTURES["target"])).flatten(1).chunk(2)
    products = PairProducts(aa=(apart_w * apart_w).sum(1)[None], bb=(apart_l * apart_l).sum(1)[None], ab=(apart_w * apart_l).sum(1)[None])
    objective, target = DiffusionDPO(beta=case["beta"], winner_safeguard=case["mu"]), torch.ones_like(winners)
    loss = objective(*objective.safeguarded(winners, losers, target, products), target).mean()
    must_be(loss, case["loss"], [(prediction, case["gradient"])])


def test_the_safeguard_is_recorded_where_it_holds_back_and_where_it_does_not() -> None:
    shares = {share for case in cases("diffusion_sdpo") for share in case["lambda"]}
    assert min(shares) < 1
    assert max(shares) == 1


@pytest.mark.parametrize("case", cases("mapo"))
def test_mapo(case: Case) -> None:
    prediction = prediction_of(case)
    objective = MaPO(beta=case["beta"], sharpness=case["sharpness"])
    must_be(pair_loss(objective, -error(prediction)), case["loss"], [(prediction, case["gradient"])])


def image_loss(objective: ImageObjective, log_ratio: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
    value = objective.values(labels, prompts)
    return objective(ImageTerms(log_ratio=log_ratio[None], value=value, batch_mean=log_ratio.mean().item())).mean()


@pytest.mark.parametrize("case", cases("kto"))
def test_kto(case: Case) -> None:
    prediction = prediction_of(case)
    log_ratio = error(number(PICTURES["reference"])) - error(prediction)
    likes = number(case["likes"])
    objective = KTO(beta=case["beta"], dislike_weight=case["dislike_weight"])
    loss = image_loss(objective, log_ratio, likes, torch.zeros(len(likes), dtype=torch.long))
    must_be(loss, case["loss"], [(prediction, case["gradient"])])


def test_the_reference_point_of_kto_is_recorded_on_both_sides_of_its_bound() -> None:
    assert {case["reference_point"] > 0 for case in cases("kto")} == {True, False}


@pytest.mark.parametrize("case", cases("dgpo"))
def test_dgpo(case: Case) -> None:
    """The gradient alone, which is beta times the published one; the value that the published loss returns is not that of a loss."""
    prediction = prediction_of(case)
    log_ratio = (error(number(PICTURES["reference"])) - error(prediction))[None]
    terms = ImageTerms(log_ratio=log_ratio, value=number(case["advantages"]), prompts=torch.tensor(case["prompts"]))
    loss = DGPO(beta=case["beta"])(terms).mean() / case["beta"]
    must_equal(torch.autograd.grad(loss, prediction)[0], case["gradient"])


@pytest.mark.parametrize("case", cases("diffusion_nft"))
def test_diffusion_nft(case: Case) -> None:
    """Where a picture has one latent dimension, for more the published code divides by the mean absolute error."""
    prediction = prediction_of(case)
    exact, reference, policy = number(PICTURES["target"]).flatten(), number(PICTURES["reference"]).flatten(), prediction.flatten()
    before = (reference - exact).square()
    terms = ImageTerms(
        log_ratio=(before - (policy - exact).square())[None],
        value=number(case["likes"]).repeat_interleave(8),
        change=(policy - reference).square()[None],
        reference_error=before[None],
    )
    losses = DiffusionNFT(beta=case["beta"], weighting="self_normalised")(terms)
    must_be(losses.mean(), case["loss"], [(prediction, case["gradient"])])


@pytest.mark.parametrize("case", cases("sft"))
def test_sft_of_liked_pictures(case: Case) -> None:
    prediction = prediction_of(case)
    loss = image_loss(SFT(), -error(prediction), number([1.0] * len(prediction)), torch.zeros(len(prediction), dtype=torch.long))
    must_be(loss, case["loss"], [(prediction, case["gradient"])])


def step_loss(objective: PairObjective, case: Case) -> tuple[Tensor, list[tuple[Tensor, list[Any]]]]:
    """Of log-probs of denoising steps."""
    winner, loser = (number(case[key], requires_grad=True) for key in ("winner", "loser"))
    log_ratio = torch.cat([winner - number(case["reference_winner"]), loser - number(case["reference_loser"])])
    return pair_loss(objective, log_ratio), [(winner, case["gradient_winner"]), (loser, case["gradient_loser"])]


@pytest.mark.parametrize("case", cases("d3po_branch"))
def test_d3po_branch(case: Case) -> None:
    loss, gradients = step_loss(D3PO(beta=case["beta"], clip="two_sided", clip_range=case["clip_range"]), case)
    must_be(loss, case["loss"], gradients)


@pytest.mark.parametrize("case", cases("ipo"))
def test_ipo(case: Case) -> None:
    loss, gradients = step_loss(IPO(beta=case["beta"]), case)
    must_be(loss, case["loss"], gradients)


def ddpo_labels() -> tuple[Tensor, Tensor]:
    return number(DDPO_GOLDEN["scores"]), torch.tensor(DDPO_GOLDEN["prompts"])


def test_advantages_of_ddpo() -> None:
    must_equal(DDPO(clip_range=1e-4).values(*ddpo_labels()), DDPO_GOLDEN["advantages"])


@pytest.mark.parametrize("case", cases("ddpo"))
def test_ddpo(case: Case) -> None:
    policy = number(case["policy"], requires_grad=True)
    loss = image_loss(DDPO(clip_range=case["clip_range"]), policy - number(case["sampled"]), *ddpo_labels())
    must_be(loss, case["loss"], [(policy, case["gradient"])])
