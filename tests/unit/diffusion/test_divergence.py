"""The KL of two Gaussian steps, exact and from sketches of their means."""

import math

import pytest
import torch

from d3po.diffusion.divergence import WIDTH, _signs, kl_of_sketches, kl_of_steps, sketch
from d3po.diffusion.transition import GaussianStep

DOUBLE = torch.float64


def steps(images: int, size: int, apart: float, std: float = 0.3) -> tuple[GaussianStep, GaussianStep]:
    """Two policies' steps, whose means lie on average `apart` stds a dimension from each other."""
    generator = torch.Generator().manual_seed(size)
    mean, way = (torch.randn(images, size, generator=generator, dtype=DOUBLE) for _ in range(2))
    spread = torch.full((images,), std, dtype=DOUBLE)
    return GaussianStep(mean=mean + apart * std * way, std=spread), GaussianStep(mean=mean, std=spread)


def of_sketches(mine: GaussianStep, theirs: GaussianStep) -> torch.Tensor:
    return kl_of_sketches(mine, sketch(theirs.mean))


def test_the_exact_kl_is_that_of_two_gaussians() -> None:
    mine, theirs = steps(3, 7, 0.6)
    policies = [torch.distributions.Normal(step.mean, step.std[:, None]) for step in (mine, theirs)]
    torch.testing.assert_close(kl_of_steps(mine, theirs), torch.distributions.kl_divergence(*policies).mean(dim=1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1, 3, WIDTH - 1, WIDTH])
def test_a_small_latent_is_its_own_sketch(size: int) -> None:
    mine, theirs = steps(4, size, 0.6)
    torch.testing.assert_close(of_sketches(mine, theirs), kl_of_steps(mine, theirs), rtol=1e-10, atol=0)


@pytest.mark.parametrize("size", [WIDTH + 1, 1000, 16_384, 65_536])
def test_the_sketched_kl_is_the_exact_one_within_its_standard_deviation(size: int) -> None:
    """Of directions drawn anew for each of n images the mean ratio has a standard deviation of at most sqrt(2 / (WIDTH n)): four of them."""
    images = 50
    mine, theirs = steps(images, size, 0.6)
    ratios = of_sketches(mine, theirs) / kl_of_steps(mine, theirs)
    assert ratios.mean().item() == pytest.approx(1, abs=4 * math.sqrt(2 / (WIDTH * images)))
    assert (ratios - 1).abs().max().item() < 5 * math.sqrt(2 / WIDTH)


def test_sketches_of_latents_of_any_shape_are_those_of_their_numbers() -> None:
    mine, _ = steps(2, 4 * 16 * 16, 0.6)
    assert torch.equal(sketch(mine.mean.view(2, 4, 16, 16)), sketch(mine.mean))


def test_a_sketch_is_the_signed_sum_of_every_512th_number() -> None:
    size = 2 * WIDTH + 3
    values = torch.arange(size, dtype=DOUBLE)
    signed = values * _signs(size)
    expected = [float(signed[bucket::WIDTH].sum()) for bucket in range(WIDTH)]
    assert sketch(values[None]).flatten().tolist() == expected


def test_signs_never_change_because_sketches_are_kept() -> None:
    """OpenSSL's SHAKE-256 of "signs of a sketch" begins with the bytes 5c and 21; their lowest bit is the first sign."""
    assert _signs(16).tolist() == [-1, -1, 1, 1, 1, -1, 1, -1, 1, -1, -1, -1, -1, 1, -1, -1]
    assert torch.equal(_signs(70_000)[:16], _signs(16))
    assert abs(_signs(65_536).mean().item()) < 4 / 256
