"""Determines how much work the cells are and how long it takes, with the loaded model."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from d3po.experiments.budget import Work
from d3po.experiments.cells import Cell, by_label
from d3po.progress import Narrator
from d3po.run.cost.counting import Shape, shape_of
from d3po.run.cost.plan import probe_run
from d3po.run.cost.probe import Probe
from d3po.run.folder import create_run
from d3po.run.needs import check_model
from d3po.run.opened import open_run
from d3po.run.session import Session, make_replay, policy_settings


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What determines the work of a label's cells and the time it takes."""

    shape: Shape
    cost: Probe | None
    """Measured costs, if they were asked for."""

    def seconds(self, work: Work) -> float:
        """The seconds that a cell's work takes on this machine, with evaluation. nan if nothing was measured."""
        if self.cost is None:
            return float("nan")
        without_gradient = work.forwards - work.training_forwards + work.evaluation_forwards
        return (
            self.cost.sampling_seconds * without_gradient
            + self.cost.training_seconds * work.training_forwards
            + self.cost.decoding_seconds * (work.images + work.evaluated_images)
        )


def scales_of(cells: Sequence[Cell], narrator: Narrator, *, measure: bool) -> dict[str, Scale]:
    """Determine the scale of each label, which does not depend on seeds and rewards. The model is loaded once for all labels with the same model settings.

    Args:
        cells: the cells of the grid.
        narrator: shows messages and progress.
        measure: whether to measure time too.

    Raises:
        ConfigError: an objective does not fit the model, or a timestep range holds no step to train.
    """
    scales: dict[str, Scale] = {}
    while left := [cell for cell in by_label(cells).values() if cell.label not in scales]:
        alike = [cell for cell in left if policy_settings(cell.config) == policy_settings(left[0].config)]
        with TemporaryDirectory() as scratch:
            folder = create_run(Path(scratch), left[0].config, prompts=left[0].prompts, held_out=left[0].held_out)
            session = Session(open_run(folder, narrator, config=left[0].config))
            with closing(session):
                scales |= _scales(alike, session, measure=measure)
    return scales


def _scales(cells: Sequence[Cell], session: Session, *, measure: bool) -> dict[str, Scale]:
    shapes: dict[str, Shape] = {}
    for cell in cells:
        replay = make_replay(session.policy, cell.config)
        check_model(cell.config, replay)
        shapes[cell.label] = shape_of(cell.config, session.policy, replay)
    cost = probe_run(session, shapes[cells[0].label]) if measure else None
    return {label: Scale(shape=shape, cost=cost) for label, shape in shapes.items()}
