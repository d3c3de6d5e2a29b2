"""What goes wrong gets one clear line, exit code 2, and damages nothing."""

import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from d3po.artifacts.checkpoints import list_checkpoints
from d3po.artifacts.files import sha256
from d3po.errors import ConfigError, CorruptFileError, ModelError, NonFiniteError
from d3po.run.folder import RunFolder
from d3po.run.opened import open_run
from d3po.run.session import Session
from tests.e2e.conftest import command, d3po, d3po_process, environment

MakeRun = Callable[..., RunFolder]
POINTS = ("rollouts/round-000/shard-000.safetensors", "checkpoints/round-001-update-000004*")
"""Where a run is killed: while it samples its first round, and while it trains its second."""


def final_tensors(folder: RunFolder) -> dict[str, torch.Tensor]:
    return [c for c in list_checkpoints(folder.checkpoints) if c.final][-1].load()[0]


def test_killed_twice_and_run_again_ends_with_the_same_bytes(make_run: MakeRun, straight: dict[str, torch.Tensor]) -> None:
    folder = make_run()
    for point in POINTS:
        with subprocess.Popen(
            command("run", folder.path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
        ) as process:
            deadline = time.monotonic() + 100
            while not list(folder.path.glob(point)) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert list(folder.path.glob(point)), "the run never got to the point where it was to be killed"
    again = d3po("run", folder.path)
    assert again.returncode == 0, again.stderr
    tensors = final_tensors(folder)
    assert tensors.keys() == straight.keys()
    for name, value in straight.items():
        assert torch.equal(tensors[name], value), name
    updates = [(m["round"], m["update"]) for m in folder.read_metrics()]
    assert updates == [(r, u) for r in (0, 1) for u in range(8)]


@pytest.fixture(scope="module")
def straight(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The final weights of a run that was never killed."""
    from d3po.config import RunConfig, override
    from d3po.run.folder import create_run
    from tests.e2e.conftest import HELD_OUT, PROMPTS, SETTINGS

    AcceleratorState._reset_state(reset_partial_state=True)
    config = override(RunConfig(model=str(tiny_model)), SETTINGS, where="test")
    folder = create_run(tmp_path_factory.mktemp("straight") / "run", config, prompts=PROMPTS, held_out=HELD_OUT)
    done = d3po("run", folder.path)
    assert done.returncode == 0, done.stderr
    return final_tensors(folder)


def assert_one_clear_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, (result.returncode, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def test_a_second_process_on_one_folder_is_refused(make_run: MakeRun) -> None:
    folder = make_run()
    with folder.locked():
        assert_one_clear_line(d3po("run", folder.path), "in use by another d3po process")


def test_damaged_checkpoints_are_named_and_the_one_before_is_used_once_they_are_gone(make_run: MakeRun) -> None:
    folder = make_run(settings={"rounds": "1"})
    assert d3po("run", folder.path).returncode == 0
    newest = list_checkpoints(folder.checkpoints)[-1].path
    flip_byte(newest)
    assert_one_clear_line(d3po("export", folder.path), newest.name, "delete the file")


def test_damaged_shards_are_named_and_can_be_made_again(make_run: MakeRun) -> None:
    folder = make_run()
    assert d3po("sample", folder.path).returncode == 0
    shard = folder.shard(0, 1)
    whole = shard.read_bytes()
    flip_byte(shard)
    assert_one_clear_line(d3po("train", folder.path), "shard-001.safetensors", "--repair")
    assert d3po("sample", folder.path, "--repair").returncode == 0
    assert shard.read_bytes() == whole


def test_a_deleted_picture_is_named_and_can_be_made_again(make_run: MakeRun) -> None:
    folder = make_run()
    assert d3po("sample", folder.path).returncode == 0
    picture = folder.images("round-000") / "001-002.png"
    whole = picture.read_bytes()
    picture.unlink()
    assert_one_clear_line(d3po("train", folder.path), "001-002.png", "--repair")
    assert d3po("sample", folder.path, "--repair").returncode == 0
    assert picture.read_bytes() == whole


def test_a_changed_setting_is_refused_on_a_started_run(make_run: MakeRun) -> None:
    folder = make_run()
    assert d3po("sample", folder.path).returncode == 0
    text = folder.config_path.read_text()
    folder.config_path.write_text(text.replace("steps = 5", "steps = 6"))
    assert_one_clear_line(d3po("sample", folder.path), "sampling.steps is 6", "made with 5")


def test_a_run_made_before_a_setting_existed_goes_on_with_its_default(make_run: MakeRun) -> None:
    folder = make_run()
    folder.mark_started(folder.config())
    marked = folder.path / "started.json"
    settings = json.loads(marked.read_text())
    del settings["sampling"]["buckets"], settings["objective"]["d3po"]["beta"], settings["sha256"]
    marked.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"objective.d3po.beta is 5.0, but this run was made with 0.1"):
        folder.config()
    settings["objective"]["d3po"]["beta"] = 5.0
    marked.write_text(json.dumps(settings))
    assert folder.config().sampling.buckets == []


def test_a_run_that_began_when_objectives_shared_their_settings_goes_on(make_run: MakeRun) -> None:
    """Each has a table of its own now; run.toml asks to be written so."""
    folder = make_run()
    folder.mark_started(folder.config())
    marked = folder.path / "started.json"
    settings = json.loads(marked.read_text())
    del settings["sha256"]
    settings["objective"] |= settings["objective"].pop("d3po") | dict.fromkeys(("clip_range", "alpha", "sharpness"), "own")
    marked.write_text(json.dumps(settings))
    assert folder.config().objective.d3po.beta == 5.0
    text = folder.config_path.read_text()
    folder.config_path.write_text(text.replace("[objective.d3po]", ""))
    assert_one_clear_line(d3po("run", folder.path, "--dry-run"), "objective.beta is now called objective.d3po.beta")


def test_an_objective_that_cannot_do_with_a_zero_says_so_before_a_run_is_made(tmp_path: Path) -> None:
    failed = d3po("init", tmp_path / "run", "--objective", "reward_weighted", "--set", "objective.reward_weighted.temperature=0")
    assert_one_clear_line(failed, "objective.reward_weighted.temperature is 0", "greater than 0")
    assert not (tmp_path / "run").exists()


def test_rounds_without_the_settings_that_they_were_made_with_are_not_gone_on_with(make_run: MakeRun) -> None:
    folder = make_run()
    folder.mark_started(folder.config())
    folder.started.unlink()
    folder.mark_started(folder.config())  # nothing is made yet
    folder.shard(0, 0).parent.mkdir(parents=True)
    folder.shard(0, 0).touch()
    folder.started.unlink()
    with pytest.raises(
        CorruptFileError, match=r"started\.json is missing, which holds the settings that this run.s rounds were made with; restore it"
    ):
        folder.mark_started(folder.config())
    assert not folder.started.exists()


def test_changed_prompts_are_refused_on_a_started_run(make_run: MakeRun) -> None:
    folder = make_run()
    assert d3po("sample", folder.path).returncode == 0
    with (folder.path / "prompts.txt").open("a") as file:
        file.write("a whale\n")
    assert_one_clear_line(d3po("train", folder.path), "files.prompts.txt")


def test_a_round_that_is_not_sampled_to_its_end_is_not_trained(make_run: MakeRun) -> None:
    assert_one_clear_line(d3po("train", make_run().path), "not completely sampled")


def test_an_unknown_setting_suggests_the_nearest(make_run: MakeRun) -> None:
    folder = make_run()
    folder.config_path.write_text(folder.config_path.read_text().replace("learning_rate", "learning_rat"))
    assert_one_clear_line(d3po("run", folder.path), "training.learning_rat", "did you mean 'learning_rate'")


def test_one_image_a_prompt_is_refused(tmp_path: Path) -> None:
    result = d3po("init", tmp_path / "run", "--set", "sampling.images_per_prompt=1")
    assert_one_clear_line(result, "sampling.images_per_prompt is 1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a cat\n\na dog\n", ["1 of 3 prompts", "lines 2", "--skip-empty"]),
        ("", ["holds no prompt"]),
        ("a cat\x1b[31m\n", ["prompts.txt, line 1: the prompt holds U+001B, a control character"]),
    ],
)
def test_bad_prompt_files_are_explained(tmp_path: Path, content: str, words: list[str]) -> None:
    (tmp_path / "prompts.txt").write_text(content)
    assert_one_clear_line(d3po("init", tmp_path / "run", "--prompts", tmp_path / "prompts.txt"), *words)
    assert not (tmp_path / "run").exists()


def test_doubled_prompts_are_kept_once_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes("\ufeffA cat\r\na dog\ra  cat\na cow\nA DOG\na pig\na fox\u2028in snow\n".encode())
    few = {"sampling.prompts_per_round": 2, "evaluation.prompts": 1}
    told = d3po(*("init", tmp_path / "run", "--prompts", tmp_path / "prompts.txt"), *(f"--set={key}={value}" for key, value in few.items()))
    assert "2 of 7 prompts in" in told.stdout
    assert "are duplicates, such as 'a  cat' beside 'A cat'; the first of each is kept" in told.stdout
    assert (tmp_path / "run/prompts.txt").read_bytes() == b"A cat\na dog\na cow\na pig\n"
    assert RunFolder(path=tmp_path / "run").held_out() == ["a fox\u2028in snow"]


def test_held_out_prompts_must_be_new_however_they_are_written(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    (tmp_path / "held_out.txt").write_text("a bee\nA\u00a0Cat\n")
    prompts = ("--prompts", tmp_path / "prompts.txt", "--held-out", tmp_path / "held_out.txt")
    assert_one_clear_line(
        d3po("init", tmp_path / "new", *prompts), "1 held-out prompts are training prompts too", "which differs from 'a cat' only in case"
    )
    folder = make_run()
    (folder.path / "held_out.txt").write_text("a bee\nA FOX\n")
    assert_one_clear_line(d3po("sample", folder.path), "1 held-out prompts are training prompts too", "'A FOX', which differs from 'a fox'")


def test_a_run_begun_with_held_out_prompts_that_it_trains_on_says_so(make_run: MakeRun) -> None:
    folder, told = make_run(), list[str]()
    folder.mark_started(folder.config())
    marked = json.loads((folder.path / "started.json").read_text())
    del marked["sha256"]  # as those records were that were written without
    (folder.path / "held_out.txt").write_text("a bee\nA FOX\n")
    marked["files"]["held_out.txt"] = sha256(folder.path / "held_out.txt")
    (folder.path / "started.json").write_text(json.dumps(marked))
    folder.mark_started(folder.config(), told.append)
    assert len(told) == 1
    assert told[0].startswith("warning: 1 held-out prompts are training prompts too")


def test_prompts_that_are_not_there_are_named(tmp_path: Path) -> None:
    assert_one_clear_line(d3po("init", tmp_path / "run", "--prompts", tmp_path / "none.txt"), "none.txt cannot be read")


def test_a_models_name_is_not_read_as_a_number(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, "nan")
    Path("prompts.txt").write_text("a cat\na dog\na cow\na pig\na fox\n")
    short = ("--set", "sampling.prompts_per_round=2", "--set", "evaluation.prompts=1")
    result = d3po("init", "run", "--model", "nan", "--prompts", "prompts.txt", *short)
    assert result.returncode == 0, result.stderr
    assert_one_clear_line(d3po("init", "other", "--model", "2024", "--prompts", "prompts.txt", *short), "model '2024' is not there")


def test_what_other_packages_log_as_they_are_imported_stays_out() -> None:
    assert d3po("--version").returncode == 0
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)
    assert logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.ERROR)
    assert logging.getLogger("d3po.web.middleware").isEnabledFor(logging.WARNING)
    assert os.environ["TRANSFORMERS_VERBOSITY"] == os.environ["DIFFUSERS_VERBOSITY"] == "error"


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path: Path) -> None:
    assert_one_clear_line(d3po("run", tmp_path), "no run.toml", "d3po init")


def test_a_model_that_is_not_there_is_named(make_run: MakeRun) -> None:
    folder = make_run()
    config = folder.config_path.read_text()
    model = next(line for line in config.splitlines() if line.startswith("model = "))
    folder.config_path.write_text(config.replace(model, 'model = "/nowhere/at/all"'))
    assert_one_clear_line(d3po("run", folder.path), "/nowhere/at/all")


def test_a_users_reward_that_gives_nan_is_one_line_and_keeps_the_pictures(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_taste.py").write_text("def taste(image, prompt):\n    return float('nan')\n")
    folder = make_run(settings={"feedback.reward": "my_taste:taste"})
    monkeypatch.chdir(tmp_path)
    assert_one_clear_line(d3po("run", folder.path), "my_taste:taste gave nan")
    assert list(folder.images("held-out/base").iterdir())


def changed_model(folder: RunFolder, directory: Path, part: str, tensor: str, value: float) -> None:
    """Give the run a copy of its model in which one tensor has one value."""
    model = Path(folder.config().model)
    copy = shutil.copytree(model, directory / "changed")
    (file,) = (copy / part).glob("*.safetensors")
    tensors = load_file(file)
    tensors[tensor][:] = value
    save_file(tensors, file, metadata={"format": "pt"})
    folder.config_path.write_text(folder.config_path.read_text().replace(str(model), str(copy)))


@pytest.mark.parametrize(
    ("part", "tensor", "named"),
    [
        ("text_encoder", "final_layer_norm.weight", "the text encoder (text)"),
        ("unet", "conv_out.bias", "the denoiser"),
        ("vae", "decoder.conv_out.weight", "the decoder"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_draws_no_numbers_is_named_by_its_part(
    make_run: MakeRun, tmp_path: Path, part: str, tensor: str, named: str, value: float
) -> None:
    folder = make_run()
    changed_model(folder, tmp_path, part, tensor, value)
    assert_one_clear_line(d3po("run", folder.path), f"{named} of ", "gives values that are infinite or not a number", "no picture is made")
    assert not [*folder.path.rglob("*.png")]


def test_what_a_trained_policy_gives_stops_the_round_if_it_is_not_finite(make_run: MakeRun) -> None:
    folder = make_run()
    session = Session(open_run(folder))
    values = torch.tensor([[1.0], [float("nan")]])
    with pytest.raises(ModelError, match="for 1 of 2 inputs"):
        session.finite(values, "the denoiser")
    session.moved(1)
    with pytest.raises(NonFiniteError, match=r"for 1 of 2 inputs: training has gone too far. Lower training\.learning_rate"):
        session.finite(values, "the denoiser")
    assert session.finite(values[:1], "the denoiser") is not None


def test_a_base_model_of_black_pictures_is_a_guards_matter(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(settings={"rounds": "1", "guards.action": "stop", "feedback.reward": "brightness"})
    changed_model(folder, tmp_path, "vae", "decoder.conv_out.weight", 0.0)
    stopped = d3po("run", folder.path)
    assert stopped.returncode == 1
    assert stopped.stderr.startswith("error: the base model's held-out pictures of one prompt are all alike (diversity 0)")
    warned = d3po("run", folder.path, "--set", "guards.action=warn")
    assert "warning: the base model's held-out pictures" in warned.stdout
    assert_one_clear_line(warned, "no comparison with a preference")


def test_prompts_that_are_cut_are_said_once(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    long = " ".join("abcdefghijkl")
    (folder.path / "prompts.txt").write_text(f"a cat\n{long}\na dog\na cow\n")
    said = d3po("generate", folder.path, "--base", "--prompt", f"m {long}", "--prompt", long, "--to", tmp_path / "pictures")
    assert said.returncode == 0, said.stderr
    assert "warning: 1 of 7 prompts have more tokens than the 12 that text_encoder reads, and are cut off there: 'a b c" in said.stdout
    assert "warning: 1 of 1 prompts have more tokens than the 12 that text_encoder reads, and are cut off there: 'm a b" in said.stdout


def test_loss_that_is_not_finite_stops_before_the_weights_are_touched(make_run: MakeRun) -> None:
    folder = make_run(settings={"training.learning_rate": "1e9", "rounds": "1"})
    result = d3po("run", folder.path)
    assert result.returncode == 0, result.stderr
    assert "not finite" in result.stdout or "gradient norm" in result.stdout
    assert not [c for c in list_checkpoints(folder.checkpoints) if c.final]


def test_every_command_teaches_by_an_example() -> None:
    for name in ("init", "run", "sample", "train", "eval", "report", "export", "doctor"):
        result = d3po(name, "--help")
        assert result.returncode == 0
        assert f"d3po {name}" in result.stdout
        assert "Example" in result.stdout


def test_doctor_and_version_answer() -> None:
    assert "torch" in d3po("doctor").stdout
    assert d3po_process("--version").stdout.startswith("d3po ")


def flip_byte(path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    copy.unlink()
