"""The KL of a run's updates is that to the policy its objective compares with, in every round, whoever sampled."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from d3po.artifacts.checkpoints import under
from d3po.diffusion.divergence import kl_of_steps
from d3po.run.feedback.measured import compare_round
from d3po.run.folder import RunFolder
from d3po.run.opened import open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.starting import settings_for_objective
from d3po.run.train.phase import train_round
from d3po.run.train.reference import reference_kind
from d3po.run.train.states import moving_average_in
from d3po.training.data import step_batch
from d3po.training.likelihood import DenoisingLikelihood, StepTerms, TrajectoryLikelihood, prompt_indices
from d3po.training.reference import swapped_weights
from tests.precision import BOUND, IN_FLOAT64, assert_same

SETTINGS = IN_FLOAT64 | {"rounds": "3", "sampling.steps": "4", "sampling.prompts_per_round": "2", "training.epochs": "2"}


def trained(session: Session, round: int) -> None:
    sample_round(session, round)
    compare_round(session.run, round)
    train_round(session, round)


def reference_by_checkpoints(session: Session, round: int) -> AbstractContextManager[None]:
    """Within it the policy is the round's reference, read off the checkpoint before it."""
    if round == 0 or reference_kind(session.run) == "fixed":
        return session.policy.without_adapter()
    before = session.run.finals()[round - 1].load()[0]
    weights = under("policy.", before) if reference_kind(session.run) == "per_round" else moving_average_in(before)
    assert weights
    return swapped_weights(session.policy, weights)


@pytest.mark.parametrize(
    ("settings", "follows"),
    [
        ({"objective.reference": "fixed"}, False),
        ({"objective.reference": "per_round"}, True),
        ({"objective.reference": "ema", "objective.log_prob": "sum"}, False),
        (settings_for_objective("d3po_branch") | {"objective.reference": "ema"}, False),
        (settings_for_objective("dpok"), True),
    ],
    ids=["fixed", "per_round", "ema", "d3po_branch", "dpok"],
)
def test_the_kl_is_that_of_the_two_gaussians(
    make_run: Callable[..., RunFolder], settings: dict[str, str], follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`follows`: each round's sampler is its reference, so that its first update has moved nowhere."""
    folder = make_run(settings=SETTINGS | {"sampling.guidance": "7.5"} | settings)
    session = Session(open_run(folder))
    read, apart = TrajectoryLikelihood.read, list[tuple[int, float]]()

    def checked(reader: TrajectoryLikelihood, groups: Any, condition: Any, steps: Any, noise_key: Any, **more: Any) -> StepTerms:
        x_t, per_image = step_batch(groups, steps).x_t, condition.select(prompt_indices(groups))
        with torch.no_grad():
            mine = session.replay.step(session.policy, x_t, steps, per_image)
            with reference_by_checkpoints(session, noise_key[1]):
                theirs = session.replay.step(session.policy, x_t, steps, per_image)
        evidence = read(reader, groups, condition, steps, noise_key, **more)
        assert evidence.drift is not None
        kl = kl_of_steps(mine, theirs).view_as(evidence.drift)
        assert_same(evidence.drift, kl)
        apart.append((noise_key[1], kl.mean().item()))
        return evidence

    monkeypatch.setattr(TrajectoryLikelihood, "read", checked)
    for round in range(3):
        trained(session, round)
    session.close()
    assert all(max(kl for number, kl in apart if number == round) > 1e-3 for round in range(3))
    lines = folder.read_metrics()
    assert [line["kl"] > 1e-6 for line in lines if line["update"] == 0] == [False, not follows, not follows]
    if "kl_to_pretrained" in lines[0]:
        assert all(line["kl_to_pretrained"] == pytest.approx(line["kl"], rel=BOUND, abs=BOUND) for line in lines if line["round"] == 0)


def test_pictures_are_measured_against_the_reference_of_their_round(
    make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(settings=SETTINGS | {"rounds": "2"} | settings_for_objective("diffusion_dpo") | {"objective.reference": "ema"})
    session = Session(open_run(folder))
    read = DenoisingLikelihood.read

    def checked(reader: DenoisingLikelihood, groups: Any, condition: Any, steps: Any, noise_key: Any, **more: Any) -> StepTerms:
        if noise_key[1]:
            with reader._reference():
                theirs = session.policy.state()
            with reference_by_checkpoints(session, noise_key[1]):
                expected = session.policy.state()
            assert all(torch.equal(theirs[name], value) for name, value in expected.items())
        return read(reader, groups, condition, steps, noise_key, **more)

    monkeypatch.setattr(DenoisingLikelihood, "read", checked)
    for round in range(2):
        trained(session, round)
    assert all("kl" in line for line in folder.read_metrics())
    session.close()
