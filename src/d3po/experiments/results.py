"""Reads the results of the cells from their folders: a row for each cell and round."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d3po.artifacts.records import read_record, write_record
from d3po.experiments.cells import Cell
from d3po.experiments.findings import Row
from d3po.progress import Narrator
from d3po.run.cost.spent import Spent, spent_by_round
from d3po.run.evaluate.phase import read_evaluation, read_held_out, read_scores
from d3po.run.folder import label_of
from d3po.run.loop import read_stop, result_rounds
from d3po.run.opened import OpenRun
from d3po.run.train.rollback import is_undone
from d3po.scorers.registry import load_criteria

Scores = NDArray[np.float64]
"""The scores of the held-out pictures of one evaluation, of shape (P prompts, n images)."""


def last_round(run: OpenRun, rounds: int | None) -> int:
    """After how many rounds the run's result is taken, at most `rounds`."""
    reached = result_rounds(run)
    return reached if rounds is None else min(reached, rounds)


def rows_of(cell: Cell, run: OpenRun, held_out: Mapping[str, "HeldOutReward"], *, rounds: int | None) -> list[Row]:
    """The rows of a cell: one for the base model and one for each evaluated round that counts, at most `rounds` rounds."""
    kept = [r for r in range(last_round(run, rounds) + 1) if r == 0 or not is_undone(run, r - 1)]
    evaluated = [r for r in kept if run.folder.evaluation(label_of(r)).exists()]
    trained = {r: _trained_scores(run, r) for r in evaluated}
    others = {name: {r: reward.scores(run, label_of(r)) for r in evaluated} for name, reward in held_out.items()}
    spent, stop = spent_by_round(run.store.journal.read()), read_stop(run)
    alarms = {(entry.round or 0, entry.body["guard"]) for entry in run.store.journal.read(kind="alarm")}
    rows: list[Row] = []
    for r in evaluated:
        evaluation = read_evaluation(run, r)
        is_result = r == evaluated[-1]
        refused = is_result and (rounds is None or r < rounds) and (stop is not None or is_undone(run, r))
        cost = sum((spent.get(round, Spent()) for round in range(r)), start=Spent())
        rows.append(
            Row(
                label=cell.label,
                reward=cell.reward,
                seed=cell.seed,
                rounds=r,
                is_result=is_result,
                is_stopped=stop is not None,
                guards=" ".join(sorted({guard for round, guard in alarms if round < r + refused})),
                labels=evaluation.comparisons,
                images=r * run.config.sampling.prompts_per_round * run.config.sampling.images_per_prompt,
                network_rows=cost.forwards,
                seconds=cost.seconds,
                win_rate=evaluation.win_rate.value,
                score=evaluation.mean_score,
                diversity_kept=evaluation.diversity_kept,
                checkerboard_ratio=evaluation.checkerboard_ratio,
                subject_accuracy=evaluation.subject_accuracy,
                gain=gain(trained[r], trained[0]),
                held_out={name: float(scores[r].mean()) for name, scores in others.items()},
                held_out_gain={name: gain(scores[r], scores[0]) for name, scores in others.items()},
            )
        )
    return rows


def gain(scores: Scores, base: Scores) -> float:
    """The change in the mean score, in standard deviations over the base model's pictures. nan if those all have the same score."""
    if np.ptp(base) == 0:  # their standard deviation may not be exactly 0, because of rounding
        return float("nan")
    return float(scores.mean() - base.mean()) / float(base.std())


class HeldOutReward:
    """A reward that is measured but never trained for. Its scores are cached in a folder, in one file for each run.

    Raises:
        RewardError: there is no such reward, or it cannot be loaded.
    """

    def __init__(self, name: str, directory: Path, narrator: Narrator) -> None:
        self._name, self._directory = name, directory
        self._criteria = load_criteria(name, narrator.say)

    def scores(self, run: OpenRun, label: str) -> Scores:
        """Score the pictures of the evaluation with this label, or read the cached scores."""
        path = self._directory / f"{run.folder.path.name}.json"
        kept = read_record(path, remedy="delete it: its scores are then measured again") if path.exists() else {}
        mine = kept.setdefault(self._name, {})
        if label not in mine:
            mine[label] = self._measured(run, label)
            write_record(path, kept)
        return np.array(mine[label])

    def _measured(self, run: OpenRun, label: str) -> list[list[float]]:
        prompts = run.folder.held_out()[: run.config.evaluation.prompts]
        pictures = read_held_out(run, label, range(len(prompts)))
        return [
            [sum(reward(picture, prompt) for reward in self._criteria) for picture in row]
            for prompt, row in zip(prompts, pictures, strict=True)
        ]


def first_pictures(run: OpenRun, rounds: int, prompts: int) -> list[NDArray[np.uint8]]:
    """The first picture of each of the first `prompts` held-out prompts, by the policy after `rounds` rounds."""
    return [np.asarray(row[0]) for row in read_held_out(run, label_of(rounds), range(prompts))]


def _trained_scores(run: OpenRun, rounds: int) -> Scores:
    """The scores that the evaluation has stored, summed over criteria as for `mean_score`."""
    return np.atleast_3d(read_scores(run, label_of(rounds))["scores"]).sum(axis=-1)
