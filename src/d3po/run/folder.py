"""The run folder: where everything lies, and who may write there."""

import hashlib
import re
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from d3po.artifacts.files import read_bytes, write_atomically
from d3po.artifacts.records import read_record, unseal, write_record
from d3po.config import Objective, RunConfig, dump_config, load_config, override, under_new_names
from d3po.errors import ConfigError, CorruptFileError, RunFolderError, StorageError, told
from d3po.run.places import contents, follow_moves, whole_paths
from d3po.run.prompts import Say, read_prompts, require_new, said_shared, shared_prompts
from d3po.store import Store, Watermark
from d3po.text import read_text

CHANGEABLE: dict[str, bool | set[str]] = {
    **dict.fromkeys(("database", "rounds", "tracking", "guards", "hardware", "vlm_judge", "recipe"), True),
    "evaluation": {"blind_questions", "blind_between_rounds"},
    "feedback": {"source", "ask", "pairs_per_prompt", "choose", "overlap", "quota", "deadline_minutes"},
}
"""Settings that may change between two commands on one folder; all others decide what was already made."""

BASE = "base"
"""Label of the policy before any training."""

CONTENTS = "contents"
"""Where `started.json` keeps the hashes of what the settings name."""
RESTORE = "restore it from a copy, or start a new run folder"
"""What to do about a file that nothing else can make anew."""
MARK_REMEDY = "restore it from a copy; or see that the database is the run's own and complete, and delete the file, which is then made anew"
SECONDS_TO_REMEMBER = 5.0
"""After which the rating page writes down what was voted."""
PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^@\s]+(?=@)|(?<=[?&])(password|sslpassword)=[^&\"\s]+")
"""In a database's URL: before its host, or as an option."""
QUOTED = re.compile(r'"([^"\n]*)"')
PARENTS = re.compile(r"(^|:|sqlite:///)(?:~[\\/]|[A-Za-z]:[\\/]+|/(?!/))[^:+]*[\\/](?=[^:+\\/])")
"""Folders above what a setting names, at its beginning or behind a judge's name."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Paths of a run folder, and its small files."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "run.toml"

    @property
    def started(self) -> Path:
        """The settings that everything made so far depends on."""
        return self.path / "started.json"

    @property
    def watermark(self) -> Path:
        """How far the database had come when the run last wrote it down."""
        return self.path / "database.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def shard(self, round: int, number: int) -> Path:
        return self.path / "rollouts" / f"round-{round:03}" / f"shard-{number:03}.safetensors"

    def images(self, label: str) -> Path:
        return self.path / "images" / label

    def evaluation(self, label: str) -> Path:
        return self.path / "evaluations" / f"{label}.json"

    @property
    def embeddings(self) -> Path:
        return self.path / "embeddings"

    @property
    def verdicts(self) -> Path:
        """What a vision-language model has said."""
        return self.path / "verdicts"

    def relative(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def config(self) -> RunConfig:
        """The run's settings.

        Raises:
            RunFolderError: there is no run here.
            ConfigError: run.toml is not valid, or differs in a setting that decided what was already made.
        """
        if not self.config_path.exists():
            raise RunFolderError(f"{self.path} is not a run folder: it has no run.toml; make one with `d3po init {self.path}`")
        config = load_config(self.config_path)
        self._require_unchanged(config)
        return config

    def _require_unchanged(self, config: RunConfig) -> None:
        if self.started.exists():
            before, now = under_new_names(read_record(self.started, remedy=RESTORE)), self._decisive(config)
            known = before.pop(CONTENTS, {})
            require_same(follow_moves(before, now, known, self.path), now, self.path)

    def change(self, assignments: dict[str, str]) -> RunConfig:
        """Change settings in run.toml, given as dotted keys, and return the new config.

        Raises:
            ConfigError: unknown or out of range, or one that decided what was already made.
        """
        config = whole_paths(override(self.config(), assignments, where="--set"))
        self._require_unchanged(config)
        write_atomically(self.config_path, dump_config(config))
        return config

    def choose_reward(self, name: str) -> RunConfig:
        """Make `name` the reward of a run in which nothing was judged or measured yet, and return the new config.

        Raises:
            ConfigError: something was.
        """
        config = self.config()
        if any(self.path.glob("evaluations/*.json")) or self._is_trained():
            raise ConfigError(
                f"{self.path} is judged by {config.feedback.reward!r} already, so {name!r} cannot take its place; begin another run with it"
            )
        config = override(config, {"feedback.reward": name}, where="reward")
        write_atomically(self.config_path, dump_config(config))
        if self.started.exists():
            write_record(self.started, read_record(self.started, remedy=RESTORE) | self._decisive(config))
        return config

    def mark_started(self, config: RunConfig, say: Say = lambda _: None) -> None:
        """Remember the settings that everything made from here on depends on.

        Raises:
            ConfigError: the run is new, and some of its held-out prompts are training prompts too. Of a run that was begun with such ones it
                is said.
        """
        if not self.started.exists():
            if self._is_trained() or any(self.path.glob("rollouts/*/*.safetensors")):
                raise CorruptFileError(f"{self.started} is gone, which says what the rounds of this run were made with; {RESTORE}")
            require_new(self.prompts(), self.held_out())
            if (whole := whole_paths(config)) != config:
                write_atomically(self.config_path, dump_config(whole))  # a path written by hand is found from anywhere, from now on
            write_record(self.started, self._decisive(whole) | {CONTENTS: contents(whole)})
            return
        self._remember_moves(config)
        if shared := shared_prompts(self.prompts(), self.held_out()):
            say(f"warning: {said_shared(shared)}; this run's figures on held-out prompts flatter it")

    def _remember_moves(self, config: RunConfig) -> None:
        """Write down new places of what was moved, whose content has been looked at, so that it is not looked at again."""
        before = read_record(self.started, remedy=RESTORE)
        moved = follow_moves(before, self._decisive(config), before.get(CONTENTS, {}), self.path)
        if moved != before:
            write_record(self.started, moved)

    def _decisive(self, config: RunConfig) -> dict[str, Any]:
        contents = {name: read_bytes(self.path / name, remedy=RESTORE) for name in ("prompts.txt", "held_out.txt")}
        files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        return config.model_dump(mode="json", exclude=CHANGEABLE) | {"files": files}

    def store(self, url: str = "") -> Store:
        """The run's database: `d3po.db` in the folder, or one elsewhere by its URL.

        Raises:
            CorruptFileError: it is gone or damaged, or lacks what it held when the run last wrote down how far it had come.
            StorageError: it cannot be opened.
        """
        mark = self._watermark()
        may_be_new = mark is None and not self._is_trained()
        store = (
            Store(url, key_file=self.path / "d3po.key", may_be_new=may_be_new) if url else Store.in_folder(self.path, may_be_new=may_be_new)
        )
        try:
            if not may_be_new:
                store.database.require_sound()
            self._require_complete(store, mark, may_be_new=may_be_new)
        except BaseException:
            store.close()
            raise
        return store

    def _require_complete(self, store: Store, mark: Watermark | None, *, may_be_new: bool) -> None:
        lacks = store.lacks(mark) if mark else [] if may_be_new or store.watermark().image else ["pictures"]
        if lacks:
            raise CorruptFileError(
                f"the database {store.database.name} is not as this run left it: it lacks {' and '.join(lacks)} that it held before (is it an "
                "older copy, a copy made without its -wal file, or another run's?); put the newest one back, together with the files of its name "
                "and -wal or -shm that lay beside it; if it is lost, start a new run folder"
            )

    def remember(self, store: Store) -> None:
        """Write down how far the database has come, so that what lacks any of it is never taken for it.

        Raises:
            StorageError: the disk is full or not writable, or the database is away.
        """
        with FileLock(self.path / ".database.lock"):  # a run and its rating page both do
            mark = store.watermark()
            if mark != self._watermark():
                write_record(self.watermark, asdict(mark))

    @contextmanager
    def remembering(self, store: Store) -> Generator[None, None, None]:
        """Within the block, write down again and again how far the database has come; where that fails, what is in the database is still safe."""
        over = threading.Event()

        def remember() -> None:
            while not over.wait(SECONDS_TO_REMEMBER):
                with suppress(StorageError):
                    self.remember(store)

        thread = threading.Thread(target=remember, name="d3po-remember", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(2 * SECONDS_TO_REMEMBER)

    def _watermark(self) -> Watermark | None:
        """How far the database has come; None in a run that has not begun, or from before this was written down."""
        if not self.watermark.exists():
            return None
        record = read_record(self.watermark, remedy=MARK_REMEDY, needs=("journal", "image", "vote"))
        return Watermark(**{name: tuple(row) if row else None for name, row in record.items()})

    def _is_trained(self) -> bool:
        return any(self.checkpoints.glob("round-*-final-*.safetensors"))

    def public_settings(self) -> str:
        """run.toml without the password that a database's URL may hold and without folders of this machine: reports and model cards may be
        shown to anybody.
        """
        settings = re.sub(
            PASSWORD, lambda found: f"{found[2]}=***" if found[2] else f"{found[1]}:***", read_text(self.config_path, ConfigError)
        )
        return re.sub(QUOTED, lambda quoted: f'"{without_parents(quoted[1])}"', settings)

    def prompts(self) -> list[str]:
        """The prompts that rounds draw from."""
        return self._prompts("prompts.txt")

    def held_out(self) -> list[str]:
        """The prompts that only evaluation sees."""
        return self._prompts("held_out.txt")

    def _prompts(self, name: str) -> list[str]:
        """Of a file that was changed by hand, lines that stand there twice are kept once; `d3po init` has said so of what it was given."""
        return list(dict.fromkeys(read_prompts(self.path / name)))

    def read_metrics(self) -> list[dict[str, Any]]:
        """All updates' metrics so far, in order of round and update; a line cut short by a kill is left out.

        Raises:
            CorruptFileError: a line is damaged.
        """
        if not self.metrics.exists():
            return []
        *complete, _ = read_bytes(self.metrics, remedy=RESTORE).split(b"\n")
        remedy = "restore the file from a copy, or delete that line: the report then lacks its update"
        lines = [
            unseal(line, f"{self.metrics}, line {number},", remedy=remedy, needs=("round", "update"))
            for number, line in enumerate(complete, start=1)
        ]
        return sorted(lines, key=lambda line: (line["round"], line["update"]))

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for this process; see `locked`."""
        return locked(self.path)


def without_parents(value: str) -> str:
    """A setting in which paths are cut to their last names."""
    return re.sub(PARENTS, r"\1", value)


@contextmanager
def locked(path: Path) -> Generator[None, None, None]:
    """Hold a folder for this process; the lock goes with the process, however it ends.

    Raises:
        RunFolderError: another process holds it.
        StorageError: it is not writable.
    """
    lock = FileLock(path / ".lock")
    try:
        with told(f"cannot work in {path}"):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(f"{path} is in use by another d3po process; wait for it or stop it first") from error
    try:
        yield
    finally:
        lock.release()


def label_of(rounds: int) -> str:
    """Name of the policy after that many rounds, in files and in the store."""
    return BASE if rounds == 0 else f"round-{rounds - 1:03}"


def series_of(label: str) -> str:
    """The name under which the store knows the pictures of an evaluation."""
    return f"held-out/{label}"


def create_run(path: Path, config: RunConfig, *, prompts: list[str], held_out: list[str]) -> RunFolder:
    """Make a run folder with its settings and prompts.

    Raises:
        RunFolderError: there is a run already.
        ConfigError: held-out prompts are among the training prompts, or too few.
    """
    folder = RunFolder(path=path)
    if folder.config_path.exists():
        raise RunFolderError(f"{path} holds a run already; go on with `d3po run {path}` or choose another folder")
    require_new(prompts, held_out)
    if len(held_out) < config.evaluation.prompts:
        raise ConfigError(
            f"evaluation.prompts is {config.evaluation.prompts} but there are {len(held_out)} held-out prompts; add some or lower it"
        )
    if len(prompts) < config.sampling.prompts_per_round:
        raise ConfigError(
            f"sampling.prompts_per_round is {config.sampling.prompts_per_round} but there are {len(prompts)} prompts; add some or lower it"
        )
    write_atomically(path / "prompts.txt", "\n".join(prompts) + "\n")
    write_atomically(path / "held_out.txt", "\n".join(held_out) + "\n")
    write_atomically(folder.config_path, dump_config(config))
    return folder


def require_same(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Hold the settings a run was made with against those of now. A setting that did not exist then was as its default is.

    Raises:
        ConfigError: they differ; the first difference is named.
    """
    new = _flat(now)
    of_this_objective = RunConfig(objective=Objective(name=now["objective"]["name"]))
    defaults = {key: value for key, value in _flat(of_this_objective.model_dump(mode="json")).items() if key in new}
    old = defaults | _flat(before)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"{path}: {key} is {new.get(key)!r}, but this run was made with {old.get(key)!r}; set it back, or start a new run folder"
            )


def _flat(settings: dict[str, Any], table: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{table}{key}.") if isinstance(value, dict) else {f"{table}{key}": value}
    return flat
