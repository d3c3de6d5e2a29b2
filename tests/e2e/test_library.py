"""The library: a run as an object does what the commands do, and what people are given by it is what they would use."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import d3po
from d3po.errors import ConfigError, RunFolderError, VoteError
from d3po.library import EvaluationResult, Run
from tests.e2e.conftest import d3po as command

ROOT = Path(__file__).parents[2]
PROMPTS = ["a red fox", "a panda", "an apple", "a whale", "a car", "a star", "a frog", "a pig", "a banana", "a cactus"]
SMALL = {
    "rounds": 2,
    "sampling.steps": 4,
    "sampling.prompts_per_round": 2,
    "sampling.images_per_prompt": 3,
    "evaluation.prompts": 2,
    "evaluation.images_per_prompt": 2,
    "guards.action": "warn",
    "tracking.tensorboard": False,
}


def redness(image: Image.Image, prompt: str) -> float:
    return float(np.asarray(image, dtype=float)[..., 0].mean())


@pytest.fixture
def run(tmp_path: Path):
    with Run.create(tmp_path / "run", prompts=PROMPTS, settings=SMALL, quiet=True) as run:
        yield run


def test_importing_it_is_light_and_gives_what_is_documented() -> None:
    code = (
        "import sys, d3po, json; print(json.dumps([d3po.__all__, sorted({'torch', 'diffusers', 'pydantic', 'PIL'} & sys.modules.keys())]))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [["Run", "__version__"], []]
    assert d3po.Run is Run
    with pytest.raises(AttributeError, match="has no attribute 'Runs'; it has Run, __version__"):
        _ = d3po.Runs  # type: ignore[attr-defined]


def test_a_whole_round_by_a_function(run: Run, tmp_path: Path) -> None:
    pictures = run.sample()
    assert len(pictures) == 6
    assert all(picture.path.exists() and picture.prompt in PROMPTS for picture in pictures)
    assert run.compare(redness) == 6
    run.train()
    assert run.round == 1
    result = run.evaluate()
    assert 0 <= result.win_rate.low <= result.win_rate.value <= result.win_rate.high <= 1
    assert run.report().exists()
    drawn = run.generate(["a red fox"], count=2)
    assert [path.suffix for path in drawn] == [".png", ".png"]
    pipe = run.pipeline()
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    again = run.generate(["a red fox"], count=2, directory=tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn], "an export leaves the run as it was"
    trained = {name for name, weight in pipe.unet.state_dict().items() if "lora_B" in name and bool(weight.any())}
    assert trained
    images = pipe("a red fox", num_inference_steps=4, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert images.shape == (1, 32, 32, 3)
    written = run.export(tmp_path / "style")
    assert (tmp_path / "style" / "lora" / "pytorch_lora_weights.safetensors") in written


def test_it_goes_on_where_the_command_line_was_and_the_other_way_round(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Run.create(folder, prompts=PROMPTS, settings=SMALL, reward="warmth", quiet=True) as run:
        run.sample()
        refused = command("train", folder)
        assert refused.returncode == 2
        assert "is in use by another d3po process" in refused.stderr
        run.train()
    assert command("sample", folder).returncode == 0
    with Run.open(folder, quiet=True) as run:
        assert run.round == 1
        assert len(run.pictures()) == 6
        run.run()
        assert run.round == 2
        assert (folder / "report.html").exists()


def test_the_same_calls_give_the_same_bytes_as_the_commands(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with Run.create(one, prompts=PROMPTS, settings=SMALL | {"rounds": 1}, reward="warmth", quiet=True) as run:
        run.sample()
        run.train()
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    changes = [
        word
        for key, value in (SMALL | {"rounds": 1, "feedback.reward": "warmth"}).items()
        for word in ("--set", f"{key}={value}".replace("False", "false"))
    ]
    assert command("init", other, "--prompts", tmp_path / "prompts.txt", *changes).returncode == 0
    assert command("sample", other).returncode == 0
    assert command("train", other).returncode == 0
    assert (one / "run.toml").read_text() == (other / "run.toml").read_text()
    mine, theirs = (load_file(next((folder / "checkpoints").glob("*-final-*"))) for folder in (one, other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_votes_from_elsewhere_are_what_is_trained_on(run: Run) -> None:
    pictures = run.sample()
    by_prompt = {
        prompt: [picture for picture in pictures if picture.prompt == prompt] for prompt in {picture.prompt for picture in pictures}
    }
    for first, second, third in by_prompt.values():
        run.votes.add(first, [second, third], annotator="ada")
        run.votes.add(second, third, annotator="ada", tie=True)
    assert len(run.votes) == 6
    run.train()
    assert run.round == 1
    assert len(run.votes) == 6, "nobody else was asked"


def test_pictures_that_cannot_be_compared_are_refused(run: Run) -> None:
    pictures = run.sample()
    first = pictures[0]
    other = next(picture for picture in pictures if picture.prompt != first.prompt)
    with pytest.raises(VoteError, match="of different prompts or rounds cannot be compared"):
        run.votes.add(first, other)
    with pytest.raises(VoteError):
        run.votes.add(first, first)
    assert len(run.votes) == 0


def test_a_run_has_one_reward(run: Run) -> None:
    run.sample()
    run.compare("brightness")
    assert run.config.feedback.reward == "brightness"
    refusal = "already uses the reward 'brightness', so 'warmth' cannot replace it"
    with pytest.raises(ConfigError, match=refusal):
        run.compare("warmth")
    run.train()
    with pytest.raises(ConfigError, match=refusal):
        run.compare("warmth")
    with pytest.raises(ConfigError, match=r"has no name that could be written to run\.toml"):
        run.compare(lambda image, prompt: 0.0)


def test_what_comes_too_early_says_what_is_missing(run: Run) -> None:
    for early in (run.compare, run.train, run.serve):
        with pytest.raises(RunFolderError, match="round 0 is not completely sampled; sample its pictures"):
            early()
    with pytest.raises(RunFolderError, match="has not been evaluated yet"):
        run.report()
    with pytest.raises(RunFolderError, match="has no trained round to export"):
        run.pipeline()


def test_settings_are_changed_where_they_may_be(run: Run) -> None:
    run.change(rounds=5, **{"guards.max_kl": 0.3})
    assert (run.config.rounds, run.config.guards.max_kl) == (5, 0.3)
    run.sample()
    with pytest.raises(ConfigError, match=r"sampling\.steps"):
        run.change(**{"sampling.steps": 7})


def run_cells(cells: list[str]) -> dict[str, object]:
    """One after another, as a notebook or a reader would; what they have defined."""
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        exec(compile(cell, "a cell", "exec"), names)
    return names


def test_the_page_on_the_library_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(), re.DOTALL)
    given = '{"sampling.prompts_per_round": 4, "evaluation.prompts": 2}'
    assert given in block
    run_cells([block.replace(given, repr(SMALL))])
    with Image.open("panda.png") as drawn:
        assert drawn.size == (32, 32)
    assert Path("my-style/lora/pytorch_lora_weights.safetensors").exists()


def test_the_notebook_shows_pictures_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "examples" / "first_run.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    smaller = {'"sampling.prompts_per_round": 12': '"sampling.prompts_per_round": 2', '"evaluation.prompts": 8': '"evaluation.prompts": 2'}
    for before, after in smaller.items():
        assert sum(before in cell for cell in code) == 1
        code = [cell.replace(before, after) for cell in code]
    names = run_cells(code)
    sheet, result = names["sheet"], names["result"]
    assert isinstance(sheet, Image.Image)
    assert isinstance(result, EvaluationResult)
    above, below = np.split(np.asarray(sheet), 2)
    assert not np.array_equal(above, below)
    assert Path("first-run/export/README.md").exists()


def test_lists_and_files_of_prompts(tmp_path: Path) -> None:
    with Run.create(tmp_path / "a", prompts=PROMPTS, held_out=["an owl", "a bee"], settings=SMALL, quiet=True) as run:
        assert (len(run._session.run.folder.prompts()), run._session.run.folder.held_out()) == (10, ["an owl", "a bee"])
    with pytest.raises(ConfigError, match="must both be lists, or both be files"):
        Run.create(tmp_path / "b", prompts=PROMPTS, held_out=tmp_path / "file", settings=SMALL, quiet=True)
    with Run.create(tmp_path / "c", settings=SMALL, recipe="demo", quiet=True) as run:
        assert len(run._session.run.folder.prompts()) > 100
