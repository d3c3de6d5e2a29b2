"""All pairs, or a random choice of pairs, of a prompt's K images."""

import math
import random
from collections.abc import Sequence
from itertools import combinations
from typing import TypeVar

Item = TypeVar("Item")


def all_pairs(images: Sequence[Item]) -> list[tuple[Item, Item]]:
    """All K(K-1)/2 pairs, in order."""
    return list(combinations(images, 2))


def number_of_pairs(images: int, wanted: int) -> int:
    """How many pairs of `images` images are drawn if `wanted` are asked for; 0 asks for all."""
    every = math.comb(images, 2)
    return min(wanted or every, every)


def random_pairs(images: Sequence[Item], count: int, *, seed: str) -> list[tuple[Item, Item]]:
    """Draw `count` distinct pairs, or all of them if there are fewer. The draw depends on `seed` alone."""
    pairs = all_pairs(images)
    return sorted(random.Random(seed).sample(pairs, min(count, len(pairs))), key=pairs.index)
