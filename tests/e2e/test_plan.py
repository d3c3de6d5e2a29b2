"""`--dry-run`: the plan counts the forward passes that a run then computes, and measures calls of the sizes that it then makes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from d3po.models.base import AbstractPolicy
from d3po.run.cost.counting import shape_of, work_of_round
from d3po.run.cost.plan import Plan, plan_run
from d3po.run.cost.probe import peak_bytes
from d3po.run.cost.spent import spent_by_round
from d3po.run.evaluate.phase import evaluate
from d3po.run.folder import RunFolder
from d3po.run.loop import run_round
from d3po.run.opened import open_run
from d3po.run.session import Session
from d3po.run.starting import settings_for_objective

SETTINGS = {
    "rounds": "2",
    "objective.reference": "fixed",
    "sampling.steps": "3",
    "sampling.prompts_per_round": "3",
    "training.epochs": "1",
    "training.micro_batch_size": "7",
    "training.prompts_per_update": "3",
    "evaluation.prompts": "1",
}


class CountedForwards:
    """Counts the forward passes of a policy's network, one an image, with and without a gradient, and the pictures that are decoded."""

    def __init__(self, policy: AbstractPolicy, patch: pytest.MonkeyPatch) -> None:
        self.total: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()
        decode = policy.decode
        policy.network.register_forward_pre_hook(self._forward)
        patch.setattr(policy, "decode", lambda latents: (self._count("decoded", len(latents)), decode(latents))[1])

    def _forward(self, module: object, arguments: tuple[Any, ...]) -> None:
        self._count("trained" if torch.is_grad_enabled() else "sampled", len(arguments[0]))

    def _count(self, what: str, count: int) -> None:
        self.total[what] += count
        self.largest[what] = max(self.largest[what], count)


def planned_and_run(session: Session) -> tuple[Plan, CountedForwards, CountedForwards]:
    """The plan, what making it cost, and what the run cost."""
    with pytest.MonkeyPatch.context() as patch:
        planning = CountedForwards(session.policy, patch)
        plan = plan_run(session)
    with pytest.MonkeyPatch.context() as patch:
        running = CountedForwards(session.policy, patch)
        evaluate(session, 0)
        for round in range(session.run.config.rounds):
            run_round(session, round)
    return plan, planning, running


def test_a_run_computes_the_forwards_that_its_plan_counts(make_run: Callable[..., RunFolder]) -> None:
    folder = make_run(settings=SETTINGS)
    session = Session(open_run(folder))
    plan, planning, running = planned_and_run(session)
    assert plan.training_forwards == running.total["trained"]
    assert plan.sampling_forwards + plan.reference_forwards + plan.evaluation_forwards == running.total["sampled"]
    assert plan.images_per_round * plan.rounds + 3 * 2 == running.total["decoded"]
    assert plan.updates_per_round * plan.rounds == len(folder.read_metrics())
    assert planning.largest == running.largest


@pytest.mark.parametrize(
    "settings",
    [
        {"objective.reference": "fixed", "training.guided": "false"},
        settings_for_objective("dpok"),
        settings_for_objective("kto"),
        settings_for_objective("mapo") | {"training.prompts_per_update": "3"},
        settings_for_objective("d3po_branch") | {"objective.reference": "per_round"},
    ],
    ids=["unguided", "dpok", "kto", "mapo", "d3po_branch"],
)
def test_the_rows_of_a_round_are_those_that_its_objective_computes(make_run: Callable[..., RunFolder], settings: dict[str, str]) -> None:
    """Counted beforehand, and by the journal as they go through the network."""
    unevaluated = {"rounds": "3", "evaluation.every_round": "false", "sampling.prompts_per_round": "2", "training.timestep_fraction": "0.5"}
    folder = make_run(settings=SETTINGS | unevaluated | settings)
    session = Session(open_run(folder))
    shape = shape_of(session.run.config, session.policy, session.replay)
    for round in (0, 1):
        run_round(session, round)
    session.run.journal.phase("done", None)
    spent = spent_by_round(session.run.store.journal.read())
    session.close()
    assert [spent[round].forwards for round in (0, 1)] == [
        work_of_round(session.run.config, shape, round).forwards.total for round in (0, 1)
    ]
    assert all(each.seconds > 0 for each in spent.values())


def test_peak_memory_is_that_of_this_process() -> None:
    before = peak_bytes()
    held = torch.ones(2**20)
    assert peak_bytes() >= before
    assert held.nbytes <= peak_bytes() < 64 * 2**30
