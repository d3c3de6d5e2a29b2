"""The guards' default thresholds, held against real runs: healthy ones raise no alarm, those made to fail raise theirs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from d3po.config import Guards
from d3po.training.guards import check_evaluation, check_round, check_update

RUNS = [json.loads(line) for line in Path(__file__).with_name("guard_runs.jsonl").read_text().splitlines()]
SICK = [run for run in RUNS if run["label"] != "healthy"]
HEALTHY = [run for run in RUNS if run["label"] == "healthy"]


def alarms(run: dict[str, Any]) -> set[str]:
    guards = Guards()
    raised = [alarm for round in run["rounds"] for update in round["updates"] for alarm in check_update(update, guards)]
    raised += [alarm for round in run["rounds"] for alarm in check_round(round["updates"], guards, reward_scale=run["reward_scale"])]
    raised += [alarm for round in run["rounds"] if round["evaluation"] for alarm in check_evaluation(guards, **round["evaluation"])]
    return {alarm.guard for alarm in raised}


def illnesses(run: dict[str, Any]) -> set[str]:
    """The guards that it was made to set off; others may speak too."""
    return set(run["label"].split("+"))


def test_there_are_many_healthy_runs_and_two_sick_ones_of_each_kind() -> None:
    assert len(HEALTHY) >= 60
    kinds = Counter(illness for run in SICK for illness in illnesses(run))
    assert kinds.keys() >= {"kl", "diversity", "clip_saturated", "winner_falling", "over_optimised"}
    assert min(kinds.values()) >= 2


def test_among_the_healthy_are_runs_that_clip_and_runs_with_a_held_out_judge() -> None:
    """Else nothing would be known of these guards' false alarms."""
    clipping = [run for run in HEALTHY if any(update["clip_fraction"] > 0 for round in run["rounds"] for update in round["updates"])]
    judged = [run for run in HEALTHY if any((round["evaluation"] or {}).get("held_out_win_rate") for round in run["rounds"])]
    assert len(clipping) >= 5
    assert len(judged) >= 20


def test_the_line_of_the_kl_lies_between_runs_of_either_kind_that_have_measured_it() -> None:
    """Lines that were recorded before the figure was the KL hold none."""
    healthy, sick = worst_kls(HEALTHY), worst_kls([run for run in SICK if "kl" in illnesses(run)])
    assert (len(healthy) >= 20, len(sick) >= 10) == (True, True)
    assert max(healthy) < Guards().max_kl < min(sick) / 2


def worst_kls(runs: list[dict[str, Any]]) -> list[float]:
    """Of each run, the largest KL that the guard would read."""
    read = [
        [value for round in run["rounds"] for update in round["updates"] for key, value in update.items() if key.startswith("kl")]
        for run in runs
    ]
    return [max(values) for values in read if values]


@pytest.mark.parametrize("run", HEALTHY, ids=lambda run: run["run"])
def test_a_healthy_run_raises_no_alarm(run: dict[str, Any]) -> None:
    assert alarms(run) == set()


@pytest.mark.parametrize("run", SICK, ids=lambda run: f"{run['label']}: {run['run']}")
def test_a_sick_run_is_caught(run: dict[str, Any]) -> None:
    assert illnesses(run) <= alarms(run)
