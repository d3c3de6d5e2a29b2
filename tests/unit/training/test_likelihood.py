"""What readers say of a linear model whose every number can be worked out by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from d3po.diffusion.parameterization import Epsilon
from d3po.diffusion.transition import noised
from d3po.errors import ConfigError
from d3po.models.schedulers import PARAMETERIZATIONS
from d3po.options import LastStep
from d3po.training.likelihood import DenoisingLikelihood, TrajectoryLikelihood, falls_into
from tests.precision import BOUND, assert_same
from tests.unit.training.linear import group, needs, policy, replay


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_noising_is_what_diffusers_does(kind: str) -> None:
    scheduler: Any = DDPMScheduler(beta_schedule="scaled_linear")
    x0, noise, t = torch.randn(2, 4, 3, 3, dtype=torch.float64), torch.randn(2, 4, 3, 3, dtype=torch.float64), torch.tensor([10, 900])
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    x_t, target = noised(x0, noise, scheduler.alphas_cumprod[t], PARAMETERIZATIONS[kind])
    assert_same(x_t, scheduler.add_noise(x0, noise, t))
    expected = {"epsilon": noise, "v_prediction": scheduler.get_velocity(x0, noise, t), "sample": x0}[kind]
    assert_same(target, expected)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_an_exact_prediction_gives_back_picture_and_noise(kind: str) -> None:
    x0, noise, alpha = *torch.randn(2, 2, 5, dtype=torch.float64), torch.tensor([0.3, 0.8], dtype=torch.float64)
    x_t, target = noised(x0, noise, alpha, PARAMETERIZATIONS[kind])
    back = PARAMETERIZATIONS[kind].split(target, x_t, alpha[:, None])
    for found, given in zip(back, (x0, noise), strict=True):
        assert_same(found, given)


def test_the_evidence_of_pictures_is_how_much_better_they_are_denoised(tmp_path: Path) -> None:
    made = policy(moved=0.5)
    mine, steps, how = group(tmp_path), torch.tensor([300, 700]), replay(made)
    evidence = DenoisingLikelihood(made, how, needs()).read([mine], made.encode_prompts(["a"]), steps, (0, 0, 0))
    clean = mine.clean()
    network: Any = made.network
    for place, timestep in enumerate(steps.tolist()):
        for image in range(2):
            t = torch.tensor([timestep])
            noise = DenoisingLikelihood(made, how, needs())._noise([mine], t, (0, 0, 0), (3,))[image : image + 1]
            x_t, target = noised(clean[image : image + 1], noise, network.alphas_cumprod[t], Epsilon())
            error = (network.predict(x_t, t, None) - target).square().mean()
            with made.without_adapter():
                before = (network.predict(x_t, t, None) - target).square().mean()
            assert evidence.log_ratio[place, image].item() == pytest.approx((before - error).item(), abs=BOUND)
    assert evidence.drift is not None
    assert (evidence.drift > 0).all()


@pytest.mark.parametrize("reads_change", [True, False])
def test_the_change_of_the_prediction_costs_no_further_network_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_change: bool
) -> None:
    made = policy(moved=0.5)
    mine, steps, how = group(tmp_path), torch.tensor([300, 700]), replay(made)
    network: Any = made.network
    seen: list[Tensor] = []
    predict = network.predict
    monkeypatch.setattr(network, "predict", lambda *given: seen.append(predict(*given)) or seen[-1])
    reader = DenoisingLikelihood(made, how, replace(needs(), change=reads_change))
    evidence = reader.read([mine], made.encode_prompts(["a"]), steps, (0, 0, 0), measures=False)
    before, after = seen
    assert not before.requires_grad
    assert after.requires_grad
    if not reads_change:
        assert evidence.change is evidence.reference_error is None
        return
    noise = reader._noise([mine], steps, (0, 0, 0), (3,))
    _, target = noised(mine.clean().repeat(2, 1), noise, network.alphas_cumprod[steps.repeat_interleave(2)], Epsilon())
    assert evidence.change is not None
    assert evidence.reference_error is not None
    assert_same(evidence.change, (after - before).square().mean(dim=1).view(2, 2))
    assert_same(evidence.reference_error, (before - target).square().mean(dim=1).view(2, 2))
    evidence.change.sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in made.trainable().values())


def test_products_are_of_the_differences_of_prediction_and_target(tmp_path: Path) -> None:
    made = policy(moved=0.5)
    mine, steps, how = group(tmp_path), torch.tensor([300, 700]), replay(made)
    network: Any = made.network
    reader = DenoisingLikelihood(made, how, replace(needs(), products=True))
    evidence = reader.read([mine], made.encode_prompts(["a"]), steps, (0, 0, 0), measures=False)
    assert evidence.products is not None
    assert not evidence.products.requires_grad
    for place, timestep in enumerate(steps.tolist()):
        t = torch.tensor([timestep, timestep])
        x_t, target = noised(mine.clean(), reader._noise([mine], t[:1], (0, 0, 0), (3,)), network.alphas_cumprod[t], Epsilon())
        apart = (network.predict(x_t, t, None) - target).detach()
        assert_same(evidence.products[place], apart @ apart.T / 3)


def test_an_untrained_policy_is_its_own_reference(tmp_path: Path) -> None:
    made = policy()
    evidence = DenoisingLikelihood(made, replay(made), needs()).read(
        [group(tmp_path)], made.encode_prompts(["a"]), torch.tensor([5]), (0, 0, 0)
    )
    assert evidence.log_ratio.abs().max().item() == 0
    assert evidence.drift is not None
    assert evidence.drift.max().item() == 0


def test_without_a_reference_the_error_itself_is_read(tmp_path: Path) -> None:
    made = policy()
    reader, condition = DenoisingLikelihood(made, replay(made), needs("none")), made.encode_prompts(["a"])
    evidence, alone = (reader.read([group(tmp_path)], condition, torch.tensor([5]), (0, 0, 0), measures=each) for each in (True, False))
    assert (evidence.log_ratio < 0).all()
    assert torch.equal(evidence.log_ratio, alone.log_ratio)
    assert evidence.drift is not None, "to the pretrained model"
    assert alone.drift is None


def test_noise_is_shared_within_a_prompt_and_not_between_prompts_updates_or_timesteps(tmp_path: Path) -> None:
    made = policy()
    reader = DenoisingLikelihood(made, replay(made), needs())
    one, other = group(tmp_path, "a"), group(tmp_path, "bb")
    noise = reader._noise([one, other], torch.tensor([5, 6]), (0, 0, 0), (3,)).view(2, 4, 3)
    assert torch.equal(noise[:, 0], noise[:, 1])
    assert torch.equal(noise[0, 2], reader._noise([other], torch.tensor([5]), (0, 0, 0), (3,))[0])
    drawn = [noise[0, 0], noise[0, 2], noise[1, 0], reader._noise([one], torch.tensor([5]), (0, 0, 1), (3,))[0]]
    assert len({tuple(each.tolist()) for each in drawn}) == 4


@pytest.mark.parametrize("images", [1, 2])
def test_the_exact_kl_is_that_of_two_gaussians(tmp_path: Path, images: int) -> None:
    """Of one image too, where a published script's is 0."""
    made = policy(moved=0.5)
    mine, steps, how = group(tmp_path, images=images), torch.tensor([1, 2]), replay(made)
    evidence = TrajectoryLikelihood(made, how, needs(exact_kl=True)).read([mine], made.encode_prompts(["a"]), steps, (0, 0, 0))
    assert evidence.kl is not None
    assert (evidence.kl > 0).all()
    for place, step in enumerate(steps.tolist()):
        x_t = mine.shard.latents(step)
        theirs = how.step(made, x_t[None], torch.tensor([step]), made.encode_prompts(["a"] * images))
        with made.without_adapter():
            before = how.step(made, x_t[None], torch.tensor([step]), made.encode_prompts(["a"] * images))
        policies = [torch.distributions.Normal(s.mean, s.std[:, None]) for s in (theirs, before)]
        assert_same(evidence.kl[place], torch.distributions.kl_divergence(*policies).mean(dim=1))
    evidence.kl.sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in made.trainable().values())


@pytest.mark.parametrize("last_step", ["model", "clamped"])
def test_over_all_timesteps_the_drift_weighs_what_the_samplers_steps_weigh(last_step: LastStep) -> None:
    made = policy()
    how = replay(made, last_step=last_step)
    sensitivity = how.transition.sensitivity(how.grid)
    weights = sensitivity[falls_into(how.grid, torch.arange(1, 1000))] ** 2
    assert weights.mean().item() == pytest.approx((sensitivity**2).mean().item(), rel=0.02)
    assert (weights[:200] == 0).all() == (last_step == "model"), "a last step without noise shows nothing"


def test_timesteps_are_as_many_as_the_models() -> None:
    made = policy(timesteps=100)
    pictures = DenoisingLikelihood(made, replay(made), needs())
    choices = pictures.choices((0, 1000))
    assert (int(choices[0]), int(choices[-1])) == (1, 99)
    assert pictures.progress(choices[[0, -1]]) == [0.98, 0.0]
    with pytest.raises(ConfigError, match=r"\[250, 1000\], which holds none of the model's timesteps \(1 to 99\)"):
        pictures.choices((250, 1000))


def test_an_update_costs_pictures_as_many_rows_as_trajectories() -> None:
    made = policy()
    stepping, noising = TrajectoryLikelihood(made, replay(made), needs()), DenoisingLikelihood(made, replay(made), needs())
    assert stepping.count(0.5, len(stepping.choices((0, 1000)))) == noising.count(0.5, len(noising.choices((0, 1000)))) == 2


def test_timesteps_are_drawn_from_the_range() -> None:
    made = policy()
    choices = DenoisingLikelihood(made, replay(made), needs()).choices((250, 1000))
    assert (int(choices[0]), int(choices[-1])) == (250, 999)
