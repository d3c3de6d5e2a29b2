"""The Python interface: a run as an object with one method for each phase. The command line uses it too.

    import d3po

    with d3po.Run.create("runs/mine", prompts=["a cat", "a dog", ...]) as run:
        run.sample()
        run.compare("warmth")                  # or a function (image, prompt) -> float; or run.serve() for people; or run.votes.add(...)
        run.train()
        result = run.evaluate()                # result.win_rate.value, .low, .high, result.diversity_kept
        pipe = run.pipeline()                  # a plain diffusers pipeline with the LoRA loaded
        run.export("my-style")

A run is a folder. A run that was begun here can be continued with `d3po run runs/mine`, and the other way round. Each method does only what is not
done yet, so a program that was killed can simply be started again.
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
from d3po.progress import Narrator
from d3po.recipes import load_recipe
from d3po.run.cost.clicks import with_clicks
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
from d3po.run.prompts import distinct, every_fifth
from d3po.run.sample.phase import is_sampled, sample_round
from d3po.run.session import Session
from d3po.run.starting import prompts_for, settings_for, start
from d3po.run.train.phase import train_round
from d3po.scorers.catalogue import Reward
from d3po.scorers.registry import checked_reward
from d3po.text import prompt_of

__all__ = ["EvaluationResult", "ImportedVotes", "Picture", "Run"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A sampled picture."""

    id: int
    path: Path
    prompt: str
    round: int

    def image(self) -> Image.Image:
        """Read the picture, as RGB."""
        with Image.open(self.path) as opened:
            return opened.convert("RGB")


class Run:
    """An open run. It holds the run folder's lock until it is closed: use it in a `with` block, or call `close`.

    Do not call the constructor: `Run.create` begins a run, and `Run.open` continues one.
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
            model: `emoji` (embedded), a folder in diffusers' layout, a .safetensors file, a hub id, or `custom:module:function`. Default: the recipe's.
            prompts: a list of prompts, or a file with one prompt a line. Default: the recipe's prompts, or the embedded model's if it has none.
            held_out: a list or file of prompts that are used for evaluation only. Default: every fifth of `prompts`.
            recipe: the recipe to start from; `d3po recipes` lists them.
            objective: the objective, with its default settings in place of the recipe's; `d3po objectives` lists them. Default: the recipe's.
            reward: what pictures are compared by if no person is asked: a scorer's name, or a function (image, prompt) -> float.
            feedback: who compares: `reward`, `human` (people choose the best and the worst of four), `model` (a vision-language model) or
                `imported` (votes you add). Default: the recipe's.
            clicks: how many clicks people will spend, which decides the rounds and the prompts per round. Default with `human`: 100.
            settings: other settings by their dotted names, such as `{"training.epochs": 2}`; docs/configuration.md lists them.
            quiet: print nothing.

        Raises:
            RunFolderError: there is already a run in the folder.
            ConfigError: a setting is unknown or out of range, or there are too few prompts.
            ModelError: the model is not found, or belongs to no known family.
            PromptError: a prompt file cannot be used.
        """
        folder, narrator = Path(path), _narrator(quiet)
        given = {key: _as_written(value) for key, value in (settings or {}).items()}
        said = settings_for(objective, feedback, given)
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
            RunFolderError: there is no run in the folder, or another process or another `Run` has it open.
            ConfigError: run.toml is not valid, or changes a setting that earlier results depend on.
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
        """Release the folder. The object cannot be used afterwards."""
        self._session.close()
        self._finalizer()

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._session.run.folder.path

    @property
    def config(self) -> RunConfig:
        """All settings of the run."""
        return self._session.run.config

    @property
    def round(self) -> int:
        """The current round: the number of rounds whose training is finished."""
        return self._session.run.trained_rounds()

    def change(self, **settings: object) -> None:
        """Change settings that may change during a run, such as `run.change(rounds=3)`. Pass dotted names as `**{"guards.action": "warn"}`.

        Raises:
            ConfigError: a setting is unknown or out of range, or earlier results depend on it.
        """
        self._session.run.folder.change({key: _as_written(value) for key, value in settings.items()})
        self._reopen()

    def sample(self, *, repair: bool = False) -> list[Picture]:
        """Sample the pictures of the current round, K for each of its prompts, and return them.

        Args:
            repair: also sample again what is damaged.

        Raises:
            ConfigError: the settings leave the objective nothing to learn from.
            RunFolderError: a guard stopped the run.
            CorruptFileError: what was sampled again differs from what was recorded.
        """
        session, round = self._session, self._next_round()
        assert session.replay  # building it raises if the settings leave nothing to train, before any time is spent on sampling
        session.run.folder.mark_started(session.run.config, session.run.narrator.say)
        sample_round(session, round, repair=repair)
        return self.pictures(round)

    def pictures(self, round: int | None = None) -> list[Picture]:
        """The pictures of a round. Default: the current round."""
        wanted = self.round if round is None else round
        return [
            Picture(id=image.id, path=self.path / image.path, prompt=image.prompt, round=wanted)
            for image in self._session.run.store.pictures.images(wanted)
        ]

    def compare(self, reward: str | Reward | None = None) -> int:
        """Have the current round's pictures compared as `feedback.source` says, and return how many answers the round has.

        Args:
            reward: compare by this reward: a scorer's name (`d3po scorers` lists them) or a function (image, prompt) -> float, larger is better.
                A run has one reward, which can be chosen until something was trained or evaluated with it.

        Raises:
            RunFolderError: the round is not sampled.
            ConfigError: the run already uses another reward.
            RewardError: there is no such scorer, or it failed.
        """
        if reward is not None:
            self._use_reward(reward)
        self._require_sampled()
        collect_feedback(self._session.run, self.round)
        return self._session.run.store.votes.count(round=self.round, purpose="train")

    def serve(self, *, port: int = 8000) -> int:
        """Serve the rating page until people have answered the current round's questions, and return how many answers the round has.

        Raises:
            RunFolderError: the round is not sampled.
            ConfigError: the port is in use.
        """
        self._require_sampled()
        with rating_page(self.path, port, self._session.run.narrator.say):
            ask_people(self._session.run, self.round, tested=result_rounds(self._session.run))
        return self._session.run.store.votes.count(round=self.round, purpose="train")

    @property
    def votes(self) -> "ImportedVotes":
        """Access to the votes, to add votes from elsewhere."""
        return ImportedVotes(self._session.run)

    def train(self) -> None:
        """Train the current round to its end. If its pictures are not compared yet, they are compared first, as `feedback.source` says.

        Raises:
            RunFolderError: the round is not sampled, the objective can learn nothing from its answers, or a guard stopped the run.
            TrainingStoppedError: a guard stopped the training, and the round does not count.
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
        """Measure the newest policy against the base model on held-out prompts. In an untrained run, measure the base model.

        Raises:
            TrainingStoppedError: a guard rejects the newest round.
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
        """Ask people to compare pictures of the base model and of the result without knowing which is which; return the number of questions.

        Raises:
            RunFolderError: nothing is trained and evaluated yet.
        """
        return ask_blind(self._session.run, result_rounds(self._session.run), overlap=self.config.feedback.overlap)

    def plan(self) -> list[str]:
        """Estimate what the whole run takes: pairs, forward passes, disk, memory, time. It measures some steps, which takes seconds."""
        return plan_lines(self._session)

    def run(self, *, minutes: float = 0.0) -> None:
        """Sample, compare, train and evaluate round after round, then write the report, as `d3po run` does.

        Args:
            minutes: end after the round in which sampling, comparing and training have taken this long; 0 goes by the setting `rounds`.
        """
        run_rounds(self._session, minutes=minutes)

    def generate(
        self, prompts: Sequence[str], *, count: int = 1, seed: int = 0, base: bool = False, directory: str | Path | None = None
    ) -> list[Path]:
        """Draw `count` pictures of each prompt with the result, or with the base model if `base`. The same seed gives both the same noise.

        Raises:
            RunFolderError: nothing is trained yet, and `base` is false.
            PromptError: no prompt was given.
        """
        to = Path(directory) if directory else self.path / ("generated-base" if base else "generated")
        return generate(self._session, prompts, to, count=count, seed=seed, base=base)

    def report(self) -> Path:
        """Write report.html from the evaluations so far.

        Raises:
            RunFolderError: nothing was evaluated yet.
        """
        if not self._session.run.folder.evaluation(label_of(0)).exists():
            raise RunFolderError(f"{self.path} has not been evaluated yet; measure it with `d3po eval {self.path}`")
        stop = read_stop(self._session.run)
        return write_report(self._session.run, result_rounds(self._session.run), stop.reason if stop else None)

    def export(self, directory: str | Path | None = None) -> list[Path]:
        """Write the result as a LoRA, as a merged model and with a model card. Default directory: `export` in the run folder.

        Raises:
            RunFolderError: nothing is trained yet.
        """
        try:
            return export_result(self._session, Path(directory) if directory else self.path / "export")
        finally:
            self._reopen()  # exporting has merged the LoRA into the weights of the loaded policy

    def pipeline(self) -> Any:
        """Return a plain diffusers pipeline with the result's LoRA loaded. It contains nothing of d3po.

        Raises:
            RunFolderError: nothing is trained yet.
            ModelError: the model is a custom one, which has no diffusers pipeline.
        """
        with TemporaryDirectory() as directory:
            self.export(directory)
            return plain_pipeline(self.config.model, Path(directory))

    def _use_reward(self, reward: str | Reward) -> None:
        name = reward if isinstance(reward, str) else name_of(reward)
        if name != self.config.feedback.reward:
            compared = self._session.run.store.votes.count(round=self.round, purpose="train") > 0
            self._session.run.folder.choose_reward(name, compared=compared)
            self._reopen()
        if callable(reward):
            self._session.run.criteria = (checked_reward(name, reward),)

    def _next_round(self) -> int:
        if stop := read_stop(self._session.run):
            raise RunFolderError(f"a guard stopped this run: {stop.reason}")
        return self.round

    def _require_sampled(self) -> None:
        if not is_sampled(self._session.run, self.round):
            raise RunFolderError(f"round {self.round} is not completely sampled; sample its pictures with `d3po sample {self.path}`")

    def _reopen(self) -> None:
        """Open the run again from its folder, keeping a function that was given as reward."""
        self._session.close()
        old = self._session.run
        self._session = Session(open_run(old.folder, old.narrator))
        if self._session.run.config.feedback.reward == old.config.feedback.reward and "criteria" in old.__dict__:
            self._session.run.criteria = old.criteria


class ImportedVotes:
    """Votes that come from elsewhere than the rating page: from your own tool, a file, or a colleague's list."""

    def __init__(self, run: OpenRun) -> None:
        self._run = run

    def __len__(self) -> int:
        return self._run.store.votes.count()

    def add(self, preferred: Picture, over: Picture | Iterable[Picture], *, annotator: str = "library", tie: bool = False) -> None:
        """Record that one picture is preferred over another one, or over several, of the same prompt and round; or that they are equal (`tie`).

        Raises:
            VoteError: the pictures are of different prompts or rounds, or one is compared with itself.
            VoteConflictError: the same annotator has answered differently before.
        """
        others = [over] if isinstance(over, Picture) else list(over)
        if any(other.prompt != preferred.prompt or other.round != preferred.round for other in others):
            raise VoteError("pictures of different prompts or rounds cannot be compared; give two of one prompt and round")
        answer = Answer(outcome="tie") if tie else Answer(outcome="win", winner=preferred.id)
        who = self._run.store.people.annotator(annotator, "human")
        answers = [
            (NewQuestion(kind="pair", purpose="train", images=(preferred.id, other.id), round=preferred.round), answer) for other in others
        ]
        self._run.store.votes.record_judgements(who.id, answers)


def name_of(reward: Callable[..., object]) -> str:
    """The name of a function in run.toml: `module:function`.

    Raises:
        ConfigError: it has no name, such as a lambda.
    """
    module, name = str(getattr(reward, "__module__", "")), str(getattr(reward, "__name__", ""))
    if not module or not name.isidentifier():
        raise ConfigError(f"the reward {reward!r} has no name that could be written to run.toml; define it with `def`")
    return f"{module}:{name}"


def _narrator(quiet: bool) -> Narrator:
    return Narrator(Console(quiet=quiet))


def _as_written(value: object) -> str:
    """Write a value as the command line gives it to a setting: TOML, with bare words as text."""
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
        raise ConfigError("prompts and held_out must both be lists, or both be files")
    return distinct([prompt_of(prompt, "a prompt", PromptError) for prompt in prompts], "the list", narrator.say)


def _split(prompts: list[str], held_out: list[str]) -> tuple[list[str], list[str]]:
    return (prompts, held_out) if held_out else every_fifth(prompts)
