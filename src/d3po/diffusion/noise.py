"""Noise by identity: what an image is drawn from depends on who it is, never on its batch, its process or what ran before."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def seeded(*identity: int | str) -> torch.Generator:
    """A CPU generator whose stream is a function of `identity` alone, such as (run seed, "step", round, prompt, image)."""
    digest = hashlib.sha256("/".join(map(str, identity)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class NoiseStreams:
    """One generator per image, drawn from in step order: row i is the same whatever the other rows are."""

    def __init__(self, identities: Sequence[tuple[int | str, ...]]) -> None:
        self._generators = [seeded(*identity) for identity in identities]

    def draw(self, shape: tuple[int, ...]) -> Float[Tensor, " B *latent"]:
        """The next standard normal of every image, shape (B, *shape)."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self._generators])
