"""Every benchmark runs, at its smallest size: what it measures here means nothing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as table
from benchmarks import full_models, full_size, rating, rollout_cost, step_cost, store
from tests.tiny import pipelines, save_tiny_pipeline

Call = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """What a benchmark prints when it is called with these words."""

    def call(main: Callable[[], None], *words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["benchmark", *words])
        threads = torch.get_num_threads()
        main()
        torch.set_num_threads(threads)
        return capsys.readouterr().out

    return call


def test_every_figure_of_the_table_is_measured(model: Path, called: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def in_this_process(subject: str, steps: int, chosen: str) -> float:
        with rollout_cost.sampled(subject, steps // 5, chosen):
            return rollout_cost.peak()

    monkeypatch.setattr(rollout_cost, "peak_of_child", in_this_process)
    monkeypatch.setattr(rollout_cost, "TOGETHER", (2,))
    monkeypatch.setattr(step_cost, "ALL_STEPS", torch.arange(2))
    monkeypatch.setattr(step_cost, "ONE_STEP", torch.tensor([1]))
    for key, small in {"sampling.steps": "3", "sampling.images_per_prompt": "4", "sampling.prompts_per_round": "1"}.items():
        monkeypatch.setitem(step_cost.SETTINGS, key, small)
    printed = called(table.main, "--model", str(model), "--repeats", "1", "--json", str(tmp_path / "all.json"))
    figures = json.loads((tmp_path / "all.json").read_text())["figures"]
    parts = {name.partition(".")[0] + "." + name.split(".")[1] for name in (figure["name"] for figure in figures)}
    assert parts == {
        "step_cost.pair",
        "step_cost.prompt",
        "step_cost.overhead",
        "rollout_cost.batch",
        "rollout_cost.memory",
        "rollout_cost.storage",
    }
    assert all(figure["what"] in printed and figure["median"] > 0 for figure in figures)


def test_a_child_process_says_its_peak(model: Path) -> None:
    assert rollout_cost.peak_of_child("emoji", 2, str(model)) > 50


def test_a_figure_that_is_not_there_is_named(called: Call, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        called(table.main, "speed")
    assert "there is no benchmark 'speed'; there are step_cost.pair" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_model_of_full_size_is_measured(name: str, called: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a tiny one of its family in its place, and in this process."""

    def child(what: str, *rest: str) -> full_size.Report:
        return json.loads(json.dumps({"build": full_size.build, "plan": full_size.plan, "run": full_size.run}[what](*rest)))

    monkeypatch.setattr(full_size, "child", child)
    monkeypatch.setattr(full_models, name, {"sd15": pipelines.stable_diffusion, "sdxl": pipelines.sdxl}[name])
    report = json.loads(
        called(full_size.main, name, "--size", "8", "--repeats", "1", "--store", str(tmp_path), "--set", "sampling.steps=3")
    )
    assert report["planned"]["peak_gib"] > 0
    assert report["measured"]["metrics"]["loss"] == pytest.approx(0.6931, abs=0.01)
    assert report["measured"]["overhead"]["median"] > -1


@pytest.mark.parametrize(("name", "millions"), [("sd15", 860), ("sdxl", 2567)])
def test_the_models_have_the_published_sizes(name: str, millions: int) -> None:
    """Of their U-Nets, as the papers and model cards give them."""
    with torch.device("meta"):
        pipeline = {"sd15": full_models.sd15, "sdxl": full_models.sdxl}[name]()
    assert round(sum(weight.numel() for weight in pipeline.unet.parameters()) / 1e6) == millions


def test_the_rating_server_is_measured_and_loses_no_vote(called: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rating, "PROMPTS", 6)
    printed = called(rating.main, "--annotators", "2", "--seconds", "1")
    assert "0 lost, 0 doubled, 0 misattributed or misread" in printed
    assert "| vote acknowledged |" in printed


def test_the_store_is_measured(called: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROUND", 500)
    printed = called(store.main, "--votes", "1000", "--seconds", "0.05")
    assert "1,000 votes made" in printed
    assert "| claiming it again |" in printed
