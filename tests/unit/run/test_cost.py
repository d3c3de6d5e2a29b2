"""What a run costs: counted by hand, and timed by a clock that the model moves."""

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from d3po.errors import PromptError
from d3po.run.cost import plan, probe
from d3po.run.cost.counting import shape_of
from d3po.run.cost.plan import plan_run, probe_run
from d3po.run.cost.probe import Probe, largest_shape
from d3po.run.feedback.measured import compare_round
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.train.phase import train_round
from tests.unit.run.conftest import SessionWith
from tests.unit.run.toy import policy_of

COST = Probe(sampling_seconds=0.5, training_seconds=2.0, decoding_seconds=0.25, peak_bytes=3_000_000)


def probed(session: Session) -> Probe:
    return probe_run(session, shape_of(session.run.config, session.policy, session.replay))


def test_a_plan_by_hand(session_with: SessionWith, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of 2 prompts and 3 images, 4 steps of which 3 have a density, each image two forward passes; evaluations of 2 pictures each."""
    monkeypatch.setattr(plan, "probe", lambda *_, **__: COST)
    made = plan_run(session_with({"rounds": "2"}, sampled=False))
    assert asdict(made) == {
        "rounds": 2,
        "images_per_round": 6,
        "pairs_per_round": 6,
        "updates_per_round": 2,
        "sampling_forwards": 2 * 6 * 4 * 2,
        "reference_forwards": 0,
        "training_forwards": 2 * 6 * 3 * 2,
        "evaluation_forwards": 3 * 2 * 4 * 2,
        "stored_bytes": 12 * (5 * 48 * 4 + 4 * 48 * 4),
        "seconds": 0.5 * (96 + 48) + 2.0 * 72 + 0.25 * (12 + 6),
        "peak_bytes": 3_000_000,
    }
    assert made.lines() == [
        "rounds               2",
        "images               6 a round, 12 in all",
        "pairs                6 a round, 12 in all",
        "updates              2 a round, 4 in all",
        "forward passes       96 sampling, 72 training, 0 training without gradient, 48 evaluating",
        "disk                 0 MB of latents",
        "memory               3 MB at the peak of a measured sampling, decoding and training step",
        "time                 3.7 min, estimated from these steps on this machine",
    ]


def test_stored_bytes_follow_the_precision(session_with: SessionWith, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents in 2 bytes; sketches are never below 4."""
    monkeypatch.setattr(plan, "probe", lambda *_, **__: COST)
    made = plan_run(session_with({"rounds": "1", "sampling.stored": "float16"}, sampled=False))
    assert made.stored_bytes == 6 * (5 * 48 * 2 + 4 * 48 * 4)


def test_too_few_prompts_are_said_before_anything_is_measured(session_with: SessionWith, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_with(sampled=False)
    monkeypatch.setattr(plan, "probe", lambda *_, **__: pytest.fail("measured"))
    (session.run.folder.path / "prompts.txt").write_text("a cat\n")
    with pytest.raises(PromptError, match=r"sampling\.prompts_per_round is 2 but there are only 1 prompts; add prompts or lower it"):
        plan_run(session)


@pytest.mark.parametrize(
    "settings",
    [
        {"sampling.prompts_per_shard": "1", "training.prompts_per_update": "2"},
        {"training.micro_batch_size": "4"},
        {"objective.name": "d3po_branch", "sampling.branch": "true"},
    ],
)
def test_what_is_measured_are_calls_of_the_sizes_that_the_run_makes(session_with: SessionWith, settings: dict[str, str]) -> None:
    session = session_with(settings, sampled=False)
    probed(session)
    calls = policy_of(session).network.calls
    (sampled, again), trained = calls[:2], calls[2:]
    assert sampled == again
    calls.clear()
    sample_round(session, 0)
    assert max(calls) == sampled
    calls.clear()
    compare_round(session.run, 0)
    train_round(session, 0)
    assert trained == [max(calls)] * 2


def test_a_row_costs_what_the_second_of_two_calls_took(session_with: SessionWith, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward pass takes 2 seconds, and an image needs two; a gradient takes 27 seconds whatever its forward passes are; a picture half a second."""
    session = session_with(sampled=False)
    policy, clock = policy_of(session), [0.0]
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    decode = policy.decode

    def spend(seconds: float) -> None:
        clock[0] += seconds

    def timed(latents: torch.Tensor) -> torch.Tensor:
        spend(0.5 * len(latents))
        return decode(latents)

    def forward(_network: object, given: tuple[Any, ...]) -> None:
        spend(2.0 * len(given[0]) if policy.network.calls else 1000.0)

    monkeypatch.setattr(policy, "decode", timed)
    policy.network.register_forward_pre_hook(forward)
    policy.network.shift.register_hook(lambda _: spend(27.0))
    cost = probed(session)
    assert cost.sampling_seconds == pytest.approx(6 * 2 / (6 * 2))
    assert cost.training_seconds == pytest.approx((9 * 2 + 27) / (9 * 2))
    assert cost.decoding_seconds == pytest.approx(0.5)
    assert policy.network.shift.grad is None or not policy.network.shift.grad.any(), "no gradient is left for the first update"
    assert not policy.state()["shift"].any()


def test_the_largest_of_the_runs_sizes_is_measured(session_with: SessionWith) -> None:
    assert largest_shape(session_with({"sampling.buckets": "[[4, 4], [6, 4]]"}, sampled=False)) == (3, 4, 6)
