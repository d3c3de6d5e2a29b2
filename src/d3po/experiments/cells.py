"""The cells of a comparison: one ordinary run for each objective, reward and seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from d3po.config import RunConfig
from d3po.errors import ConfigError
from d3po.experiments.spec import ObjectiveSpec, Spec, slug
from d3po.recipes import load_recipe
from d3po.run.folder import RunFolder, create_run, require_same
from d3po.run.needs import check_needs
from d3po.run.prompts import Say
from d3po.run.starting import prompts_for, settings_for_objective, start


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of the grid: one run."""

    label: str
    reward: str
    seed: int
    config: RunConfig
    """The configuration of the run. Its `rounds` is the recipe's until the budget has determined the number."""
    prompts: list[str]
    held_out: list[str]

    @property
    def name(self) -> str:
        return f"{self.label}.{slug(self.reward)}.{self.seed}"

    def folder(self, comparison: Path) -> RunFolder:
        """The cell's run folder in the comparison's folder."""
        return RunFolder(path=comparison / "runs" / self.name)


def cells_of(spec: Spec, say: Say = lambda _: None) -> list[Cell]:
    """The cells of the whole grid. All cells of a seed come before those of the next one, so that early results can already be compared.

    Duplicates dropped from prompt files are reported through `say`, once for all cells.

    Raises:
        ConfigError: an entry's settings do not make a run; the message names the entry.
    """
    shown = set[str]()

    def say_once(line: str) -> None:
        if line not in shown:
            shown.add(line)
            say(line)

    return [_cell(spec, entry, reward, seed, say_once) for seed in spec.seeds for reward in spec.rewards for entry in spec.objectives]


def by_label(cells: Sequence[Cell]) -> dict[str, Cell]:
    """The first cell of each label, in order. It stands for the label's work, which does not depend on seed and reward."""
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.label, cell)
    return first


def _cell(spec: Spec, entry: ObjectiveSpec, reward: str, seed: int, say: Say) -> Cell:
    given = {key: _toml(value) for key, value in (spec.settings | entry.settings).items()}
    of_cell = {"model": _toml(spec.model), "seed": _toml(seed), "feedback.reward": _toml(reward), "feedback.source": "reward"}
    try:
        begun = start(
            load_recipe(spec.recipe), (settings_for_objective(entry.name) if entry.name else {}) | given | of_cell, where="settings"
        )
        check_needs(begun.config)
    except ConfigError as error:
        raise ConfigError(f"objective {entry.label!r} of the comparison: {error}") from error
    files = [Path(name) if name else None for name in (spec.prompts, spec.held_out)]
    prompts, held_out = prompts_for(begun, *files, say=say)
    return Cell(label=entry.label, reward=reward, seed=seed, config=begun.config, prompts=prompts, held_out=held_out)


def _toml(value: Any) -> str:
    return tomlkit.item(value).as_string()


def make_folder(cell: Cell, comparison: Path, *, rounds: int | None) -> RunFolder:
    """Make the cell's run folder, or check the existing one, and set its number of rounds. `rounds` None leaves the number as it is.

    Raises:
        ConfigError: the existing run was made with other settings or prompts.
    """
    folder = cell.folder(comparison)
    if not folder.config_path.exists():
        return create_run(
            folder.path,
            cell.config.model_copy(update={"rounds": rounds or cell.config.rounds}),
            prompts=cell.prompts,
            held_out=cell.held_out,
        )
    config = folder.config()
    exclude = {"rounds"}
    require_same(config.model_dump(mode="json", exclude=exclude), cell.config.model_dump(mode="json", exclude=exclude), folder.path)
    if (folder.prompts(), folder.held_out()) != (cell.prompts, cell.held_out):
        raise ConfigError(f"{folder.path} was made with other prompts than the comparison's; use those again, or another folder")
    if rounds is not None and config.rounds != rounds:
        folder.change({"rounds": str(rounds)})
    return folder
