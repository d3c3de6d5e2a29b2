"""Each guard fires on its own failure and is silent otherwise."""

import pytest

from d3po.config import Guards, RunConfig, override
from d3po.objective_settings import ObjectiveName
from d3po.objectives.registry import build
from d3po.recipes import load_recipe
from d3po.training.guards import check_base, check_evaluation, check_round, check_settings, check_update

GUARDS = Guards(max_kl=0.05, min_diversity=0.6, max_checkerboard=1.6, action="stop")


def course(margins: list[float], winners: list[float]) -> list[dict[str, float]]:
    return [{"margin": m, "winner_log_ratio": w, "clip_fraction": 0.1} for m, w in zip(margins, winners, strict=True)]


def test_a_healthy_update_and_a_healthy_evaluation_raise_no_alarm() -> None:
    assert check_update({"kl": 0.01, "kl/early": 0.02, "kl/late": 0.01}, GUARDS) == []
    assert check_evaluation(GUARDS, diversity_kept=0.9, checkerboard_ratio=1.1) == []


def test_kl_is_watched_in_every_band() -> None:
    (alarm,) = check_update({"kl": 0.03, "kl/early": 0.0, "kl/late": 0.09}, GUARDS)
    assert alarm.stops
    assert "0.09" in alarm.message
    assert "guards.max_kl" in alarm.message


def test_kl_to_the_pretrained_model_is_watched_too() -> None:
    (alarm,) = check_update({"kl": 0.03, "kl/late": 0.03, "kl_to_pretrained": 0.04, "kl_to_pretrained/late": 0.08}, GUARDS)
    assert "KL to the pretrained model is 0.08" in alarm.message


def test_lost_diversity_and_checkerboards_are_told_apart() -> None:
    assert [alarm.guard for alarm in check_evaluation(GUARDS, diversity_kept=0.5, checkerboard_ratio=1.0)] == ["diversity"]
    assert [alarm.guard for alarm in check_evaluation(GUARDS, diversity_kept=0.9, checkerboard_ratio=2.0)] == ["checkerboard"]


def test_a_falling_winner_is_named_only_when_the_margin_hides_it() -> None:
    sick = course([0.0, 1.0, 4.0, 5.0], [0.0, -1.0, -35.0, -40.0])
    learning = course([0.0, 1.0, 4.0, 5.0], [0.0, 0.5, 2.0, 3.0])
    apart = course([0.0, 1.0, 80.0, 90.0], [0.0, -1.0, -35.0, -40.0])
    assert [alarm.guard for alarm in check_round(sick, GUARDS, reward_scale=0.1)] == ["winner_falling"]
    assert check_round(learning, GUARDS, reward_scale=0.1) == []
    assert check_round(apart, GUARDS, reward_scale=0.1) == []


@pytest.mark.parametrize(
    ("name", "beta", "unit", "fires"),
    [
        ("d3po", 0.1, 1.0, True),
        ("d3po", 0.02, 1.0, False),
        ("ipo_step", 10.0, 0.01, True),
        ("diffusion_dpo", 5000.0, 1e-4, True),
        ("diffusion_dpo", 500.0, 1e-4, False),
        ("kto", 1000.0, 1e-4, True),
        ("mapo", 0.1, 1.0, False),
        ("sft", 0.0, 1.0, False),
        ("reward_weighted", 0.0, 1.0, False),
    ],
)
def test_how_far_winners_fell_is_read_as_the_loss_reads_it(name: ObjectiveName, beta: float, unit: float, fires: bool) -> None:
    """Log-ratios of sums are hundreds of times those of means, and those of denoising errors smaller still; without a reference they are no log-ratios."""
    objective = build(name, **({"beta": beta} if beta else {}))
    falling = course([0.0, unit, 4 * unit, 5 * unit], [0.0, -unit, -35 * unit, -40 * unit])
    assert [alarm.guard for alarm in check_round(falling, GUARDS, reward_scale=objective.reward_scale)] == ["winner_falling"] * fires


def test_a_round_whose_gradients_are_cut_off_is_named() -> None:
    saturated = [{"margin": 0.1, "winner_log_ratio": 0.1, "clip_fraction": share} for share in (0.1, 0.5, 0.95, 0.97)]
    assert [alarm.guard for alarm in check_round(saturated, GUARDS, reward_scale=0.1)] == ["clip_saturated"]
    assert check_round([line | {"clip_fraction": 0.4} for line in saturated], GUARDS, reward_scale=0.1) == []


@pytest.mark.parametrize("action", ["warn", "rollback", "stop"])
def test_every_guard_on_a_round_does_what_the_action_says(action: str) -> None:
    guards = Guards.model_validate({"action": action})
    course_of_all = [
        {"margin": margin, "winner_log_ratio": -10 * margin, "clip_fraction": 1.0, "kl": 1.0, "kl/late": 1.0}
        for margin in (0.0, 1.0, 4.0, 5.0)
    ]
    alarms = [
        *check_update(course_of_all[-1], guards),
        *check_round(course_of_all, guards, reward_scale=1.0),
        *check_evaluation(guards, diversity_kept=0.1, checkerboard_ratio=9.0, win_rate=0.9, held_out_win_rate=0.0),
        *check_base(guards, diversity=0.0),
    ]
    assert {alarm.guard for alarm in alarms} == {
        "kl", "winner_falling", "clip_saturated", "over_optimised", "diversity", "checkerboard", "all_alike",
    }  # fmt: skip
    assert {alarm.stops for alarm in alarms} == {action != "warn"}


@pytest.mark.parametrize(("trained", "held_out", "fires"), [(0.9, 0.2, True), (0.9, 0.5, False), (0.5, 0.2, False), (0.9, None, False)])
def test_a_judge_that_is_being_fooled_is_seen_by_another(trained: float, held_out: float | None, fires: bool) -> None:
    alarms = check_evaluation(GUARDS, diversity_kept=1.0, checkerboard_ratio=1.0, win_rate=trained, held_out_win_rate=held_out)
    assert [alarm.guard for alarm in alarms] == ["over_optimised"] * fires


def test_a_loss_that_cannot_move_is_foretold() -> None:
    def alarms(config: RunConfig) -> list[str]:
        objective = build(config.objective.name, **config.objective.settings.model_dump())
        return [f"{alarm.guard}: {alarm.message}" for alarm in check_settings(objective)]

    (message,) = alarms(load_recipe("paper"))
    assert message.startswith("flat_loss: ")
    assert "0.683 and 0.703" in message
    assert alarms(load_recipe("default")) == []
    assert alarms(override(load_recipe("paper"), {"objective.d3po.beta": "10"}, where="test")) == []


def test_a_base_model_of_different_pictures_raises_nothing() -> None:
    assert check_base(GUARDS, diversity=1e-6) == []
