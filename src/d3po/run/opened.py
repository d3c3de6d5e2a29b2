"""An open run: its folder, settings, store, journal, rewards and objective. It loads no model."""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, takewhile
from typing import Any

from d3po.artifacts.checkpoints import CheckpointFile, list_checkpoints
from d3po.config import RunConfig
from d3po.errors import TrainingStoppedError
from d3po.objectives.base import Needs, Objective
from d3po.objectives.registry import OBJECTIVES, build
from d3po.progress import Narrator
from d3po.run.folder import RunFolder
from d3po.run.journal import RunJournal
from d3po.run.needs import check_needs
from d3po.scorers.catalogue import Reward
from d3po.scorers.registry import load_criteria, load_reward
from d3po.store import Store
from d3po.text import fold
from d3po.training.distributed import Distributed
from d3po.training.guards import Alarm
from d3po.training.tracking import start_wandb


def open_run(folder: RunFolder, narrator: Narrator | None = None, *, config: RunConfig | None = None) -> "OpenRun":
    """Open a run folder. A caller that writes into the folder must hold its lock (`RunFolder.locked`).

    Args:
        folder: the run folder.
        narrator: prints messages and progress. Default: to the console.
        config: the run's settings, if the caller has read them already. Default: those in run.toml.

    Raises:
        RunFolderError: there is no run in the folder.
        ConfigError: run.toml is not valid, changes a setting that earlier results depend on, or does not meet the objective's needs.
    """
    return OpenRun(folder=folder, config=config or folder.config(), narrator=narrator or Narrator())


@dataclass(kw_only=True)
class OpenRun:
    """An open run without its model. Its parts are opened when they are first used. Make one with `open_run`."""

    folder: RunFolder
    config: RunConfig
    narrator: Narrator
    scores: dict[int, tuple[float, ...]] = field(default_factory=dict[int, tuple[float, ...]], init=False)
    """Scores of sampled images that this process has computed, by image id, so that no scorer is called twice."""

    def __post_init__(self) -> None:
        check_needs(self.config)

    @cached_property
    def needs(self) -> Needs:
        """What the run's objective needs."""
        return OBJECTIVES[self.config.objective.name].needs

    @cached_property
    def objective(self) -> Objective:
        """The run's objective, with its settings."""
        return build(self.config.objective.name, **self.config.objective.settings.model_dump())

    @property
    def judged_by_people(self) -> bool:
        """Whether people judge the run: then their figure comes first, and measured figures are named by the reward."""
        return self.config.feedback.source == "human"

    @cached_property
    def store(self) -> Store:
        """The run's database."""
        return self.folder.store(self.config.database)

    @cached_property
    def held_out_prompts(self) -> frozenset[int]:
        """Ids in the store of all prompts that count as held-out prompts, compared by `fold`."""
        held_out = set(map(fold, self.folder.held_out()))
        return frozenset(id for id, prompt in self.store.pictures.prompts().items() if fold(prompt) in held_out)

    @cached_property
    def journal(self) -> RunJournal:
        """The journal for the dashboard."""
        return RunJournal(lambda: self.store.journal)

    @cached_property
    def criteria(self) -> tuple[Reward, ...]:
        """The rewards that `feedback.reward` names, one for each criterion. They are loaded once, for comparing and for evaluating."""
        return load_criteria(self.config.feedback.reward, self.narrator.say)

    @cached_property
    def held_out_reward(self) -> Reward | None:
        """The reward that is measured but never trained on (`evaluation.held_out_reward`), if the run has one. It is loaded once."""
        name = self.config.evaluation.held_out_reward
        return load_reward(name, self.narrator.say) if name else None

    @cached_property
    def wandb(self) -> Any:
        """The run at Weights & Biases if `tracking.wandb` is on, else None."""
        return start_wandb(self.folder.path, self.config) if self.config.tracking.wandb else None

    @cached_property
    def distributed(self) -> Distributed:
        """The processes that work on this run."""
        return Distributed(divided=self.config.hardware.divide != "no")

    def raise_alarm(self, alarm: Alarm, round: int) -> None:
        """Report that a guard fired.

        Raises:
            TrainingStoppedError: the guard stops the run.
        """
        self.journal.alarm(alarm, round)
        if alarm.stops:
            raise TrainingStoppedError(alarm.message)
        self.narrator.say(f"warning: {alarm.message}")

    def finals(self) -> list[CheckpointFile]:
        """The final checkpoint of every trained round, in order."""
        return final_checkpoints(self.folder)

    def trained_rounds(self) -> int:
        """The number of rounds whose training is finished."""
        return len(self.finals())

    def close(self) -> None:
        """Close the database and finish the run at Weights & Biases."""
        if self.__dict__.get("wandb") is not None:
            self.wandb.finish()
        if "store" in self.__dict__:
            self.store.close()


def final_checkpoints(folder: RunFolder) -> list[CheckpointFile]:
    """The final checkpoint of every trained round, in order."""
    by_round = {checkpoint.round: checkpoint for checkpoint in list_checkpoints(folder.checkpoints) if checkpoint.final}
    return [by_round[round] for round in takewhile(by_round.__contains__, count())]
