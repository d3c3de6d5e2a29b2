"""How far apart two policies are in one step: the KL of two Gaussians of equal std, exact, or from sketches of their means.

From one x_t the policy draws Normal(mu, s^2 I) and the reference Normal(nu, s^2 I), so

    KL(policy || reference) = |mu - nu|^2 / (2 s^2),

the same both ways round. Whoever drew the recorded x_{t-1} has no part in it. Log-ratios of recorded steps do not tell it: where the sampler is a third
policy, their mean is half the difference of two squared distances, each of which grows with the number of dimensions, and one draw from each x_t
leaves their spread unknown. So the means themselves are compared. The reference's are kept as sketches, a few hundred numbers a step however large the latent.

A sketch adds up the numbers of a mean in `WIDTH` buckets, each number under a random sign g_j that never changes (Charikar, Chen and Farach-Colton 2002;
Weinberger et al. 2009, arXiv 0902.2206). It is linear, so the difference of two sketches is the sketch of delta = mu - nu, and

    E_g |sketch(delta)|^2 = sum over buckets of E_g (sum_j g_j delta_j)^2 = sum_j delta_j^2 = |delta|^2,

since E[g_i g_j] is 1 for i = j and 0 otherwise. The relative variance is at most 2 sum_b e_b^2, e_b being the share of |delta|^2 that falls into bucket b:
2 / WIDTH where it is spread evenly, a standard deviation of 1/16. A latent of no more than `WIDTH` numbers is its own sketch, and its KL is exact.
"""

import hashlib
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d3po.diffusion.transition import GaussianStep

WIDTH = 512
"""Numbers of a sketch: 3 % of the bytes of Stable Diffusion's latents."""


def sketch_width(dimensions: int) -> int:
    """How many numbers the sketch of a latent of so many dimensions has."""
    return min(dimensions, WIDTH)


def sketch(mean: Float[Tensor, " B *latent"]) -> Float[Tensor, " B width"]:
    """The mean of a step in `sketch_width` numbers."""
    values = mean.flatten(1)
    size = values.shape[1]
    if size <= WIDTH:
        return values
    return F.pad(values * _signs(size).to(values), (0, -size % WIDTH)).unflatten(1, (-1, WIDTH)).sum(dim=1)


def kl_of_sketches(step: GaussianStep, theirs: Float[Tensor, " B width"]) -> Float[Tensor, " B"]:
    """KL of a step to another policy's from the same x_t in nats per latent dimension, from the `sketch` of that one's mean."""
    apart = (sketch(step.mean) - theirs.to(step.mean)).square().sum(dim=1) / step.mean[0].numel()
    return apart / (2 * step.std.to(apart) ** 2)


def kl_of_steps(mine: GaussianStep, theirs: GaussianStep) -> Float[Tensor, " B"]:
    """KL of two policies' steps from one x_t in nats per latent dimension, exact."""
    apart = (mine.mean - theirs.mean).square().flatten(1).mean(dim=1)
    return apart / (2 * mine.std.to(apart) ** 2)


@lru_cache(maxsize=16)
def _signs(size: int) -> Float[Tensor, " size"]:
    """Signs that are the same in every version of every library, because they are kept in sketches on disk: bits of a hash, 1 for plus."""
    stream = torch.frombuffer(bytearray(hashlib.shake_256(b"signs of a sketch").digest(-(-size // 8))), dtype=torch.uint8)
    bits = (stream[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[:size].float() * 2 - 1
