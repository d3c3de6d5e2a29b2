"""Which pairs of a prompt's K images are asked about."""

import random
from collections.abc import Sequence
from itertools import combinations
from typing import TypeVar

Item = TypeVar("Item")


def all_pairs(images: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Every pair, K(K-1)/2 of them, in order."""
    return list(combinations(images, 2))


def random_pairs(images: Sequence[Item], count: int, *, seed: str) -> list[tuple[Item, Item]]:
    """`count` distinct pairs (all of them if there are fewer), a function of `seed` alone."""
    pairs = all_pairs(images)
    return sorted(random.Random(seed).sample(pairs, min(count, len(pairs))), key=pairs.index)
