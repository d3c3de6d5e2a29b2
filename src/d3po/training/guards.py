"""Guards: each names a way in which preference training fails, says why it fired, and what to change.

Their thresholds come from runs that were made to fail on purpose and from healthy ones (docs/experiments.md).
"""

from dataclasses import dataclass

from d3po.config import Guards
from d3po.objectives.base import Objective, PairObjective
from d3po.training.trainer import Metrics

KLS = {"kl": "reference", "kl_to_pretrained": "pretrained model"}
"""The metrics that the guard on the KL reads, and to whom it is."""
FALLEN = 3.0
"""Winners whose implicit reward is below minus this: sigmoid(-3) says that of 20 of them the reference would draw 19 rather."""
FLAT = 0.1
"""A loss that can move by less than this, in nats, shows nothing."""
CLEARLY_UP = 0.6
"""A win rate from which the trained judge counts as pleased."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A guard that fired."""

    guard: str
    message: str
    stops: bool
    """Whether the round may not stand: the run ends or goes back, as guards.action says."""


def check_settings(objective: Objective) -> list[Alarm]:
    """Guards on what the settings make impossible; they only warn, for the published settings themselves have a flat loss, and train."""
    within = objective.loss_range if isinstance(objective, PairObjective) else None
    if within is None or within[1] - within[0] >= FLAT:
        return []
    return [
        Alarm(
            guard="flat_loss",
            message=f"with these settings of [objective] clipping keeps the loss between {within[0]:.3f} and {within[1]:.3f}: "
            "its curve stays flat by construction. Look at margin and accuracy, or set the objective's clip to 'none'",
            stops=False,
        )
    ]


def check_base(guards: Guards, *, diversity: float) -> list[Alarm]:
    """The guard on the base model's pictures, before anything is trained."""
    if diversity > 0:
        return []
    return [
        _alarm(
            "all_alike",
            "the base model's held-out pictures of one prompt are all alike (diversity 0), such as all black: nobody can compare them. Look at them; "
            "its weights or weights = 'float16' may be at fault",
            guards,
        )
    ]


def check_update(metrics: Metrics, guards: Guards) -> list[Alarm]:
    """Guards on one update's metrics."""
    alarms: list[Alarm] = []
    for key, other in KLS.items():
        worst = max((value for name, value in metrics.items() if name.startswith(f"{key}/")), default=metrics.get(key, 0.0))
        if worst > guards.max_kl:
            alarms.append(
                _alarm(
                    "kl",
                    f"KL to the {other} is {worst:.3g} nats per dimension, above guards.max_kl = {guards.max_kl}: the policy has left the "
                    "region its comparisons speak about. Lower training.learning_rate, or raise the objective's beta",
                    guards,
                )
            )
    return alarms


def check_round(updates: list[Metrics], guards: Guards, *, reward_scale: float) -> list[Alarm]:
    """Guards on the course of one round; `reward_scale` is the objective's."""
    if len(updates) < 4:
        return []
    half = len(updates) // 2
    first, last = _mean(updates[:half]), _mean(updates[half:])
    return [*_winner_falling(first, last, guards, reward_scale), *_clip_saturated(last, guards)]


def _clip_saturated(last: Metrics, guards: Guards) -> list[Alarm]:
    if last["clip_fraction"] <= guards.max_clipped:
        return []
    return [
        _alarm(
            "clip_saturated",
            f"clipping cut off {last['clip_fraction']:.0%} of the gradients in the second half of the round, above guards.max_clipped = "
            f"{guards.max_clipped:.0%}: the round has nothing left to teach. Train fewer epochs, lower training.learning_rate or raise its clip_range",
            guards,
        )
    ]


def _winner_falling(first: Metrics, last: Metrics, guards: Guards, reward_scale: float) -> list[Alarm]:
    """Winners that fall a little are no sign: any policy that moves makes what the reference sampled less likely, by its KL to it, winners too.

    Log-ratios are read as the loss reads them, so that one threshold serves sums and means, steps and denoising errors. Without a reference there is
    no such reading, and nothing fires.
    """
    margin, winners = last["margin"], last["winner_log_ratio"]
    grows, falls = margin > first["margin"], winners < first["winner_log_ratio"]
    if not (grows and falls and -winners > margin and -reward_scale * winners > FALLEN):
        return []
    return [
        _alarm(
            "winner_falling",
            f"the margin grew to {margin:.3g} while the winners' own log-ratio fell to {winners:.3g}, an implicit reward of {reward_scale * winners:.2g}, "
            f"below -{FALLEN:g}: losers are pushed away and take the winners along. Lower training.learning_rate or train fewer epochs",
            guards,
        )
    ]


def check_evaluation(
    guards: Guards, *, diversity_kept: float, checkerboard_ratio: float, win_rate: float = 0.5, held_out_win_rate: float | None = None
) -> list[Alarm]:
    """Guards on what the pictures have become, against the base model's."""
    alarms: list[Alarm] = []
    if held_out_win_rate is not None and win_rate >= CLEARLY_UP and held_out_win_rate < guards.min_held_out:
        alarms.append(
            _alarm(
                "over_optimised",
                f"the trained judge prefers the new pictures in {win_rate:.0%} of cases, the held-out one in {held_out_win_rate:.0%}, below "
                f"guards.min_held_out = {guards.min_held_out:.0%}: the policy is learning what fools its judge. Stop earlier, raise the objective's beta, "
                "or combine both judges in feedback.reward",
                guards,
            )
        )
    if diversity_kept < guards.min_diversity:
        alarms.append(
            _alarm(
                "diversity",
                f"images of one prompt keep {diversity_kept:.0%} of the base model's diversity, below guards.min_diversity = "
                f"{guards.min_diversity:.0%}: the policy is collapsing onto a few pictures. Train fewer rounds or raise the objective's beta",
                guards,
            )
        )
    if checkerboard_ratio > guards.max_checkerboard:
        alarms.append(
            _alarm(
                "checkerboard",
                f"2x2 checkerboard energy is {checkerboard_ratio:.2f} times the base model's, above guards.max_checkerboard = "
                f"{guards.max_checkerboard}: the score is being bought with an artefact. Stop here or lower training.learning_rate",
                guards,
            )
        )
    return alarms


def _alarm(guard: str, message: str, guards: Guards) -> Alarm:
    return Alarm(guard=guard, message=message, stops=guards.action != "warn")


def _mean(updates: list[Metrics]) -> Metrics:
    return {key: sum(update[key] for update in updates) / len(updates) for key in ("margin", "winner_log_ratio", "clip_fraction")}
