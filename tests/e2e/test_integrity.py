"""Nothing is gone on with that is not what was written; what the machine does is one line; and what is mended ends as if nothing had been."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from d3po.artifacts.checkpoints import list_checkpoints
from d3po.config import RunConfig, override
from d3po.run.folder import RunFolder, create_run, label_of
from d3po.run.opened import final_checkpoints
from tests.e2e.conftest import HELD_OUT, PROMPTS, SETTINGS, d3po
from tests.e2e.test_failures import assert_one_clear_line, flip_byte

MakeRun = Callable[..., RunFolder]
SMALL = SETTINGS | {
    "sampling.steps": "3",
    "sampling.prompts_per_round": "2",
    "sampling.images_per_prompt": "2",
    "training.checkpoint_every": "1",
    "tracking.tensorboard": "true",
}
UPDATES = 4
"""Of a round: two prompts, twice."""


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two rounds; not to be changed."""
    config = override(RunConfig(model=str(tiny_model)), SMALL, where="test")
    folder = create_run(tmp_path_factory.mktemp("finished") / "run", config, prompts=PROMPTS, held_out=HELD_OUT)
    done = d3po("run", folder.path)
    assert done.returncode == 0, done.stderr
    assert len(folder.read_metrics()) == 2 * UPDATES
    return folder


@pytest.fixture
def folder(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it."""
    return RunFolder(path=shutil.copytree(finished.path, tmp_path / "run"))


def weights(folder: RunFolder) -> list[dict[str, list[float]]]:
    """Those of each round's end, with the optimizer's state."""
    return [{name: value.tolist() for name, value in final.load()[0].items()} for final in final_checkpoints(folder)]


def losses(folder: RunFolder) -> list[tuple[int, float]]:
    """As TensorBoard shows them."""
    return [(event.step, event.value) for event in EventAccumulator(str(folder.path / "tensorboard")).Reload().Scalars("train/loss")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("started.json", ""),
        ("evaluations/base.json", "{"),
        ("evaluations/round-000.json", "{}"),
        ("metrics.jsonl", '{"round": 0,\n'),
        ("images/held-out/base/000-0.png", ""),
        ("images/held-out/round-001/001-1.png", "no picture"),
        ("rollbacks.json", "["),
        ("stopped.json", "["),
        ("prompts.txt", None),
        ("held_out.txt", None),
        ("evaluations/base.json", None),
        ("images/held-out/base/000-0.png", None),
    ],
)
def test_a_damaged_or_lost_file_names_itself(folder: RunFolder, name: str, content: str | None) -> None:
    (folder.path / name).unlink(missing_ok=True)
    if content is not None:
        (folder.path / name).write_text(content)
    before = folder.report.read_bytes()
    if (name, content) == ("evaluations/base.json", None):
        assert_one_clear_line(d3po("report", folder.path), "has not been evaluated yet")
    else:
        assert_one_clear_line(d3po("report", folder.path), str(folder.path / name))
    assert folder.report.read_bytes() == before


def test_one_digit_of_a_score_is_noticed_and_measured_again_as_it_was(folder: RunFolder) -> None:
    kept = folder.evaluation("base")
    before = kept.read_text()
    changed = re.sub(r'("scores".*?0\.)(\d)', lambda found: f"{found[1]}{(int(found[2]) + 1) % 10}", before, count=1, flags=re.DOTALL)
    assert changed != before
    kept.write_text(changed)
    assert_one_clear_line(d3po("report", folder.path), str(kept), "damaged or was changed", "delete evaluations/base.json")
    kept.unlink()
    assert d3po("run", folder.path).returncode == 0
    assert kept.read_text() == before


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_held_out_picture_in_anothers_place_is_noticed_and_made_again(folder: RunFolder, rounds: int) -> None:
    pictures = folder.images(f"held-out/{label_of(rounds)}")
    before = (pictures / "000-0.png").read_bytes()
    shutil.copy(pictures / "001-1.png", pictures / "000-0.png")
    assert_one_clear_line(d3po("report", folder.path), str(pictures / "000-0.png"), "is not what was written", f"{label_of(rounds)}.json")
    folder.evaluation(label_of(rounds)).unlink()
    assert d3po("run", folder.path).returncode == 0
    assert (pictures / "000-0.png").read_bytes() == before


def test_a_sampled_picture_in_anothers_place_is_not_compared(make_run: MakeRun) -> None:
    folder = make_run(settings=SMALL | {"rounds": "1"})
    assert d3po("sample", folder.path).returncode == 0
    pictures = folder.images("round-000")
    before = (pictures / "000-000.png").read_bytes()
    shutil.copy(pictures / "000-003.png", pictures / "000-000.png")
    assert_one_clear_line(d3po("train", folder.path), "000-000.png is not what was written", "--repair")
    assert d3po("sample", folder.path, "--repair").returncode == 0
    assert (pictures / "000-000.png").read_bytes() == before


@pytest.mark.parametrize("command", [("votes", "stats"), ("run",), ("report",)], ids=lambda words: words[0])
def test_a_run_without_its_database_is_not_given_another(folder: RunFolder, command: tuple[str, ...]) -> None:
    database = folder.path / "d3po.db"
    database.unlink()
    assert_one_clear_line(d3po(*command, folder.path), str(database), "is gone or empty", "put it back")
    assert not database.exists()


@pytest.mark.parametrize("round", [0, 1])
def test_a_round_whose_checkpoint_was_damaged_is_trained_again_and_nothing_of_later_ones_is_lost(folder: RunFolder, round: int) -> None:
    before, metrics, shown = weights(folder), folder.read_metrics(), losses(folder)
    damaged = list_checkpoints(folder.checkpoints)[round].path
    flip_byte(damaged)
    assert_one_clear_line(d3po("export", folder.path), damaged.name, "delete the file") if round else None
    damaged.unlink()
    done = d3po("run", folder.path)
    assert done.returncode == 0, done.stderr
    assert weights(folder) == before
    assert folder.read_metrics() == metrics
    assert sorted(set(losses(folder))) == sorted(shown)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs a system that tells which file a descriptor is of")
@pytest.mark.parametrize(
    "name",
    [
        "metrics.jsonl",
        "checkpoints/.round-000-update-000002",
        "images/round-000/.000-001.png.writing",
        ".report.html.writing",
    ],
)
def test_a_full_disk_is_one_line_wherever_it_is_met_and_the_run_ends_as_if_there_had_been_room(
    make_run: MakeRun, finished: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = make_run(settings=SMALL | {"rounds": "1"})
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(str(folder.path / name)):
            raise FULL
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert_one_clear_line(d3po("run", folder.path), "cannot write", "No space left on device; free some space")
    done = d3po("run", folder.path)
    assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(finished)[:1]
    assert folder.read_metrics() == finished.read_metrics()[:UPDATES]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FULL], ids=lambda error: type(error).__name__)
def test_what_interrupts_tensorboard_in_the_middle_ends_the_command_and_loses_nothing(
    make_run: MakeRun, finished: RunFolder, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    folder = make_run(settings=SMALL | {"rounds": "1"})
    write, written = RecordWriter.write, 0

    def interrupted(writer: RecordWriter, data: bytes) -> None:
        nonlocal written
        written += 1
        if written == 5:  # the third update, after the head and the mark of the beginning
            raise error
        write(writer, data)

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", interrupted)
        ended = d3po("run", folder.path)
    assert (ended.returncode, ended.stderr.splitlines()[-1].split(";")[0]) == (
        (130, "interrupted") if isinstance(error, KeyboardInterrupt) else (2, "error: No space left on device")
    )
    done = d3po("run", folder.path)
    assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(finished)[:1]
    assert losses(folder) == losses(finished)[:UPDATES]


def test_records_carry_a_hash_that_others_can_check(folder: RunFolder) -> None:
    """As docs/architecture.md says: SHA-256 of the rest, as JSON with sorted keys."""
    import hashlib

    lines = folder.metrics.read_text().splitlines()
    for text in (*lines, *(folder.path / name for name in ("started.json", "database.json", "evaluations/base.json"))):
        record = json.loads(text.read_text() if isinstance(text, Path) else text)
        written = record.pop("sha256")
        assert hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest() == written


def test_a_run_from_before_records_had_hashes_goes_on(folder: RunFolder) -> None:
    for path in (folder.started, *folder.path.glob("evaluations/*.json")):
        record = json.loads(path.read_text())
        del record["sha256"]
        path.write_text(json.dumps(record, indent=1))
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    folder.metrics.write_text("".join(json.dumps({key: line[key] for key in line if key != "sha256"}) + "\n" for line in lines))
    folder.watermark.unlink()
    assert d3po("report", folder.path).returncode == 0
    done = d3po("run", folder.path, "--more", "1")
    assert done.returncode == 0, done.stderr
    assert len(folder.read_metrics()) == 3 * UPDATES
    assert folder.watermark.exists()


def test_an_export_that_finds_no_room_leaves_the_one_before(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert d3po("export", folder.path).returncode == 0
    exported = folder.path / "export"
    before = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    assert len(before) > 3

    def full(*arguments: object, **named: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("diffusers.pipelines.pipeline_utils.DiffusionPipeline.save_pretrained", full)
        assert_one_clear_line(d3po("export", folder.path), f"cannot write {exported}: No space left on device; free some space")
    assert {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()} == before
    assert d3po("export", folder.path).returncode == 0
    assert {path for path in exported.rglob("*") if path.is_file()} == before.keys()
