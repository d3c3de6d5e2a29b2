"""How far a reward has moved, in standard deviations of the base model's pictures."""

import math

import numpy as np
import pytest

from d3po.experiments.results import gain


def test_gain_by_hand() -> None:
    assert gain(np.array([[3.0, 5.0]]), np.array([[0.0, 2.0]])) == pytest.approx(3.0)


@pytest.mark.parametrize("count", range(2, 13))
def test_a_base_that_is_scored_alike_gives_no_unit(count: int) -> None:
    """Of twelve times 0.1 the standard deviation is 1e-17, not 0."""
    assert math.isnan(gain(np.ones((1, count)), np.full((1, count), 0.1)))
