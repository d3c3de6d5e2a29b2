"""Models, LoRAs and pictures that were moved after a run began."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from d3po.artifacts.records import read_record, write_record
from d3po.config import RunConfig, override
from d3po.embedded import EMBEDDED, EmbeddedModel
from d3po.errors import ConfigError
from d3po.recipes import load_recipe
from d3po.run.folder import RunFolder, create_run
from d3po.run.places import NAMED, _of_embedded, content_of, contents, whole_paths
from d3po.run.starting import start

FILES = {"model_index.json": '{"_class_name": "DDPMPipeline"}', "unet/config.json": "{}", "unet/weights.safetensors": "weights"}


def write_model(folder: Path, **changed: str) -> Path:
    for name, text in (FILES | changed).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def begun(folder: Path, **settings: str) -> RunFolder:
    config = override(RunConfig(), {"sampling.prompts_per_round": "1", "evaluation.prompts": "1", **settings}, where="test")
    run = create_run(folder, config, prompts=["a cat"], held_out=["a dog"])
    run.mark_started(run.config())
    return run


def in_file(run: RunFolder, old: str, new: str) -> None:
    run.config_path.write_text(run.config_path.read_text().replace(old, new))


@pytest.mark.parametrize("written", ["mine", "./mine", "~/mine", "here/../mine"])
def test_a_new_run_has_whole_paths(tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    model = Path(start(load_recipe("default"), {"model": written}).config.model)
    assert model.is_absolute()
    assert model.samefile(tmp_path / "mine")


def test_every_setting_that_names_a_file_has_its_whole_path_and_what_is_no_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("emoji", "file"):
        Path(name).touch()
    config = override(RunConfig(), {"hardware.divide": "zero3", **dict.fromkeys(NAMED, "file")}, where="test")
    whole = whole_paths(config)
    assert {whole.model, whole.parts, whole.adapter.start_from, whole.hardware.deepspeed} == {str(tmp_path / "file")}
    assert {whole.sampling.inpaint_image, whole.sampling.inpaint_mask} == {str(tmp_path / "file")}
    for model in ("emoji", "custom:file:make", "somebody/model", "gone"):
        assert whole_paths(RunConfig(model=model)) == RunConfig(model=model)


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("pickscore:judge", "pickscore:{here}/judge"),
        ("weighted:0.7*pickscore:judge+3*warmth", "weighted:0.7*pickscore:{here}/judge+3*warmth"),
        ("pareto:warmth+image_reward:judge", "pareto:warmth+image_reward:{here}/judge"),
        ("pickscore:elsewhere", "pickscore:elsewhere"),
        ("judge:function", "judge:function"),
        ("warmth", "warmth"),
    ],
)
def test_folders_of_judges_have_whole_paths_too(tmp_path: Path, written: str, whole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge").mkdir()
    config = override(RunConfig(), {"feedback.reward": written, "evaluation.held_out_reward": written}, where="test")
    found = whole_paths(config)
    assert {found.feedback.reward, found.evaluation.held_out_reward} == {whole.format(here=tmp_path)}


def test_a_path_written_by_hand_is_made_whole_when_the_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    config = override(RunConfig(), {"sampling.prompts_per_round": "1", "evaluation.prompts": "1"}, where="test")
    run = create_run(tmp_path / "run", config, prompts=["a cat"], held_out=["a dog"])
    in_file(run, 'model = "emoji"', 'model = "mine"')
    assert run.config().model == "mine"
    as_read = run.config()
    run.mark_started(as_read)
    monkeypatch.chdir("/")
    assert run.config().model == str(tmp_path / "mine"), "and nothing says that it is another"
    monkeypatch.chdir(tmp_path)
    run.mark_started(as_read)


@pytest.mark.parametrize("change", [lambda run, new: run.change({"model": str(new)}), lambda run, new: in_file(run, "model_a", "model_b")])
def test_a_moved_model_is_taken_at_its_new_place(tmp_path: Path, change: Callable[[RunFolder, Path], object]) -> None:
    old, new = write_model(tmp_path / "model_a"), tmp_path / "model_b"
    run = begun(tmp_path / "run", model=str(old))
    old.rename(new)
    change(run, new)
    assert run.config().model == str(new)
    run.mark_started(run.config())
    shutil.rmtree(new)
    assert run.config().model == str(new), "its content was looked at, once"


@pytest.mark.parametrize("changed", [{"unet/weights.safetensors": "others"}, {"unet/more.json": "{}"}])
def test_another_model_at_the_new_place_is_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    old = write_model(tmp_path / "model_a")
    run = begun(tmp_path / "run", model=str(old))
    before = run.config_path.read_bytes()
    new = write_model(tmp_path / "model_b", **changed)
    with pytest.raises(ConfigError, match=r"model_b', whose content differs from that of '.*model_a', which this run was made with"):
        run.change({"model": str(new)})
    assert run.config_path.read_bytes() == before
    with pytest.raises(ConfigError, match="this run was made with"):
        run.change({"model": "emoji"})
    with pytest.raises(ConfigError, match="this run was made with"):
        run.change({"model": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("key", ["parts", "adapter.start_from", "sampling.inpaint_image", "sampling.inpaint_mask"])
def test_so_are_all_other_files_that_decide_what_is_made(tmp_path: Path, key: str) -> None:
    old, new, other = (tmp_path / name for name in ("old", "new", "other"))
    old.write_text("content")
    run = begun(tmp_path / "run", **{key: str(old)})
    old.rename(new)
    other.write_text("other content")
    with pytest.raises(ConfigError, match="whose content differs from that of"):
        run.change({key: str(other)})
    run.change({key: str(new)})


def test_what_is_not_read_of_a_folder_does_not_count(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    before = content_of(model)
    for name in ("README.md", ".cache/huggingface/tree.json", ".gitattributes", "unet/weights.bin"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("anything")
    assert content_of(model) == before
    (model / "unet/weights.safetensors").rename(model / "unet/weights.fp16.safetensors")
    assert content_of(model) != before


def test_a_model_of_the_hub_has_no_content_here() -> None:
    assert contents(RunConfig(model="somebody/model")) == {}


@pytest.fixture
def replaced_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that puts another model in the place of the default one, as a later version of the package may."""
    _of_embedded.cache_clear()

    def replace() -> None:
        monkeypatch.setitem(EMBEDDED, "emoji", EmbeddedModel(folder=str(write_model(tmp_path / "next")), pixels=64))
        _of_embedded.cache_clear()

    return replace


def without_contents(record: Path) -> None:
    """Write the file as versions did that kept no hash of embedded models."""
    written = read_record(record, remedy="")
    del written["contents"]
    write_record(record, written)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_stays_with_the_embedded_model_it_was_made_with(tmp_path: Path, replaced_model: Callable[[], None], recorded: bool) -> None:
    run = begun(tmp_path / "run")
    if not recorded:
        without_contents(run.started)
    assert run.config().model == "emoji"
    replaced_model()
    with pytest.raises(ConfigError, match="run was made with what is now called 'emoji-32'; set model to 'emoji-32'"):
        run.config()
    run.change({"model": "emoji-32"})
    assert run.config().model == "emoji-32"
    run.mark_started(run.config())
    with pytest.raises(ConfigError, match=r"model is 'emoji', but this run was made with .*'emoji-32'"):
        run.change({"model": "emoji"})
    assert begun(tmp_path / "later").config().model == "emoji"


def test_weights_that_are_no_longer_in_the_package_are_said_to_be_missing(tmp_path: Path, replaced_model: Callable[[], None]) -> None:
    replaced_model()
    run = begun(tmp_path / "run")
    write_model(tmp_path / "next", **{"unet/weights.safetensors": "later weights"})
    _of_embedded.cache_clear()
    with pytest.raises(ConfigError, match="does not have; use the version it was made with"):
        run.config()
