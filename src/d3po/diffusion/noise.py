"""Noise by identity: an image's random draws depend on the image's identity alone, never on its batch, its process or what ran before."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def seeded(*identity: int | str) -> torch.Generator:
    """A CPU generator seeded by a hash of `identity`, such as (run seed, "step", round, prompt, image)."""
    digest = hashlib.sha256("/".join(map(str, identity)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class NoiseStreams:
    """One generator for each image, drawn from in step order: an image's noise does not depend on the other images of the batch."""

    def __init__(self, identities: Sequence[tuple[int | str, ...]]) -> None:
        self._generators = [seeded(*identity) for identity in identities]

    def draw(self, shape: tuple[int, ...]) -> Float[Tensor, " B *latent"]:
        """Draw the next standard normal noise of every image, shape (B, *shape)."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self._generators])
