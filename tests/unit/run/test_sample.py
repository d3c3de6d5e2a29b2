"""How a round is cut into calls, and where its noise parts: without a model."""

import pytest
import torch

from d3po.config import RunConfig, Size, override
from d3po.diffusion.noise import NoiseStreams
from d3po.run.sample.branching import BranchingStreams
from d3po.run.sample.buckets import bucket_of, cut_into_shards, nearest_bucket

BUCKETS: list[Size] = [(64, 64), (80, 48), (48, 80)]
PROMPTS = [f"prompt {i}" for i in range(60)]


def config(**sampling: object) -> RunConfig:
    settings = {f"sampling.{key}": str(value) for key, value in sampling.items()}
    return override(RunConfig(seed=4), {"sampling.buckets": str([list(size) for size in BUCKETS])} | settings, where="test")


def test_a_prompt_s_size_follows_from_the_seed_and_itself() -> None:
    sizes = [bucket_of(config(), prompt) for prompt in PROMPTS]
    assert sizes == [bucket_of(config(steps=3), prompt) for prompt in PROMPTS]
    assert set(sizes) == set(BUCKETS)
    assert bucket_of(RunConfig(), "a cat") == (0, 0)


@pytest.mark.parametrize(("pictures", "size"), [([(640, 400)], (80, 48)), ([(640, 400), (400, 640)], (64, 64)), ([(10, 30)], (48, 80))])
def test_pictures_are_cut_to_the_size_of_the_nearest_aspect_ratio(pictures: list[Size], size: Size) -> None:
    assert nearest_bucket(config(), pictures) == size


def test_a_shard_is_of_one_size_and_no_larger_than_asked() -> None:
    shards = cut_into_shards(config(prompts_per_shard=7), PROMPTS)
    assert sorted(prompt for shard in shards for prompt in shard) == sorted(PROMPTS)
    assert all(len({bucket_of(config(), prompt) for prompt in shard}) == 1 and len(shard) <= 7 for shard in shards)


@pytest.mark.parametrize("once", [False, True])
def test_branching_noise_is_shared_up_to_the_branch_and_own_from_there_or_there_alone(once: bool) -> None:
    """Of two images of one prompt that part at step 2, in a grid whose second step is not random and so draws nothing."""
    stochastic = [True, False, True, True]
    streams = BranchingStreams([("shared",), ("shared",)], [("own", 0), ("own", 1)], branches=[2, 2], stochastic=stochastic, once=once)
    first, *later = (streams.draw((3,)) for _ in range(3))
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[:1], NoiseStreams([("shared",)]).draw((3,)))
    own = NoiseStreams([("own", 0), ("own", 1)])
    own.draw((3,))
    branching, last = later
    assert torch.equal(branching, own.draw((3,)))
    assert torch.equal(last[0], last[1]) if once else torch.equal(last, own.draw((3,)))
