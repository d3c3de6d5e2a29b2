"""Guards: each detects one way in which preference training fails, and says why it fired and what to change.

Their thresholds come from runs that were made to fail on purpose and from healthy runs (docs/experiments.md).
"""

from dataclasses import dataclass

from d3po.config import Guards
from d3po.objectives.base import Objective, PairObjective
from d3po.training.trainer import Metrics

KLS = {"kl": "reference", "kl_to_pretrained": "pretrained model"}
"""The metrics that the guard on the KL reads, with the policy that each KL is to."""
FALLEN = 3.0
"""The guard `winner_falling` fires where the winners' implicit reward is below minus this. As a Bradley-Terry preference that is sigmoid(-3), about 1 in 20."""
FLAT = 0.1
"""A loss that can change by less than this, in nats, has a curve that shows nothing."""
CLEARLY_UP = 0.6
"""The win rate by the trained reward from which the guard `over_optimised` considers that reward raised."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A guard that fired."""

    guard: str
    message: str
    stops: bool
    """Whether the round must not be kept: the run ends or is rolled back, as `guards.action` says."""


def check_settings(objective: Objective) -> list[Alarm]:
    """Check the settings before training. These guards only warn, since the published settings have a flat loss and train nevertheless."""
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
    """Check the base model's held-out pictures, before anything is trained."""
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
    """Check the metrics of one update."""
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
    """Check how the metrics changed over one round's updates; `reward_scale` is the objective's."""
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
    """Check that winners do not become unlikely while the margin grows, which happens when losers are pushed away and take the winners along.

    A small fall is normal: any policy that moves away from the reference makes the reference's samples less likely, winners included, by its KL. Log-ratios
    are scaled as in the loss (`reward_scale`), so that one threshold serves sums and means, steps and denoising errors. Without a reference the scale is 0
    and the guard never fires.
    """
    margin, winners = last["margin"], last["winner_log_ratio"]
    grows, falls = margin > first["margin"], winners < first["winner_log_ratio"]
    if not (grows and falls and -winners > margin and -reward_scale * winners > FALLEN):
        return []
    return [
        _alarm(
            "winner_falling",
            f"the margin grew to {margin:.3g} while the winners' log-ratio fell to {winners:.3g}, an implicit reward of {reward_scale * winners:.2g}, "
            f"below -{FALLEN:g}: losers are pushed away and take the winners along. Lower training.learning_rate or train fewer epochs",
            guards,
        )
    ]


def check_evaluation(
    guards: Guards, *, diversity_kept: float, checkerboard_ratio: float, win_rate: float = 0.5, held_out_win_rate: float | None = None
) -> list[Alarm]:
    """Check the evaluation pictures against those of the base model.

    Args:
        guards: thresholds.
        diversity_kept: diversity as a share of the base model's.
        checkerboard_ratio: checkerboard energy as a multiple of the base model's.
        win_rate: win rate against the base model by the reward that is trained on.
        held_out_win_rate: the same by `evaluation.held_out_reward`; None if there is none.
    """
    alarms: list[Alarm] = []
    if held_out_win_rate is not None and win_rate >= CLEARLY_UP and held_out_win_rate < guards.min_held_out:
        alarms.append(
            _alarm(
                "over_optimised",
                f"the trained reward prefers the new pictures in {win_rate:.0%} of cases, the held-out reward in {held_out_win_rate:.0%}, below "
                f"guards.min_held_out = {guards.min_held_out:.0%}: the policy is learning to exploit its reward. Stop earlier, raise the objective's beta, "
                "or combine both rewards in feedback.reward",
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
