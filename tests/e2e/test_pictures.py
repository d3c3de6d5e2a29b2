"""Pictures and cards of a trained run, through the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from d3po.run.folder import RunFolder
from tests.e2e.conftest import d3po

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def trained(make_run: MakeRun) -> RunFolder:
    folder = make_run(settings={"rounds": "1", "evaluation.prompts": "1", "training.epochs": "1", "training.policy_ema": "0.5"})
    assert d3po("run", folder.path).returncode == 0
    return folder


def test_pictures_follow_from_their_seed_and_the_base_model_has_its_own(trained: RunFolder, tmp_path: Path) -> None:
    for name, options in {"a": [], "b": [], "other": ["--seed", "1"], "base": ["--base"]}.items():
        done = d3po("generate", trained.path, "--prompt", "a cat", "--prompt", "a dog", "--count", "2", "--to", tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.split()) >= 4
    names = ["000-0.png", "000-1.png", "001-0.png", "001-1.png"]
    pixels = {name: [Image.open(tmp_path / name / file).tobytes() for file in names] for name in ("a", "b", "other", "base")}
    assert pixels["a"] == pixels["b"]
    assert pixels["a"] != pixels["other"]
    assert pixels["a"] != pixels["base"]


def test_a_grid_shows_base_and_tuned_side_by_side(trained: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\na cow\n")
    done = d3po("compare-images", trained.path, "--prompts", tmp_path / "prompts.txt", "--to", tmp_path / "grid.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (4 * (8 + 4), 14 + 3 * (14 + 8 + 4))


def test_nothing_to_draw_with_is_said(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    result = d3po("compare-images", folder.path, "--prompt", "a cat")
    assert (result.returncode, "has no trained round yet" in result.stderr) == (2, True)
    result = d3po("generate", folder.path, "--base", "--prompt", "a \x1b[31mcat")
    assert (result.returncode, "--prompt: the prompt holds U+001B, a control character" in result.stderr) == (2, True)


def test_an_exports_card_says_what_it_is(trained: RunFolder, tmp_path: Path) -> None:
    done = d3po("export", trained.path, "--to", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "diffusers"')
    assert str(trained.config().model) not in card
    for words in (
        "A model that is not on the hub, `",
        "the measured reward `brightness`",
        "12 answers by 1 measured reward, from which 12 comparisons of two pictures follow. Of the answers 0 were ties",
        "win rate",
        "* `a cat`",
        "`lora-kohya.safetensors`: the LoRA in Kohya's format",
        "[training]",
    ):
        assert words in card
