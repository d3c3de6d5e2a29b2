"""The labels that a round is trained on: comparisons, or labels of single images, made from the round's votes, which are fixed once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from d3po.annotation.ranking import reliabilities
from d3po.objectives.base import PairObjective
from d3po.preferences.conversion import comparisons_of, pair_judgements
from d3po.preferences.labels import ImageLabel, labels_of
from d3po.preferences.records import Comparison, Vote
from d3po.run.feedback.measured import measured
from d3po.run.opened import OpenRun


@dataclass(frozen=True, kw_only=True)
class RoundLabels:
    """The labels that a round is trained on: comparisons for objectives that learn from pairs, else labels of single images."""

    comparisons: list[Comparison]
    images: list[ImageLabel]
    held_out: int
    """How many imported votes were left out because they are on held-out prompts."""

    def __len__(self) -> int:
        return len(self.comparisons) + len(self.images)


def labels_of_round(run: OpenRun, round: int) -> RoundLabels:
    """Make the round's labels. The votes they are made of are fixed at the first call, so later calls return the same.

    If several annotators voted, each one is weighted by the reliability that Crowd-BT estimates from these votes (`annotation.ranking`). If
    `feedback.source` is a reward and the objective learns from scores, the labels are the reward's values.
    """
    if _reads_measured_scores(run):
        measured_images = sorted(run.store.pictures.images(round), key=lambda image: image.id)
        return RoundLabels(
            comparisons=[],
            images=[ImageLabel(image=image.id, value=sum(measured(run, image))) for image in measured_images],
            held_out=0,
        )
    votes, held_out = _claimed(run, round)
    reliability = _reliability(votes)
    if run.needs.labels == "pairs":
        return RoundLabels(comparisons=comparisons_of(votes, reliability=reliability), images=[], held_out=held_out)
    return RoundLabels(comparisons=[], images=labels_of(votes, reliability=reliability), held_out=held_out)


def labels_one_by_one(run: OpenRun, round: int) -> list[ImageLabel]:
    """The round's votes as labels of single images, whatever the objective reads. Messages use it to say which other objective could learn from them."""
    votes, _ = _claimed(run, round)
    return labels_of(votes, reliability=_reliability(votes))


def judgements_learnt_from(run: OpenRun, round: int) -> int:
    """The number of comparisons, or labels of single images, that the round's training uses."""
    if _reads_measured_scores(run):
        return len(run.store.pictures.images(round))
    return len(labels_of_round(run, round))


def votes_learnt_from(run: OpenRun, rounds: int) -> list[Vote]:
    """The votes that training has used in the first `rounds` rounds, each once. Empty if it used a reward's values instead."""
    batches = range(1) if run.config.feedback.source == "imported" else range(rounds)
    return [vote for round in batches for vote in _without_held_out(run, run.store.batches.votes(round) or ())]


def is_instructive(run: OpenRun, votes: Iterable[Vote]) -> bool:
    """Whether the run's objective can learn anything from the votes."""
    objective = run.objective
    if isinstance(objective, PairObjective):
        return any(not comparison.is_tie for comparison in comparisons_of(votes))
    votes = list(votes)
    return objective.can_learn_from(*as_tensors(labels_of(votes), {image: vote.prompt for vote in votes for image in vote.images}))


def as_tensors(labels: Sequence[ImageLabel], prompt_of: Mapping[int, int]) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
    """The labels' values and the ids of their images' prompts, as objectives on single images read them. `prompt_of` has prompt ids by image id."""
    values = torch.tensor([label.value for label in labels])
    return values, torch.tensor([prompt_of[label.image] for label in labels], dtype=torch.long)


def _reads_measured_scores(run: OpenRun) -> bool:
    return run.config.feedback.source == "reward" and run.needs.labels == "scores"


def _claimed(run: OpenRun, round: int) -> tuple[list[Vote], int]:
    """The round's fixed votes, and how many were left out. Imported votes belong to no round: every round is trained on the same ones."""
    imported = run.config.feedback.source == "imported"
    votes = run.store.batches.claim(0 if imported else round, imported=imported)
    kept = _without_held_out(run, votes)
    return kept, len(votes) - len(kept)


def _without_held_out(run: OpenRun, votes: Sequence[Vote]) -> list[Vote]:
    """Leave out imported votes on held-out prompts. The rounds of a run never contain such prompts."""
    imported = run.config.feedback.source == "imported"
    return [vote for vote in votes if not (imported and vote.prompt in run.held_out_prompts)]


def _reliability(votes: list[Vote]) -> Mapping[int, float]:
    if len({vote.annotator for vote in votes}) == 1:
        return {}
    trusted = reliabilities(pair_judgements(votes))
    return {annotator: trusted[annotator].weight for annotator in trusted}
