"""What stands in examples/ and tools/ for real runs, on a tiny pipeline."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from d3po.config import override
from d3po.experiments.cells import cells_of, make_folder
from d3po.experiments.spec import load_spec
from d3po.run.folder import RunFolder
from d3po.run.loop import run_rounds
from d3po.run.opened import open_run
from d3po.run.session import Session
from examples.comparisons.flagged import flagged
from tools import guard_runs

ROOT = Path(__file__).parents[2]
SMALL = {
    "sampling.steps": "4",
    "sampling.prompts_per_round": "2",
    "sampling.images_per_prompt": "3",
    "feedback.reward": "brightness",
    "feedback.temperature": "0.0",
    "feedback.tie_band": "0.0",
    "evaluation.prompts": "1",
    "evaluation.images_per_prompt": "2",
    "training.epochs": "1",
    "training.prompts_per_update": "2",
    "guards.action": "warn",
    "tracking.tensorboard": "false",
}


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "comparisons").glob("*.toml")), ids=lambda path: path.stem)
def test_a_published_comparison_trains_its_last_run(path: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own objective and prompts; of small sizes, on another model, by a judge that tells that one's pictures apart."""
    monkeypatch.chdir(ROOT)
    cell = cells_of(load_spec(path))[-1]
    cell = replace(cell, config=override(cell.config, SMALL | {"model": str(tiny_model)}, where="test"))
    folder = make_folder(cell, tmp_path, rounds=1)
    run_rounds(Session(open_run(folder)))
    assert folder.read_metrics()[-1]["gradient_norm"] > 0


@pytest.mark.parametrize(("colour", "answer"), [("#ff0000", -1), ("#880000", 0), ("#ffffff", 0), ("#00ff00", 0)])
def test_the_stand_in_for_a_detector_flags_blood_red(colour: str, answer: float) -> None:
    """Also where it is six in a hundred pixels, and not where it is four."""
    assert flagged(Image.new("RGB", (10, 10), colour), "a cat") == answer
    for pixels, found in ((4, 0), (6, answer)):
        picture = Image.new("RGB", (10, 10), "white")
        picture.paste(colour, (0, 0, pixels, 1))
        assert flagged(picture, "a cat") == found


def test_what_guards_saw_of_a_run_is_one_line(make_run: Callable[..., RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(settings=SMALL | {"rounds": "1", "sampling.steps": "3"})
    run_rounds(Session(open_run(run)))
    capsys.readouterr()
    guard_runs.main("healthy", str(run.path))
    line = json.loads(capsys.readouterr().out)
    (seen,) = line["rounds"]
    assert (line["label"], line["run"], line["reward_scale"]) == ("healthy", "run", 5)
    assert "kl" in seen["updates"][0]
    assert 0 <= seen["evaluation"]["win_rate"] <= 1
