"""The KL divergence of two policies in one step: the KL of two Gaussians of equal std, exact or estimated from sketches of their means.

From one x_t the policy draws Normal(mu, s^2 I) and the reference Normal(nu, s^2 I), so

    KL(policy || reference) = |mu - nu|^2 / (2 s^2),

which is symmetric and does not depend on the policy that sampled the recorded x_{t-1}. Log-ratios of recorded steps do not suffice for it: if the sampler
is a third policy, their mean is half the difference of two squared distances, each of which grows with the number of dimensions, and a single draw from
each x_t says nothing about their variance. So the means themselves are compared. Those of the reference are kept as sketches, which have a few hundred
numbers a step however large the latent is.

A sketch sums the numbers of a mean in `WIDTH` buckets, each number with a fixed random sign g_j (Charikar, Chen and Farach-Colton 2002;
Weinberger et al. 2009, arXiv 0902.2206). It is linear, so the difference of two sketches is the sketch of delta = mu - nu, and

    E_g |sketch(delta)|^2 = sum over buckets of E_g (sum_j g_j delta_j)^2 = sum_j delta_j^2 = |delta|^2,

since E[g_i g_j] is 1 for i = j and 0 otherwise. The relative variance is at most 2 sum_b e_b^2, e_b being the share of |delta|^2 that falls into bucket b.
If it is spread evenly this is 2 / WIDTH, a standard deviation of 1/16. A latent of no more than `WIDTH` numbers is its own sketch, and its KL is exact.
"""

import hashlib
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d3po.diffusion.transition import GaussianStep

WIDTH = 512
"""Largest number of values in a sketch: 3 % of the size of Stable Diffusion's latents."""


def sketch_width(dimensions: int) -> int:
    """The number of values in the sketch of a latent with this many dimensions."""
    return min(dimensions, WIDTH)


def sketch(mean: Float[Tensor, " B *latent"]) -> Float[Tensor, " B width"]:
    """Reduce the mean of a step to `sketch_width` values."""
    values = mean.flatten(1)
    size = values.shape[1]
    if size <= WIDTH:
        return values
    return F.pad(values * _signs(size).to(values), (0, -size % WIDTH)).unflatten(1, (-1, WIDTH)).sum(dim=1)


def kl_of_sketches(step: GaussianStep, theirs: Float[Tensor, " B width"]) -> Float[Tensor, " B"]:
    """Estimate the KL of a step to another policy's step from the same x_t, in nats per latent dimension, from the `sketch` of the other's mean."""
    apart = (sketch(step.mean) - theirs.to(step.mean)).square().sum(dim=1) / step.mean[0].numel()
    return apart / (2 * step.std.to(apart) ** 2)


def kl_of_steps(mine: GaussianStep, theirs: GaussianStep) -> Float[Tensor, " B"]:
    """The exact KL of two policies' steps from the same x_t, in nats per latent dimension."""
    apart = (mine.mean - theirs.mean).square().flatten(1).mean(dim=1)
    return apart / (2 * mine.std.to(apart) ** 2)


@lru_cache(maxsize=16)
def _signs(size: int) -> Float[Tensor, " size"]:
    """The signs g_j, from the bits of a hash. They must not depend on the version of any library, since sketches on disk contain them."""
    stream = torch.frombuffer(bytearray(hashlib.shake_256(b"signs of a sketch").digest(-(-size // 8))), dtype=torch.uint8)
    bits = (stream[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[:size].float() * 2 - 1
