"""Aspect ratio buckets: each prompt has one size of picture in all rounds, so that its images can be compared."""

import math
import random
from collections.abc import Sequence

from d3po.config import RunConfig, Size


def bucket_of(config: RunConfig, prompt: str) -> Size:
    """The size of a prompt's pictures, a function of the seed and the prompt alone. (0, 0), which stands for the run's size, if there are no buckets."""
    buckets = config.sampling.buckets
    return random.Random(f"{config.seed}/bucket/{prompt}").choice(buckets) if buckets else (0, 0)


def nearest_bucket(config: RunConfig, pictures: Sequence[Size]) -> Size:
    """The bucket whose aspect ratio is nearest to the geometric mean of those of pictures with these sizes. (0, 0) if there are no buckets."""
    ratio = sum(math.log(width / height) for width, height in pictures) / len(pictures)
    return min(config.sampling.buckets, key=lambda size: abs(math.log(size[0] / size[1]) - ratio), default=(0, 0))


def cut_into_shards(config: RunConfig, prompts: Sequence[str]) -> list[list[str]]:
    """Divide a round's prompts into shards. Each shard has pictures of one size and is sampled in one batch."""
    sizes = {prompt: bucket_of(config, prompt) for prompt in prompts}
    alike = [[prompt for prompt in prompts if sizes[prompt] == size] for size in dict.fromkeys(sizes.values())]
    per_shard = config.sampling.prompts_per_shard
    return [some[i : i + per_shard] for some in alike for i in range(0, len(some), per_shard)]
