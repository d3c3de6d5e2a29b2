"""The library: a run as an object, one method a phase. The command line stands on it.

    import d3po

    with d3po.Run.create("runs/mine", prompts=["a cat", "a dog", ...]) as run:
        run.sample()
        run.compare("warmth")                  # or a function (image, prompt) -> float; or run.serve() for people; or run.votes.add(...)
        run.train()
        result = run.evaluate()                # result.win_rate.value, .low, .high, result.diversity_kept
        pipe = run.pipeline()                  # a plain diffusers pipeline with the LoRA loaded
        run.export("my-style")

A run is a folder: whatever is done here goes on from there with `d3po run runs/mine`, and the other way round. Each method does only what is not done
yet, so a program that was killed is started again and goes on.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from rich.console import Console

from d3po.config import RunConfig
from d3po.errors import ConfigError, PromptError, RunFolderError, TrainingStoppedError, VoteError
from d3po.models.load import plain_pipeline
from d3po.preferences.records import Answer, NewQuestion
from d3po.recipes import load_recipe
from d3po.run.clicks import with_clicks
from d3po.run.evaluate.phase import EvaluationResult, evaluate
from d3po.run.evaluate.report import write_report
from d3po.run.export.generating import generate
from d3po.run.export.phase import export_result
from d3po.run.feedback.blind import ask_blind
from d3po.run.feedback.page import rating_page
from d3po.run.feedback.people import ask_people
from d3po.run.folder import RunFolder, create_run, label_of
from d3po.run.loop import announce, collect_feedback, measure, plan_lines, prepare, read_stop, refuse, result_rounds, run_rounds
from d3po.run.opened import OpenRun, open_run
from d3po.run.progress import Narrator
from d3po.run.prompts import distinct, every_fifth
from d3po.run.sample.phase import is_sampled, sample_round
from d3po.run.session import Session
from d3po.run.starting import prompts_for, settings_for_feedback, settings_for_objective, start
from d3po.run.train.phase import train_round
from d3po.scorers.catalogue import Reward
from d3po.scorers.registry import checked_reward
from d3po.text import prompt_of

__all__ = ["EvaluationResult", "Picture", "Run", "Votes"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A sampled picture."""

    id: int
    path: Path
    prompt: str
    round: int

    def image(self) -> Image.Image:
        """The picture itself, RGB."""
        with Image.open(self.path) as opened:
            return opened.convert("RGB")


class Run:
    """A run folder at work. It holds the folder's lock until it is closed; use it in a `with` block, or call `close`.

    Do not make one by hand: `Run.create` begins a run, `Run.open` goes on with one.
    """

    def __init__(self, session: Session, opened: ExitStack) -> None:
        self._session, self._opened = session, opened
        self._finalizer = weakref.finalize(self, opened.close)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        model: str = "",
        prompts: Sequence[str] | str | Path | None = None,
        held_out: Sequence[str] | str | Path | None = None,
        recipe: str = "default",
        objective: str = "",
        reward: str | Reward = "",
        feedback: str = "",
        clicks: int | None = None,
        settings: Mapping[str, object] | None = None,
        quiet: bool = False,
    ) -> "Run":
        """Begin a run in a new folder, as `d3po init` does, and open it.

        Args:
            path: the folder.
            model: `emoji`, a folder in diffusers' layout, a .safetensors file, a hub id, or `custom:module:function`. Default: the recipe's.
            prompts: a list, or a file with one a line. Default: the recipe's, and for the embedded model a list of its own.
            held_out: prompts that only evaluation sees. Default: every fifth of `prompts`.
            recipe: the settings to start from; `d3po recipes` lists them.
            objective: train by this one, with its own settings in place of the recipe's; `d3po objectives` lists them.
            reward: what pictures are compared by where no person is asked: a scorer's name, or a function (image, prompt) -> float.
            feedback: who compares: `reward`, `human` (asked for the best and the worst of four), `model` or `imported`. Default: the recipe's.
            clicks: those that people will spend; rounds and prompts a round follow from it. Default with `human`: 100.
            settings: others by their dotted names, such as `{"training.epochs": 2}`; docs/configuration.md has them all.
            quiet: print nothing.

        Raises:
            RunFolderError: there is a run in the folder.
            ConfigError: a setting is unknown or out of range, or prompts are too few.
            ModelError: the model is not found, or of no known family.
            PromptError: a prompt file cannot be used.
        """
        folder, narrator = Path(path), _narrator(quiet)
        given = {key: _as_written(value) for key, value in (settings or {}).items()}
        for_people = settings_for_feedback(feedback, given) if feedback else {}
        said = (settings_for_objective(objective) if objective else {}) | for_people | given
        if model:
            said["model"] = model
        if reward:
            said["feedback.reward"] = reward if isinstance(reward, str) else name_of(reward)
        begun = start(load_recipe(recipe), said, where="settings")
        if isinstance(prompts, str | Path | None) and isinstance(held_out, str | Path | None):
            files = [None if each is None else Path(each) for each in (prompts, held_out)]
            trained, kept = prompts_for(begun, *files, say=narrator.say)
        else:
            trained, kept = _split(_listed(prompts, narrator), _listed(held_out, narrator))
        config = with_clicks(begun.config, clicks, feedback=feedback, prompts=len(trained), said=given)
        create_run(folder, config, prompts=trained, held_out=kept)
        run = cls.open(folder, quiet=quiet)
        if callable(reward):
            run._session.run.criteria = (checked_reward(name_of(reward), reward),)
        return run

    @classmethod
    def open(cls, path: str | Path, *, quiet: bool = False) -> "Run":
        """Open a run folder.

        Raises:
            RunFolderError: there is no run, or another process, or another `Run`, is at work in it.
            ConfigError: run.toml is not valid, or differs in a setting that decided what was already made.
        """
        folder = RunFolder(path=Path(path))
        config = folder.config()
        with ExitStack() as opened:
            opened.enter_context(folder.locked())
            session = Session(open_run(folder, _narrator(quiet), config=config))
            return cls(session, opened.pop_all())
        raise AssertionError("the block returns or raises")

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, round={self.round})"

    def close(self) -> None:
        """Let the folder go; nothing more can be done with this object."""
        self._session.close()
        self._finalizer()

    @property
    def path(self) -> Path:
        """The folder."""
        return self._session.run.folder.path

    @property
    def config(self) -> RunConfig:
        """All settings."""
        return self._session.run.config

    @property
    def round(self) -> int:
        """The round that is worked on: as many as are trained to their end."""
        return self._session.run.trained_rounds()

    def change(self, **settings: object) -> None:
        """Change settings that may change while a run goes on, such as `run.change(rounds=3)`; dotted names by `**{"guards.action": "warn"}`.

        Raises:
            ConfigError: one is unknown or out of range, or decided what was already made.
        """
        self._session.run.folder.change({key: _as_written(value) for key, value in settings.items()})
        self._reopen()

    def sample(self, *, repair: bool = False) -> list[Picture]:
        """Sample the pictures of this round, K of each of its prompts; `repair` also makes damaged ones again.

        Raises:
            ConfigError: the settings leave the objective nothing to learn from.
            RunFolderError: a guard stopped the run.
            CorruptFileError: a picture or its trajectory is damaged.
        """
        session, round = self._session, self._next_round()
        assert session.replay  # what the settings leave nothing to train of is said before it is sampled
        session.run.folder.mark_started(session.run.config, session.run.narrator.say)
        sample_round(session, round, repair=repair)
        return self.pictures(round)

    def pictures(self, round: int | None = None) -> list[Picture]:
        """The pictures of a round; default: of this one."""
        wanted = self.round if round is None else round
        return [
            Picture(id=image.id, path=self.path / image.path, prompt=image.prompt, round=wanted)
            for image in self._session.run.store.pictures.images(wanted)
        ]

    def compare(self, reward: str | Reward | None = None) -> int:
        """Have this round's pictures compared by whoever `feedback.source` names; returns how many answers the round has.

        Args:
            reward: compare by this instead: a scorer's name (`d3po scorers` lists them) or a function (image, prompt) -> float, larger is better.
                A run has one reward: it can be chosen until something was judged or measured.

        Raises:
            RunFolderError: the round is not sampled.
            ConfigError: the run is judged by another reward already.
            RewardError: there is no such scorer, or it failed.
        """
        if reward is not None:
            self._judge_by(reward)
        self._require_sampled()
        collect_feedback(self._session.run, self.round)
        return self._session.run.store.votes.count(round=self.round, purpose="train")

    def serve(self, *, port: int = 8000) -> int:
        """Serve the rating page, and wait until people have answered this round's questions; returns how many answers it has.

        Raises:
            RunFolderError: the round is not sampled.
            ConfigError: the port is taken.
        """
        self._require_sampled()
        with rating_page(self.path, port, self._session.run.narrator.say):
            ask_people(self._session.run, self.round, tested=result_rounds(self._session.run))
        return self._session.run.store.votes.count(round=self.round, purpose="train")

    @property
    def votes(self) -> "Votes":
        """Answers from elsewhere."""
        return Votes(self._session.run)

    def train(self) -> None:
        """Train on this round's answers, to its end; where there are none, whoever `feedback.source` names is asked, and people are waited for.

        Raises:
            RunFolderError: the round is not sampled, its answers teach nothing, or a guard stopped the run.
            TrainingStoppedError: a guard stopped it; the round does not stand.
        """
        session, round = self._session, self._next_round()
        prepare(session)
        if session.run.config.feedback.source != "imported":
            self._require_sampled()
            collect_feedback(session.run, round)
        session.run.folder.mark_started(session.run.config, session.run.narrator.say)
        try:
            train_round(session, round)
        except TrainingStoppedError as stop:
            refuse(session, round, str(stop))
            raise

    def evaluate(self) -> EvaluationResult:
        """Measure the newest policy against the base model on held-out prompts; of an untrained run, the base model.

        Raises:
            TrainingStoppedError: a guard finds that the round may not stand.
        """
        session = self._session
        session.run.folder.mark_started(session.run.config, session.run.narrator.say)
        base = evaluate(session, 0)
        announce(session.run, base)
        rounds = result_rounds(session.run)
        if not rounds:
            return base
        try:
            return measure(session, rounds)
        except TrainingStoppedError as stop:
            refuse(session, rounds - 1, str(stop))
            raise

    def ask_blind(self) -> int:
        """Have people compare pictures of the base model and of the result, not knowing which is which; returns how many questions wait at the page.

        Raises:
            RunFolderError: nothing is trained yet.
        """
        return ask_blind(self._session.run, result_rounds(self._session.run), overlap=self.config.feedback.overlap)

    def plan(self) -> list[str]:
        """What the rest of the run will take, in words: pairs, network rows, disk, memory, time. Measured on this machine, in seconds."""
        return plan_lines(self._session)

    def run(self, *, minutes: float = 0.0) -> None:
        """Sample, compare, train and evaluate, round after round, to the end; then write the report. As `d3po run`."""
        run_rounds(self._session, minutes=minutes)

    def generate(
        self, prompts: Sequence[str], *, count: int = 1, seed: int = 0, base: bool = False, directory: str | Path | None = None
    ) -> list[Path]:
        """Draw `count` pictures of each prompt with the result, or with the base model; the same seed is the same noise for both.

        Raises:
            RunFolderError: nothing is trained yet.
        """
        to = Path(directory) if directory else self.path / ("generated-base" if base else "generated")
        return generate(self._session, prompts, to, count=count, seed=seed, base=base)

    def report(self) -> Path:
        """Write report.html from what was measured.

        Raises:
            RunFolderError: nothing was measured.
        """
        if not self._session.run.folder.evaluation(label_of(0)).exists():
            raise RunFolderError(f"{self.path} has not been evaluated yet; measure it with `d3po eval {self.path}`")
        stop = read_stop(self._session.run)
        return write_report(self._session.run, result_rounds(self._session.run), stop.reason if stop else None)

    def export(self, directory: str | Path | None = None) -> list[Path]:
        """Write the result as a LoRA, a merged model and a card; default: into `export` in the run folder.

        Raises:
            RunFolderError: nothing is trained yet.
        """
        try:
            return export_result(self._session, Path(directory) if directory else self.path / "export")
        finally:
            self._reopen()  # the policy that was exported has its LoRA merged into its weights

    def pipeline(self) -> Any:
        """A plain diffusers pipeline with the result's LoRA loaded; nothing of d3po is in it.

        Raises:
            RunFolderError: nothing is trained yet.
            ModelError: the model is one of your own, which has no pipeline.
        """
        with TemporaryDirectory() as directory:
            self.export(directory)
            return plain_pipeline(self.config.model, Path(directory))

    def _judge_by(self, reward: str | Reward) -> None:
        name = reward if isinstance(reward, str) else name_of(reward)
        if name != self.config.feedback.reward:
            self._session.run.folder.choose_reward(name)
            self._reopen()
        if callable(reward):
            self._session.run.criteria = (checked_reward(name, reward),)

    def _next_round(self) -> int:
        if stop := read_stop(self._session.run):
            raise RunFolderError(f"a guard stopped this run: {stop.reason}")
        return self.round

    def _require_sampled(self) -> None:
        if not is_sampled(self._session.run, self.round):
            raise RunFolderError(f"round {self.round} is not sampled to its end; make its pictures with `d3po sample {self.path}`")

    def _reopen(self) -> None:
        """Begin anew with what is in the folder; a function that was given as reward stays."""
        self._session.close()
        old = self._session.run
        self._session = Session(open_run(old.folder, old.narrator))
        if self._session.run.config.feedback.reward == old.config.feedback.reward and "criteria" in old.__dict__:
            self._session.run.criteria = old.criteria


class Votes:
    """Answers that come from elsewhere than the rating page: of your own tool, a file, a colleague's list."""

    def __init__(self, run: OpenRun) -> None:
        self._run = run

    def __len__(self) -> int:
        return self._run.store.votes.count()

    def add(self, preferred: Picture, over: Picture | Iterable[Picture], *, annotator: str = "library", tie: bool = False) -> None:
        """Record that one picture is preferred over another, or over several, of the same prompt and round; or, with `tie`, that they are equal.

        Raises:
            VoteError: the pictures are of different prompts, or one is compared with itself.
            VoteConflictError: the same annotator has said otherwise before.
        """
        others = [over] if isinstance(over, Picture) else list(over)
        if any(other.prompt != preferred.prompt or other.round != preferred.round for other in others):
            raise VoteError("pictures of different prompts or rounds cannot be compared; give two of one prompt and round")
        answer = Answer(outcome="tie") if tie else Answer(outcome="win", winner=preferred.id)
        who = self._run.store.people.annotator(annotator, "human")
        judged = [
            (NewQuestion(kind="pair", purpose="train", images=(preferred.id, other.id), round=preferred.round), answer) for other in others
        ]
        self._run.store.votes.record_judgements(who.id, judged)


def name_of(reward: Callable[..., object]) -> str:
    """How run.toml names a function: `module:function`.

    Raises:
        ConfigError: it has no name of its own, such as a lambda.
    """
    module, name = str(getattr(reward, "__module__", "")), str(getattr(reward, "__name__", ""))
    if not module or not name.isidentifier():
        raise ConfigError(f"the reward {reward!r} has no name that run.toml could keep; define it with `def`")
    return f"{module}:{name}"


def _narrator(quiet: bool) -> Narrator:
    return Narrator(Console(quiet=quiet))


def _as_written(value: object) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_in_list(each) for each in list[object](value))}]"
    return str(value)


def _in_list(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else _as_written(value)


def _listed(prompts: Sequence[str] | str | Path | None, narrator: Narrator) -> list[str]:
    if prompts is None:
        return []
    if isinstance(prompts, str | Path):
        raise ConfigError("prompts and held_out are both lists, or both files")
    return distinct([prompt_of(prompt, "a prompt", PromptError) for prompt in prompts], "the list", narrator.say)


def _split(prompts: list[str], held_out: list[str]) -> tuple[list[str], list[str]]:
    return (prompts, held_out) if held_out else every_fifth(prompts)
