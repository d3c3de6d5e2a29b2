"""What a run does when a guard fires: it warns, goes back, or stops."""

from collections.abc import Callable

import pytest
import torch

from d3po.artifacts.checkpoints import list_checkpoints
from d3po.cli import INTERRUPTED
from d3po.run.folder import RunFolder
from d3po.run.opened import final_checkpoints, open_run
from d3po.run.session import Session
from d3po.run.train.rollback import roll_back
from tests.e2e.conftest import d3po

MakeRun = Callable[..., RunFolder]
SICK = {
    "sampling.prompts_per_round": "2",
    "evaluation.prompts": "1",
    "training.epochs": "1",
    "training.learning_rate": "1e-1",
    "guards.max_kl": "1e-6",
}


def weights(run: RunFolder, round: int) -> dict[str, torch.Tensor]:
    tensors, _ = [c for c in list_checkpoints(run.checkpoints) if c.round == round and c.final][-1].load()
    return {name: value for name, value in tensors.items() if name.startswith("policy.")}


def test_a_round_that_a_guard_refuses_is_undone_and_the_run_goes_on_with_smaller_steps(make_run: MakeRun) -> None:
    run = make_run(settings=SICK | {"guards.action": "rollback", "training.target_kl": "0.0"})
    done = d3po("run", run.path)
    assert done.returncode == 0, done.stderr
    assert "round 0 is undone" in done.stdout
    assert all(value.abs().sum() == 0 for name, value in weights(run, 0).items() if "lora_B" in name), "the policy is the base model again"
    rates = {line["round"]: line["learning_rate"] for line in run.read_metrics()}
    assert rates[1] == 0.5 * rates[0]
    assert "result after 0 rounds" in done.stdout
    assert "<h2>Guards</h2>" in run.report.read_text()
    again = d3po("run", run.path)
    assert again.returncode == 0
    assert "is undone" not in again.stdout, "what was undone is not trained again"


def test_an_evaluation_that_a_guard_refuses_undoes_its_round(make_run: MakeRun) -> None:
    settings = SICK | {
        "guards.action": "rollback",
        "guards.max_kl": "1e9",
        "guards.max_checkerboard": "1e-9",
        "training.learning_rate": "1e-3",
    }
    run = make_run(settings=settings)
    done = d3po("run", run.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is undone") == 2
    undone = final_checkpoints(run)[1]
    assert all(value.abs().sum() == 0 for name, value in weights(run, 1).items() if "lora_B" in name)
    undone.path.unlink()
    assert any(value.abs().sum() > 0 for name, value in weights(run, 1).items() if "lora_B" in name), "the refused policy is still there"
    again = d3po("run", run.path)
    assert again.returncode == 0, again.stderr
    assert "is undone" not in again.stdout
    assert final_checkpoints(run)[1].update == undone.update
    assert all(value.abs().sum() == 0 for name, value in weights(run, 1).items() if "lora_B" in name)


def test_a_rollback_that_is_killed_halfway_is_finished_by_the_next_command(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(settings=SICK | {"guards.action": "rollback", "rounds": "1"})

    def killed(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("d3po.run.train.rollback.save_state", killed)
        assert d3po("run", run.path).returncode == INTERRUPTED
    assert not final_checkpoints(run)
    updates = run.read_metrics()
    done = d3po("train", run.path)
    assert done.returncode == 0, done.stderr
    assert run.read_metrics() == updates, "what was refused is not trained again"
    assert all(value.abs().sum() == 0 for name, value in weights(run, 0).items() if "lora_B" in name)


def test_a_round_refused_for_its_course_does_not_stand(make_run: MakeRun) -> None:
    """Clipped at once, so that momentum alone goes on pushing losers and winners down."""
    clipped = {"objective.d3po.clip": "two_sided", "objective.d3po.clip_range": "1e-9", "guards.max_kl": "1e9"}
    run = make_run(settings=SICK | clipped | {"guards.action": "stop", "rounds": "1", "training.epochs": "2", "sampling.steps": "2"})
    done = d3po("run", run.path)
    assert done.returncode == 0, done.stderr
    assert "stopped by a guard; the result is the policy after 0 rounds: the margin grew" in done.stdout
    assert len(run.read_metrics()) == 4


@pytest.mark.drawn
def test_a_held_out_reward_is_measured_and_never_trained_on(make_run: MakeRun) -> None:
    settings = SICK | {
        "guards.action": "warn",
        "rounds": "1",
        "evaluation.held_out_reward": "colourfulness",
        "training.learning_rate": "1e-3",
    }
    run = make_run(settings=settings)
    done = d3po("run", run.path)
    assert done.returncode == 0, done.stderr
    assert "held-out reward" in done.stdout
    assert "held-out reward" in run.report.read_text()


def test_what_is_undone_takes_the_moving_reference_back_with_it(make_run: MakeRun) -> None:
    settings = SICK | {"guards.action": "warn", "guards.max_kl": "1e9", "objective.reference": "ema", "training.learning_rate": "1e-2"}
    run = make_run(settings=settings)
    assert d3po("run", run.path).returncode == 0
    session = Session(open_run(run))
    roll_back(session, 1, "a test")
    first, undone = (final.load()[0] for final in session.run.finals())
    session.close()
    kept = {name for name in first if name.startswith("reference.")}
    assert kept
    assert all(torch.equal(first[name], undone[name]) for name in first)
