"""The guards' default thresholds, held against real runs: healthy ones raise no alarm, those made to fail raise theirs."""

import json
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


def test_there_are_twenty_healthy_runs_and_one_sick_of_each_kind() -> None:
    assert len(HEALTHY) >= 20
    assert {run["label"] for run in SICK} >= {"kl", "diversity", "clip_saturated", "winner_falling", "over_optimised"}


@pytest.mark.parametrize("run", HEALTHY, ids=lambda run: run["run"])
def test_a_healthy_run_raises_no_alarm(run: dict[str, Any]) -> None:
    assert alarms(run) == set()


@pytest.mark.parametrize("run", SICK, ids=lambda run: run["label"])
def test_a_sick_run_is_caught(run: dict[str, Any]) -> None:
    assert run["label"] in alarms(run)
