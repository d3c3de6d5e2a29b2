"""Each guard fires on its own failure and is silent otherwise."""

from d3po.config import Guards
from d3po.training.guards import check_evaluation, check_round, check_update

GUARDS = Guards(max_kl=0.05, min_diversity=0.6, max_checkerboard=1.6, action="stop")


def course(margins: list[float], winners: list[float]) -> list[dict[str, float]]:
    return [{"margin": m, "winner_log_ratio": w} for m, w in zip(margins, winners, strict=True)]


def test_a_healthy_update_and_a_healthy_evaluation_raise_no_alarm() -> None:
    assert check_update({"kl": 0.01, "kl/early": 0.02, "kl/late": 0.01}, GUARDS) == []
    assert check_evaluation(0.9, 1.1, GUARDS) == []


def test_kl_is_watched_in_every_band() -> None:
    (alarm,) = check_update({"kl": 0.03, "kl/early": 0.0, "kl/late": 0.09}, GUARDS)
    assert alarm.stops
    assert "0.09" in alarm.message
    assert "guards.max_kl" in alarm.message


def test_an_action_of_warn_never_stops() -> None:
    warn = GUARDS.model_copy(update={"action": "warn"})
    assert [alarm.stops for alarm in [*check_update({"kl/late": 1.0}, warn), *check_evaluation(0.1, 9.0, warn)]] == [False] * 3


def test_lost_diversity_and_checkerboards_are_told_apart() -> None:
    assert [alarm.guard for alarm in check_evaluation(0.5, 1.0, GUARDS)] == ["diversity"]
    assert [alarm.guard for alarm in check_evaluation(0.9, 2.0, GUARDS)] == ["checkerboard"]


def test_a_falling_winner_is_named_only_when_the_margin_hides_it() -> None:
    sick = course([0.0, 0.001, 0.004, 0.005], [0.0, -0.001, -0.02, -0.03])
    healthy = course([0.0, 0.001, 0.004, 0.005], [0.0, 0.0005, 0.002, 0.003])
    noise = course([0.0, 1e-6, 2e-6, 3e-6], [0.0, -1e-6, -5e-6, -6e-6])
    assert [alarm.guard for alarm in check_round(sick)] == ["winner_falling"]
    assert check_round(healthy) == []
    assert check_round(noise) == []
