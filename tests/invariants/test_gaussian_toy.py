"""D3PO on a problem whose answer is known: it must find pi_ref exp(Q / beta) / Z.

One action a, pi_ref = N(0, 1), and judges who prefer a to b with probability sigmoid(Q(a) - Q(b)) (Bradley-Terry).
The optimum of the KL-regularised problem is pi*(a) = pi_ref(a) exp(Q(a) / beta) / Z (arXiv 2311.13231).

For Q(a) = q a - c a^2 / 2 its exponent is

    -a^2 / 2 + (q a - c a^2 / 2) / beta = -(1 + c / beta) a^2 / 2 + (q / beta) a + const,

a Gaussian of variance v = 1 / (1 + c / beta) and mean v q / beta. (c = 0, a linear Q: the mean moves to q / beta, the spread
stays 1.) The loss sees only differences of log-ratios, in which Z cancels, so it can find pi* without knowing Q or Z.
"""

import math

import pytest
import torch
from torch import Tensor

from d3po.diffusion.transition import GaussianStep
from d3po.objectives.d3po import D3PO

Q = {"linear": (0.8, 0.0), "downhill": (-0.3, 0.0), "quadratic": (0.8, 0.6), "narrow": (0.0, 2.0), "wider than the reference": (0.2, -0.3)}


def reference_pairs(count: int, seed: int) -> Tensor:
    """Actions of the reference, (2, count)."""
    return torch.randn(2, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def preference(actions: Tensor, q: float, c: float) -> Tensor:
    """The chance that the first action of each pair is preferred."""
    value = q * actions - c * actions**2 / 2
    return torch.sigmoid(value[0] - value[1])


def log_prob(actions: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return GaussianStep(mean=mean.expand(len(actions), 1), std=std.expand(len(actions))).log_prob(actions[:, None], reduce="sum")


def fitted(objective: D3PO, actions: Tensor, target: Tensor, *, learn_spread: bool) -> tuple[float, float]:
    """Mean and std of the Gaussian policy that minimises the loss, starting from the reference."""
    mean = torch.zeros((), dtype=torch.float64, requires_grad=True)
    log_std = torch.zeros((), dtype=torch.float64, requires_grad=learn_spread)
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    optimizer = torch.optim.LBFGS(
        [mean, log_std] if learn_spread else [mean], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        ratios = [log_prob(a, mean, log_std.exp()) - log_prob(a, zero, one) for a in actions]
        value = objective(ratios[0], ratios[1], target).mean()
        value.backward()
        return value.detach()

    optimizer.step(loss)
    return mean.item(), log_std.exp().item()


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", Q)
def test_exact_preferences_lead_to_the_closed_form(name: str, beta: float) -> None:
    """With the judges' probabilities as soft targets the fit is exact on any pairs, for pi* is in the policy's family."""
    q, c = Q[name]
    variance = 1 / (1 + c / beta)
    actions = reference_pairs(500, seed=0)
    objective = D3PO(beta=beta, clip="none", clip_range=0.1, targets="cross_entropy")
    mean, std = fitted(objective, actions, preference(actions, q, c), learn_spread=c != 0)
    assert mean == pytest.approx(variance * q / beta, abs=1e-4)
    assert std == pytest.approx(math.sqrt(variance), abs=1e-4)


@pytest.mark.parametrize("targets", ["signed", "cross_entropy"])
@pytest.mark.parametrize("q", [0.8, -0.3])
def test_drawn_preferences_lead_to_the_closed_form_within_their_noise(targets, q: float) -> None:
    """One verdict a pair: beta times the mean is then the maximum-likelihood slope of a logistic regression on a - b, whose
    standard error is 1 / sqrt(sum p (1 - p) (a - b)^2)."""
    beta = 0.5
    actions = reference_pairs(20_000, seed=1)
    chance = preference(actions, q, 0.0)
    verdicts = torch.bernoulli(chance, generator=torch.Generator().manual_seed(2))
    mean, _ = fitted(D3PO(beta=beta, clip="none", clip_range=0.1, targets=targets), actions, verdicts, learn_spread=False)
    standard_error = float((chance * (1 - chance) * (actions[0] - actions[1]) ** 2).sum()) ** -0.5
    assert abs(beta * mean - q) < 4 * standard_error < 0.1


def test_larger_beta_stays_closer_to_the_reference() -> None:
    q, c = Q["quadratic"]
    actions = reference_pairs(500, seed=3)
    fits = [
        fitted(D3PO(beta=beta, clip="none", clip_range=0.1, targets="cross_entropy"), actions, preference(actions, q, c), learn_spread=True)
        for beta in (0.5, 1.0, 2.0, 8.0)
    ]
    kls = [math.log(1 / std) + (std**2 + mean**2) / 2 - 0.5 for mean, std in fits]
    assert kls == sorted(kls, reverse=True)
    assert kls[-1] < kls[0] / 10
