"""Counts how many rounds fit into a budget, and the work of a cell of the grid."""

from dataclasses import dataclass

from d3po.config import RunConfig
from d3po.errors import ConfigError
from d3po.experiments.spec import EqualBudget, unit_in_words
from d3po.run.cost.counting import RoundWork, Shape, evaluated_images, sampled_forwards, work_of_round


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a number of rounds of a cell: an upper bound."""

    rounds: int
    labels: int
    images: int
    forwards: int
    """Forward passes in sampling and training; see `d3po.run.cost.counting`."""
    training_forwards: int
    """Those of `forwards` that have a gradient."""
    evaluated_images: int
    evaluation_forwards: int


def work_of(config: RunConfig, shape: Shape, rounds: int) -> Work:
    """Count the work of a cell with this number of rounds."""
    works = [work_of_round(config, shape, round) for round in range(rounds)]
    evaluated = evaluated_images(config.model_copy(update={"rounds": rounds}))
    return Work(
        rounds=rounds,
        labels=sum(work.labels for work in works),
        images=sum(work.images for work in works),
        forwards=sum(work.forwards.total for work in works),
        training_forwards=sum(work.forwards.training for work in works),
        evaluated_images=evaluated,
        evaluation_forwards=sampled_forwards(config, shape, evaluated),
    )


def rounds_that_fit(budget: EqualBudget, config: RunConfig, shape: Shape, *, label: str) -> int | None:
    """The most rounds that the budget allows. None for a budget in minutes, where the number is only known after running.

    Raises:
        ConfigError: not even one round fits.
    """
    if budget.unit == "minutes":
        return None
    first, later = (_amount(budget, work_of_round(config, shape, round)) for round in (0, 1))
    if first > budget.amount:
        unit = unit_in_words(budget.unit)
        raise ConfigError(
            f"budget.{budget.unit} is {budget.amount:,}, but one round of {label!r} takes {first:,} {unit}; "
            "raise the budget, or lower sampling.prompts_per_round"
        )
    return 1 + int(budget.amount - first) // later


def _amount(budget: EqualBudget, work: RoundWork) -> int:
    """How much of the budget's unit a round takes."""
    return {"labels": work.labels, "images": work.images, "network_rows": work.forwards.total}[budget.unit]
