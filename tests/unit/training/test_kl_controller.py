"""The brake: the learning rate falls as the policy nears its target KL."""

import pytest

from d3po.training.kl_controller import LEAST_SHARE, MEMORY, KLController


def test_without_a_target_nothing_brakes() -> None:
    assert KLController(target=0.0).share(1e6) == 1


def test_one_update_counts_by_what_the_memory_lets_in() -> None:
    assert KLController(target=0.01).share(0.005) == pytest.approx(1 - (1 - MEMORY) * 0.5)


def test_a_lasting_kl_brakes_in_proportion_and_never_to_a_halt() -> None:
    half, beyond = KLController(target=0.01), KLController(target=0.01)
    for _ in range(99):
        half.share(0.005)
        beyond.share(0.02)
    assert half.share(0.005) == pytest.approx(0.5)
    assert beyond.share(0.02) == LEAST_SHARE


def test_a_policy_that_came_back_is_let_go() -> None:
    brake = KLController(target=0.01, kl=0.01)
    for _ in range(99):
        brake.share(0.0)
    assert brake.share(0.0) == pytest.approx(1)
