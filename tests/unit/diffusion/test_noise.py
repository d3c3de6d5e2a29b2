"""Noise by identity."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3po.diffusion.noise import NoiseStreams, seeded

identities = st.lists(st.tuples(st.integers(0, 3), st.text(max_size=3), st.integers(0, 3)), min_size=1, max_size=5, unique=True)


def test_one_identity_has_one_stream() -> None:
    first, second = seeded(3, "step", 0, "a cat", 1), seeded(3, "step", 0, "a cat", 1)
    assert torch.equal(torch.randn(5, generator=first), torch.randn(5, generator=second))


@pytest.mark.parametrize(
    "other", [(4, "step", 0, "a cat", 1), (3, "start", 0, "a cat", 1), (3, "step", 0, "a cat", 2), (3, "step", 0, "a cat")]
)
def test_another_identity_has_another_stream(other: tuple[int | str, ...]) -> None:
    ours = torch.randn(5, generator=seeded(3, "step", 0, "a cat", 1))
    assert not torch.allclose(ours, torch.randn(5, generator=seeded(*other)))


def test_stream_does_not_depend_on_the_global_generator() -> None:
    torch.manual_seed(0)
    first = NoiseStreams([(1, "x")]).draw((4,))
    torch.manual_seed(1)
    assert torch.equal(first, NoiseStreams([(1, "x")]).draw((4,)))


def test_drawing_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    NoiseStreams([(1, "x"), (2, "y")]).draw((4,))
    assert torch.equal(torch.randn(3), expected)


@settings(max_examples=30, deadline=None)
@given(identities)
def test_row_is_the_same_whoever_else_is_in_the_batch(who: list[tuple[int, str, int]]) -> None:
    together = NoiseStreams(who)
    first, second = together.draw((2, 3)), together.draw((2, 3))
    for row, identity in enumerate(who):
        alone = NoiseStreams([identity])
        assert torch.equal(alone.draw((2, 3))[0], first[row])
        assert torch.equal(alone.draw((2, 3))[0], second[row])


def test_noise_is_standard_normal() -> None:
    noise = NoiseStreams([("seed", i) for i in range(200)]).draw((100,))
    count = noise.numel()
    assert abs(float(noise.mean())) < 4 / count**0.5
    assert abs(float(noise.var()) - 1) < 4 * (2 / count) ** 0.5
    between = float((noise[::2] * noise[1::2]).mean())
    assert abs(between) < 4 / (count / 2) ** 0.5
