"""Two processes make what one makes, a killed one ends the run with a word, and the run goes on in as many processes as one likes."""

import os
import signal
import subprocess
import time
from collections.abc import Callable

import psutil
import pytest
import torch
from torch import Tensor

from d3po.artifacts.checkpoints import list_checkpoints
from d3po.artifacts.shards import Shard
from d3po.errors import RunEndedError
from d3po.run.feedback.measured import compare_round
from d3po.run.folder import RunFolder
from d3po.run.opened import OpenRun, final_checkpoints, open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.train.dataset import load_round, share_references
from d3po.run.train.phase import train_round
from d3po.run.train.reference import References
from tests.e2e.conftest import command, d3po, environment
from tests.precision import IN_FLOAT64, assert_all_same, assert_same

SETTINGS = {
    "rounds": "2",
    "sampling.steps": "3",
    "sampling.images_per_prompt": "2",
    "sampling.prompts_per_shard": "1",
    "training.epochs": "5",
    "training.learning_rate": "1e-4",
    "training.prompts_per_update": "2",
    "training.checkpoint_every": "4",
    "evaluation.prompts": "1",
}
UPDATES = 10
"""Of a round."""
TOGETHER = "round-001-update-000004"
"""Of the checkpoint that two processes reach before one of them is killed."""


def alone(folder: RunFolder) -> dict[str, Tensor]:
    """The weights that one process ends with, from wherever the run stands."""
    session = Session(open_run(folder))
    folder.mark_started(session.run.config)
    try:
        for round in range(session.run.trained_rounds(), session.run.config.rounds):
            sample_round(session, round)
            compare_round(session.run, round)
            train_round(session, round)
    finally:
        session.close()
    return weights(folder)


def begun_alone(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that one process leaves in the middle of its first round, past the first checkpoint."""
    updates = iter(range(UPDATES))

    def check_control(_: OpenRun) -> None:
        if next(updates) == UPDATES // 2:
            raise RunEndedError("enough")

    with monkeypatch.context() as patch:
        patch.setattr("d3po.run.train.phase.check_control", check_control)
        with pytest.raises(RunEndedError):
            alone(folder)


def weights(folder: RunFolder) -> dict[str, Tensor]:
    return {name: value for name, value in final_checkpoints(folder)[-1].load()[0].items() if name.startswith("policy.")}


def started(folder: RunFolder, processes: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", folder.path, "--num-processes", str(processes)), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment()
    )  # fmt: skip


def sampled(folder: RunFolder) -> Tensor:
    """The finished latents of the second round."""
    shards = sorted((folder.path / "rollouts" / "round-001").glob("shard-???.safetensors"))
    return torch.cat([Shard(path=path).latents(3) for path in shards])


@pytest.mark.slow
def test_a_run_goes_from_one_process_to_two_and_back_and_makes_what_one_makes(
    make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = make_run("one", SETTINGS | IN_FLOAT64), make_run("two", SETTINGS | IN_FLOAT64)
    begun_alone(two, monkeypatch)
    assert [checkpoint.update for checkpoint in list_checkpoints(two.checkpoints)] == [4]
    with started(two, 2) as launcher:
        while not list(two.checkpoints.glob(f"*{TOGETHER}*")):
            assert launcher.poll() is None, launcher.stderr and launcher.stderr.read()
            time.sleep(0.05)
        children = psutil.Process(launcher.pid).children()
        os.kill(next(child.pid for child in children if child.environ().get("RANK") == "1"), signal.SIGKILL)
        _, said = launcher.communicate(timeout=600)
    assert launcher.returncode == 1
    assert "error: process 1 of 2 was killed by SIGKILL, so the others were stopped too" in said
    assert len(final_checkpoints(two)) == 1
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    expected, result = alone(one), alone(two)
    assert_same(sampled(two), sampled(one), "noise is by identity")
    assert len(two.read_metrics()) == 2 * UPDATES
    assert_all_same(result, expected)


def test_other_commands_take_one_process(make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = d3po("sample", make_run().path)
    assert result.returncode == 2
    assert "WORLD_SIZE is 2, but only `d3po run` takes several processes" in result.stderr


def test_a_launcher_and_the_option_do_not_go_together(make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = d3po("run", make_run().path, "--num-processes", "2")
    assert result.returncode == 2
    assert "a launcher has started this one already; use one of the two" in result.stderr


def test_of_a_launchers_processes_the_first_alone_prints_the_plan(
    make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = make_run(settings=SETTINGS), list[str]()
    for rank in ("0", "1"):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        said.append(d3po("run", folder.path, "--dry-run").stdout)
    assert "forward passes" in said[0]
    assert said[1] == ""


def test_reference_log_probs_are_computed_by_shares(make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes' shares, one after the other in this process."""
    folder = make_run(settings=SETTINGS | {"training.guided": "false"})
    session = Session(open_run(folder))
    sample_round(session, 0)
    compare_round(session.run, 0)
    monkeypatch.setattr(session.run.distributed, "size", 2)
    monkeypatch.setattr(session.run.distributed, "gather", lambda item: [item])
    nothing = References(start=None, moving=None)
    for rank, made in ((0, [0, 2]), (1, [0, 1, 2, 3])):
        monkeypatch.setattr(session.run.distributed, "rank", rank)
        share_references(session, 0, nothing)
        assert sorted(int(path.name[6:9]) for path in folder.path.rglob("shard-*.reference-*")) == made
    monkeypatch.setattr("d3po.run.train.reference.reference_steps", lambda *_, **__: pytest.fail("all of them are kept"))
    groups, _ = load_round(session, 0, nothing)
    assert all(group.reference is not None and torch.isfinite(group.reference.log_probs).any() for group in groups)
    session.close()
