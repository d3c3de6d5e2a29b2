"""The run folder: the paths in it, its lock, and which settings may change."""

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
from d3po.errors import ConfigError, CorruptFileError, RunFolderError, StorageError, storage_errors
from d3po.run.places import contents, follow_moves, whole_paths
from d3po.run.prompts import Say, read_prompts, require_new, said_shared, shared_prompts
from d3po.store import Store, Watermark
from d3po.text import read_text

CHANGEABLE: dict[str, bool | set[str]] = {
    **dict.fromkeys(("database", "rounds", "tracking", "guards", "hardware", "vlm_judge", "recipe"), True),
    "evaluation": {"blind_questions", "blind_between_rounds"},
    "feedback": {"source", "ask", "pairs_per_prompt", "choose", "overlap", "quota", "deadline_minutes"},
}
"""Settings that may change between two commands on one folder. All others must stay, because earlier results depend on them."""

BASE = "base"
"""Label of the policy before any training."""

CONTENTS = "contents"
"""The key in `started.json` under which the hashes of files and folders named by settings are kept."""
RESTORE = "restore it from a copy, or start a new run folder"
"""What to do about a file that cannot be made again."""
MARK_REMEDY = "restore it from a copy; or check that the database belongs to this run and is complete, and delete the file, which is then written again"
SECONDS_TO_REMEMBER = 5.0
"""Seconds between two updates of the watermark while the rating page is served."""
PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^@\s]+(?=@)|(?<=[?&])(password|sslpassword)=[^&\"\s]+")
"""A password in a database's URL: before the host, or as an option."""
QUOTED = re.compile(r'"([^"\n]*)"')
PARENTS = re.compile(r"(^|:|sqlite:///)(?:~[\\/]|[A-Za-z]:[\\/]+|/(?!/))[^:+]*[\\/](?=[^:+\\/])")
"""The parent folders of a path in a setting, at its beginning or behind a scorer's name."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run folder: the paths in it, its settings, prompts and metrics."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "run.toml"

    @property
    def started(self) -> Path:
        """The file with the settings that everything made so far depends on."""
        return self.path / "started.json"

    @property
    def watermark(self) -> Path:
        """The file that records how far the database had come."""
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
        """The folder with the answers of a vision-language model."""
        return self.path / "verdicts"

    def relative(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def config(self) -> RunConfig:
        """Read the run's settings.

        Raises:
            RunFolderError: there is no run in this folder.
            ConfigError: run.toml is not valid, or changes a setting that earlier results depend on.
        """
        config = self._written()
        self._require_unchanged(config)
        return config

    def _written(self) -> RunConfig:
        if not self.config_path.exists():
            raise RunFolderError(f"{self.path} is not a run folder: it has no run.toml; make one with `d3po init {self.path}`")
        return load_config(self.config_path)

    def _require_unchanged(self, config: RunConfig) -> None:
        if self.started.exists():
            before, now = under_new_names(read_record(self.started, remedy=RESTORE)), self._decisive(config)
            known = before.pop(CONTENTS, {})
            require_same(follow_moves(before, now, known, self.path), now, self.path)

    def change(self, assignments: dict[str, str]) -> RunConfig:
        """Change settings in run.toml, given as dotted keys, and return the new config.

        Raises:
            ConfigError: a setting is unknown or out of range, or earlier results depend on it.
        """
        config = whole_paths(override(self._written(), assignments, where="--set"))
        self._require_unchanged(config)
        write_atomically(self.config_path, dump_config(config))
        return config

    def choose_reward(self, name: str, *, compared: bool) -> RunConfig:
        """Make `name` the reward of a run in which nothing was compared, trained or evaluated yet, and return the new config.

        Args:
            name: of the reward.
            compared: whether the next round's pictures have been compared already.

        Raises:
            ConfigError: something was compared, trained or evaluated.
        """
        config = self.config()
        if compared or any(self.path.glob("evaluations/*.json")) or self._is_trained():
            raise ConfigError(
                f"{self.path} already uses the reward {config.feedback.reward!r}, so {name!r} cannot replace it; begin another run with it"
            )
        config = override(config, {"feedback.reward": name}, where="reward")
        write_atomically(self.config_path, dump_config(config))
        if self.started.exists():
            write_record(self.started, read_record(self.started, remedy=RESTORE) | self._decisive(config))
        return config

    def mark_started(self, config: RunConfig, say: Say = lambda _: None) -> None:
        """Record the settings that everything made from here on depends on.

        In a run that was begun with held-out prompts among its training prompts, this is reported through `say`.

        Raises:
            ConfigError: the run is new, and some of its held-out prompts are training prompts too.
            CorruptFileError: the run has results, but the file of their settings is missing.
        """
        if not self.started.exists():
            if self._is_trained() or any(self.path.glob("rollouts/*/*.safetensors")):
                raise CorruptFileError(
                    f"{self.started} is missing, which holds the settings that this run's rounds were made with; {RESTORE}"
                )
            require_new(self.prompts(), self.held_out())
            if (whole := whole_paths(config)) != config:
                write_atomically(self.config_path, dump_config(whole))  # relative paths become absolute, so that they work from any folder
            write_record(self.started, self._decisive(whole) | {CONTENTS: contents(whole)})
            return
        self._remember_moves(config)
        if shared := shared_prompts(self.prompts(), self.held_out()):
            say(f"warning: {said_shared(shared)}; this run's figures on held-out prompts flatter it")

    def _remember_moves(self, config: RunConfig) -> None:
        """Record the new paths of files that were moved and checked, so that they need not be checked again."""
        before = read_record(self.started, remedy=RESTORE)
        moved = follow_moves(before, self._decisive(config), before.get(CONTENTS, {}), self.path)
        if moved != before:
            write_record(self.started, moved)

    def _decisive(self, config: RunConfig) -> dict[str, Any]:
        contents = {name: read_bytes(self.path / name, remedy=RESTORE) for name in ("prompts.txt", "held_out.txt")}
        files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        return config.model_dump(mode="json", exclude=CHANGEABLE) | {"files": files}

    def store(self, url: str = "") -> Store:
        """Open the run's database: `d3po.db` in the folder, or the one at `url`.

        Raises:
            CorruptFileError: it is missing or damaged, or lacks entries that the watermark says it held.
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
                "older copy, a copy made without its -wal file, or another run's?); put the newest one back, together with the files of the same "
                "name that end in -wal or -shm; if it is lost, start a new run folder"
            )

    def remember(self, store: Store) -> None:
        """Record how far the database has come, so that an older copy or another database is not mistaken for it.

        Raises:
            StorageError: the disk is full or not writable, or the database is unreachable.
        """
        with FileLock(self.path / ".database.lock"):  # the run and its rating page may both write
            mark = store.watermark()
            if mark != self._watermark():
                write_record(self.watermark, asdict(mark))

    @contextmanager
    def remembering(self, store: Store) -> Generator[None, None, None]:
        """Within the block, regularly record how far the database has come. A failure is ignored: what is in the database is still safe."""
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
        """Read how far the database had come. None in a run that has not begun, or that was made by a version that did not record it."""
        if not self.watermark.exists():
            return None
        record = read_record(self.watermark, remedy=MARK_REMEDY, needs=("journal", "image", "vote"))
        return Watermark(**{name: tuple(row) if row else None for name, row in record.items()})

    def _is_trained(self) -> bool:
        return any(self.checkpoints.glob("round-*-final-*.safetensors"))

    def public_settings(self) -> str:
        """The text of run.toml without database passwords and without parent folders of paths, for reports and model cards that may be published."""
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
        """Read a prompt file of the folder. Duplicate lines, which only an edit by hand can bring in, are dropped."""
        return list(dict.fromkeys(read_prompts(self.path / name)))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read the metrics of all updates so far, in order of round and update. A last line cut short by a kill is left out.

        Raises:
            CorruptFileError: a line is damaged.
        """
        if not self.metrics.exists():
            return []
        *complete, _ = read_bytes(self.metrics, remedy=RESTORE).split(b"\n")
        remedy = "restore the file from a copy, or delete that line: the report then leaves out its update"
        lines = [
            unseal(line, f"{self.metrics}, line {number},", remedy=remedy, needs=("round", "update"))
            for number, line in enumerate(complete, start=1)
        ]
        return sorted(lines, key=lambda line: (line["round"], line["update"]))

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder for this process; see `locked`."""
        return locked(self.path)


def without_parents(value: str) -> str:
    """Shorten the paths in a setting to their last component."""
    return re.sub(PARENTS, r"\1", value)


@contextmanager
def locked(path: Path) -> Generator[None, None, None]:
    """Lock a folder for this process within the block. The operating system releases the lock however the process ends.

    Raises:
        RunFolderError: another process holds the lock.
        StorageError: the folder is not writable.
    """
    lock = FileLock(path / ".lock")
    try:
        with storage_errors(f"cannot work in {path}"):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(f"{path} is in use by another d3po process; wait for it or stop it first") from error
    try:
        yield
    finally:
        lock.release()


def label_of(rounds: int) -> str:
    """The label of the policy after that many rounds of training, in file names and in the store: `base`, `round-000`, ..."""
    return BASE if rounds == 0 else f"round-{rounds - 1:03}"


def series_of(label: str) -> str:
    """The name under which the store knows the pictures of an evaluation."""
    return f"held-out/{label}"


def create_run(path: Path, config: RunConfig, *, prompts: list[str], held_out: list[str]) -> RunFolder:
    """Make a run folder with its settings and prompts.

    Raises:
        RunFolderError: there is already a run in the folder.
        ConfigError: held-out prompts are among the training prompts, or there are too few prompts.
    """
    folder = RunFolder(path=path)
    if folder.config_path.exists():
        raise RunFolderError(f"{path} holds a run already; continue it with `d3po run {path}` or choose another folder")
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
    """Compare the settings that a run was made with to the present ones. A setting that did not exist then counts as its present default.

    Raises:
        ConfigError: they differ; the message names the first difference.
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
