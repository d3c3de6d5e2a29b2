"""`d3po compare` on a tiny pipeline: a grid of runs, its tables and its page; run again it goes on; what fails stops nothing."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3po.artifacts.shards import Shard
from d3po.experiments import jobs
from d3po.experiments.jobs import Job
from d3po.run.folder import RunFolder
from tests.e2e.conftest import HELD_OUT, PROMPTS, d3po

SPEC = """
model = "{model}"
prompts = "{folder}/prompts.txt"
held_out = "{folder}/held_out.txt"
objectives = ["d3po", "kto"{more}]
rewards = ["brightness"]
held_out_rewards = ["warmth"]
seeds = [0, 1]
baseline = "d3po"

[budget]
labels = 7

[settings]
sampling = {{steps = 3, prompts_per_round = 2, images_per_prompt = 3}}
evaluation = {{prompts = 2, images_per_prompt = 2}}
adapter.targets = "attention+conv"
training = {{epochs = 1, learning_rate = 1e-2}}
guards = {{action = "warn", max_checkerboard = 1e-9}}
tracking.tensorboard = false
"""
BROKEN = ', {label = "broken", name = "d3po", settings = {feedback.tie_band = 1e9}}'


@dataclass
class Ended:
    """A process that has ended."""

    exitcode: int


@pytest.fixture
def run_cells(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cells are run in this process, which is quicker, and their names noted."""
    run: list[str] = []

    def start(job: Job) -> Ended:
        run.append(job.name)
        done = d3po(*job.arguments())
        job.log.parent.mkdir(exist_ok=True)
        job.log.write_text(done.stdout + done.stderr)
        return Ended(done.returncode)

    monkeypatch.setattr(jobs, "started", start)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.0)
    return run


@pytest.fixture
def spec(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    def write(more: str = "") -> Path:
        (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
        (tmp_path / "held_out.txt").write_text("\n".join(HELD_OUT))
        (tmp_path / "spec.toml").write_text(SPEC.format(model=tiny_model, folder=tmp_path, more=more))
        return tmp_path / "spec.toml"

    return write


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))


def test_the_guard_that_stopped_a_cell_is_named(spec: Callable[..., Path], run_cells: list[str], tmp_path: Path) -> None:
    file = spec()
    text = file.read_text().replace('["d3po", "kto"]', '["d3po"]').replace("[0, 1]", "[0]").replace('action = "warn"', 'action = "stop"')
    file.write_text(text)
    assert d3po("compare", file, tmp_path / "comparison").returncode == 0
    assert run_cells == ["d3po.brightness.0"]
    (line,) = table(tmp_path / "comparison")
    assert (line["is_stopped"], line["rounds"], line["guards"]) == ("True", "0", "checkerboard")


def test_a_grid_is_run_goes_on_and_survives_a_broken_cell(spec: Callable[..., Path], run_cells: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    first = d3po("compare", spec(), folder)
    assert first.returncode == 0, first.stderr
    assert run_cells == ["d3po.brightness.0", "kto.brightness.0", "d3po.brightness.1", "kto.brightness.1"]
    results = [line for line in table(folder) if line["is_result"] == "True"]
    assert [(line["label"], line["seed"], line["rounds"], line["labels"]) for line in results] == [
        ("d3po", "0", "1", "6"),
        ("kto", "0", "1", "6"),
        ("d3po", "1", "1", "6"),
        ("kto", "1", "1", "6"),
    ]
    assert all(float(line["held_out:warmth"]) != 0 and int(line["network_rows"]) > 0 for line in results)
    assert all(("checkerboard" in line["guards"].split()) == (line["rounds"] == "1") for line in table(folder))
    page = (folder / "comparison.html").read_text()
    assert page.count("<svg") == 2
    assert page.count("data:image/png") == 1
    assert "### Differences to d3po" in (folder / "comparison.md").read_text()
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "learning-brightness.svg",
        "pictures-brightness.png",
        "trade-brightness.svg",
    }
    check_what_cells_share(folder)

    run_cells.clear()
    again = d3po("compare", spec(more=BROKEN), folder)
    assert run_cells == ["broken.brightness.0", "broken.brightness.1"], "what is done is kept"
    assert again.returncode == 1
    assert "failed cells: 2; broken.brightness.0: error: round 0 has no comparison with a preference" in again.stderr
    assert [line for line in table(folder) if line["is_result"] == "True"] == results
    assert "broken.brightness.1: error: round 0" in (folder / "comparison.md").read_text()


def check_what_cells_share(folder: Path) -> None:
    """Prompts, starting noise and held-out noise are of the seed, whatever the objective."""
    runs = {name: RunFolder(path=folder / "runs" / name) for name in ("d3po.brightness.0", "kto.brightness.0", "d3po.brightness.1")}
    starts = {name: Shard(path=run.shard(0, 0)).latents(0).numpy() for name, run in runs.items()}
    held_out = {name: np.asarray(Image.open(run.images("held-out/base") / "000-0.png")) for name, run in runs.items()}
    for what in (starts, held_out):
        mine, other, of_another_seed = what.values()
        assert (mine == other).all()
        assert (mine != of_another_seed).any()


def test_the_plan_says_what_the_grid_will_take_and_does_nothing(spec: Callable[..., Path], tmp_path: Path) -> None:
    said = d3po("compare", spec(), tmp_path / "comparison", "--dry-run")
    assert said.returncode == 0, said.stderr
    assert [line.split()[:4] for line in said.stdout.splitlines()[1:3]] == [["d3po", "2", "1", "6"], ["kto", "2", "1", "6"]]
    assert not (tmp_path / "comparison").exists()


def test_a_held_out_reward_that_cannot_be_had_is_said_before_anything_is_run(spec: Callable[..., Path], tmp_path: Path) -> None:
    file = spec()
    file.write_text(file.read_text().replace('held_out_rewards = ["warmth"]', 'held_out_rewards = ["warmt"]'))
    refused = d3po("compare", file, tmp_path / "comparison")
    assert refused.returncode == 2
    assert "did you mean 'warmth'?" in refused.stderr
    assert not (tmp_path / "comparison" / "runs").exists()


def test_a_run_ends_after_the_round_in_which_its_time_is_up(make_run: Callable[..., RunFolder]) -> None:
    run = make_run(settings={"rounds": "5", "sampling.prompts_per_round": "2", "evaluation.prompts": "1"})
    done = d3po("run", run.path, "--minutes", "0.000001")
    assert done.returncode == 0, done.stderr
    assert {line["round"] for line in run.read_metrics()} == {0}
    assert run.report.exists()
