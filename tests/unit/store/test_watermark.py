"""A database in a run folder is the one that was there, with all that it held; what is not is named and left as it is."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from d3po.config import RunConfig
from d3po.errors import CorruptFileError, StorageError
from d3po.run.folder import RunFolder, create_run
from d3po.store import NewPicture, Store

Add = Callable[[Store, int], None]


def add_picture(store: Store, number: int) -> None:
    (prompt,) = store.pictures.add_prompts(["a cat"])
    picture = NewPicture(prompt=prompt, number=number, path=f"{number}.png", sha256=f"{number:064}")
    store.pictures.add_pictures(series="import/x", origin="imported", model="m", policy="", seed=None, pictures=[picture])


def add_entry(store: Store, number: int) -> None:
    store.journal.write("phase", number, {"phase": "sampling"})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create_run(
        tmp_path / "run",
        RunConfig.model_validate({"evaluation": {"prompts": 1}, "sampling": {"prompts_per_round": 1}}),
        prompts=["a cat"],
        held_out=["a bee"],
    )


def used(folder: RunFolder, add: Add = add_picture, count: int = 2) -> None:
    """A database that the folder remembers with so many rows."""
    store = folder.store()
    for number in range(count):
        add(store, number)
    folder.remember(store)
    store.close()


def database(folder: RunFolder) -> Path:
    return folder.path / "d3po.db"


def left(folder: RunFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir() if path.name.startswith("d3po.db")}


def test_a_database_goes_on_from_where_it_was(folder: RunFolder) -> None:
    used(folder)
    store = folder.store()
    add_picture(store, 2)
    store.close()
    folder.store().close()


def test_one_that_is_gone_is_not_made_anew(folder: RunFolder) -> None:
    used(folder)
    database(folder).unlink()
    before = left(folder)
    with pytest.raises(CorruptFileError, match=rf"the database {database(folder)} is gone or empty, .*; put it back"):
        folder.store()
    assert left(folder) == before == set()


def test_an_empty_one_is_left_as_it_is(folder: RunFolder) -> None:
    used(folder)
    database(folder).write_bytes(b"")
    with pytest.raises(CorruptFileError, match="is gone or empty"):
        folder.store()
    assert database(folder).read_bytes() == b""


def test_one_without_tables_is_not_given_any(folder: RunFolder, tmp_path: Path) -> None:
    """What a copy without the `-wal` file is, of a database that was in use since it was made."""
    store = folder.store()
    add_picture(store, 0)
    folder.remember(store)
    shutil.copy(database(folder), tmp_path / "copy.db")
    store.close()
    database(folder).unlink()
    shutil.copy(tmp_path / "copy.db", database(folder))
    with pytest.raises(CorruptFileError, match="is gone or empty"):
        folder.store()


@pytest.mark.parametrize(("add", "what"), [(add_picture, "pictures"), (add_entry, "entries of the journal")])
def test_an_older_copy_is_noticed(folder: RunFolder, tmp_path: Path, add: Add, what: str) -> None:
    used(folder, add, count=1)
    shutil.copy(database(folder), tmp_path / "older.db")
    store = folder.store()
    add(store, 1)
    folder.remember(store)
    store.close()
    shutil.copy(tmp_path / "older.db", database(folder))
    with pytest.raises(CorruptFileError, match=rf"lacks {what} that it held before .*; put the newest one back"):
        folder.store()


def test_damaged_pages_are_noticed(folder: RunFolder) -> None:
    used(folder, count=40)
    content = bytearray(database(folder).read_bytes())
    page = content.rindex(b"37.png") // 4096 * 4096
    content[page : page + 64] = bytes(64)  # the page's head
    database(folder).write_bytes(content)
    with pytest.raises(CorruptFileError, match=rf"the database {database(folder)} is damaged \(.+\); restore it from a copy"):
        folder.store()


def test_a_live_copy_without_its_wal_file_is_noticed(folder: RunFolder, tmp_path: Path) -> None:
    used(folder, count=1)
    store = folder.store()
    add_picture(store, 1)
    folder.remember(store)
    assert database(folder).with_name("d3po.db-wal").stat().st_size > 0
    copied = RunFolder(path=tmp_path / "copied")
    shutil.copytree(folder.path, copied.path, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    whole = RunFolder(path=tmp_path / "whole")
    shutil.copytree(folder.path, whole.path)
    store.close()
    whole.store().close()
    with pytest.raises(CorruptFileError, match="lacks pictures"):
        copied.store()


def test_another_runs_database_is_noticed_however_much_it_holds(folder: RunFolder, tmp_path: Path) -> None:
    used(folder, add_entry, count=1)
    other = RunFolder(path=tmp_path / "other")
    shutil.copytree(folder.path, other.path, ignore=shutil.ignore_patterns("d3po.db*", "database.json"))
    used(other, add_entry, count=5)
    shutil.copy(database(other), database(folder))
    with pytest.raises(CorruptFileError, match="lacks entries of the journal"):
        folder.store()


def test_a_run_from_before_this_was_written_down_opens_if_its_database_holds_pictures(folder: RunFolder) -> None:
    used(folder)
    folder.watermark.unlink()
    folder.checkpoints.mkdir()
    (folder.checkpoints / "round-000-update-000001-final-0123456789abcdef.safetensors").touch()
    folder.store().close()
    database(folder).unlink()
    with pytest.raises(CorruptFileError, match="is gone or empty"):
        folder.store()
    Store.in_folder(folder.path).close()
    with pytest.raises(CorruptFileError, match="lacks pictures"):
        folder.store()


def test_a_damaged_mark_names_itself(folder: RunFolder) -> None:
    used(folder)
    folder.watermark.write_text(folder.watermark.read_text().replace("2,", "1,", 1))
    with pytest.raises(CorruptFileError, match=rf"{folder.watermark} is damaged or was changed: .*; restore it from a copy; or check that"):
        folder.store()


def test_while_the_page_is_served_votes_are_written_down_within_seconds(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d3po.run.folder.SECONDS_TO_REMEMBER", 0.01)
    store, threads = folder.store(), threading.active_count()
    with folder.remembering(store):
        add_picture(store, 0)
        deadline = time.monotonic() + 60
        while not (folder.watermark.exists() and '"image": [' in folder.watermark.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert threading.active_count() == threads
    store.close()
    database(folder).unlink()
    with pytest.raises(CorruptFileError, match="is gone or empty"):
        folder.store()


def test_a_page_goes_on_where_nothing_can_be_written_down(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def full(*arguments: object) -> None:
        tried.set()
        raise StorageError("the disk is full")

    monkeypatch.setattr("d3po.run.folder.SECONDS_TO_REMEMBER", 0.01)
    monkeypatch.setattr("d3po.run.folder.write_record", full)
    store = folder.store()
    with folder.remembering(store):
        add_picture(store, 0)
        assert tried.wait(60)
    store.close()
