"""Guards: each names a way in which preference training fails, says why it fired, and what to change."""

from dataclasses import dataclass

from d3po.config import Guards
from d3po.training.trainer import Metrics

NOTABLE = 1e-3
"""Log-ratios smaller than this are noise, not a direction."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A guard that fired."""

    guard: str
    message: str
    stops: bool


def check_update(metrics: Metrics, guards: Guards) -> list[Alarm]:
    """Guards on one update's metrics."""
    alarms: list[Alarm] = []
    worst = max((value for key, value in metrics.items() if key.startswith("kl/")), default=metrics.get("kl", 0.0))
    if worst > guards.max_kl:
        alarms.append(
            _alarm(
                "kl",
                f"KL to the reference is {worst:.3g} nats per dimension, above guards.max_kl = {guards.max_kl}: the policy has left the "
                "region its comparisons speak about. Lower training.learning_rate, or raise objective.beta",
                guards,
            )
        )
    return alarms


def check_round(updates: list[Metrics]) -> list[Alarm]:
    """Guards on the course of one round; they only warn."""
    if len(updates) < 4:
        return []
    half = len(updates) // 2
    first, last = _mean(updates[:half]), _mean(updates[half:])
    falling = last["winner_log_ratio"] < min(-NOTABLE, first["winner_log_ratio"])
    if falling and last["margin"] > first["margin"] and -last["winner_log_ratio"] > last["margin"]:
        return [
            Alarm(
                guard="winner_falling",
                message=f"the margin grew to {last['margin']:.3g} while the winners' own log-ratio fell to {last['winner_log_ratio']:.3g}: "
                "losers are pushed away faster than winners are learnt. Lower training.learning_rate or train fewer epochs",
                stops=False,
            )
        ]
    return []


def check_evaluation(diversity_kept: float, checkerboard_ratio: float, guards: Guards) -> list[Alarm]:
    """Guards on what the pictures have become, as ratios to the base model's."""
    alarms: list[Alarm] = []
    if diversity_kept < guards.min_diversity:
        alarms.append(
            _alarm(
                "diversity",
                f"images of one prompt keep {diversity_kept:.0%} of the base model's diversity, below guards.min_diversity = "
                f"{guards.min_diversity:.0%}: the policy is collapsing onto a few pictures. Train fewer rounds or raise objective.beta",
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
    return Alarm(guard=guard, message=message, stops=guards.action == "stop")


def _mean(updates: list[Metrics]) -> Metrics:
    return {key: sum(update[key] for update in updates) / len(updates) for key in ("margin", "winner_log_ratio")}
