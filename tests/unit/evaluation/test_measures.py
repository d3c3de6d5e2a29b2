"""Measures of sets of pictures: known values, and what they must not see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3po.evaluation.measures import checkerboard_energy, diversity, share


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=shape)


def board(size: int = 8) -> np.ndarray:
    """A 2x2 checkerboard of black and white."""
    return np.repeat((np.indices((size, size)).sum(axis=0) % 2).astype(float)[..., None], 3, axis=-1)


def test_equal_pictures_have_no_diversity() -> None:
    assert diversity(np.repeat(noise(3, 1, 8, 8, 3), 4, axis=1)) == 0


def test_a_share_of_nothing_is_one() -> None:
    assert (share(0.0, 0.0), share(3.0, 0.0), share(1.0, 2.0), share(0.0, 2.0)) == (1, 1, 0.5, 0)


def test_black_and_white_are_one_apart() -> None:
    pictures = np.stack([np.zeros((8, 8, 3)), np.ones((8, 8, 3))])[None]
    assert diversity(pictures) == 1


def test_diversity_of_three_greys_computed_by_hand() -> None:
    """Pairs of 0, 0.3 and 1 lie 0.3, 1 and 0.7 apart: 2/3 on average."""
    pictures = np.array([0.0, 0.3, 1.0]).reshape(1, 3, 1, 1, 1) * np.ones((1, 3, 4, 4, 3))
    assert diversity(pictures) == pytest.approx(2 / 3)


def test_diversity_is_within_prompts_not_between_them() -> None:
    black_prompt, white_prompt = np.zeros((1, 2, 4, 4, 3)), np.ones((1, 2, 4, 4, 3))
    assert diversity(np.concatenate([black_prompt, white_prompt])) == 0


def test_order_of_images_does_not_matter() -> None:
    pictures = noise(2, 4, 8, 8, 3)
    assert diversity(pictures[:, ::-1]) == pytest.approx(diversity(pictures))


@given(low=st.floats(0, 1), right=st.floats(-0.1, 0.1), down=st.floats(-0.1, 0.1))
def test_plain_and_graded_pictures_have_no_checkerboard(low: float, right: float, down: float) -> None:
    y, x = np.indices((8, 8))[..., None]
    picture = (low + right * x + down * y) * np.ones(3)
    assert checkerboard_energy(picture) == pytest.approx(0, abs=1e-20)


def test_full_checkerboard_has_energy_one() -> None:
    """Each 2x2 detail is +-(1 - 0 - 0 + 1) = +-2; squared and over 4."""
    assert checkerboard_energy(board()) == 1


@given(st.floats(0.01, 1))
def test_energy_grows_with_the_square_of_the_pattern(strength: float) -> None:
    assert checkerboard_energy(strength * board()) == pytest.approx(strength**2)


def test_pattern_is_found_at_every_offset_and_in_a_stack_of_pictures() -> None:
    assert checkerboard_energy(board(9)[1:, :]) == checkerboard_energy(board(9)[:, 1:]) == 1
    assert checkerboard_energy(np.stack([board(), np.zeros((8, 8, 3))])[None]) == 0.5


def test_stripes_are_no_checkerboard() -> None:
    stripes = np.repeat((np.indices((8, 8))[0] % 2).astype(float)[..., None], 3, axis=-1)
    assert checkerboard_energy(stripes) == 0
