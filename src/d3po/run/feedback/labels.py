"""What a round's training learns from: its votes, fixed once, as comparisons or as labels of single images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from d3po.annotation.ranking import reliabilities
from d3po.objectives.base import PairObjective
from d3po.preferences.conversion import comparisons_of, pair_judgements
from d3po.preferences.labels import ImageLabel, labels_of
from d3po.preferences.records import Comparison, Vote
from d3po.run.feedback.measured import measured
from d3po.run.opened import OpenRun


@dataclass(frozen=True, kw_only=True)
class RoundLabels:
    """What a round's training learns from: comparisons of objectives that read pairs, else labels of single images."""

    comparisons: list[Comparison]
    images: list[ImageLabel]
    held_out: int
    """How many imported votes were left out because they are of held-out prompts."""

    def __len__(self) -> int:
        return len(self.comparisons) + len(self.images)


def labels_of_round(run: OpenRun, round: int) -> RoundLabels:
    """The round's labels: fixed when training first asks, the same whenever it asks again.

    Where several annotators judged, each counts by how reliable these votes show them to be (Crowd-BT, `annotation.ranking`). Where a measured
    reward judges and the objective reads scores, the labels are the reward itself.
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
    """The round's votes as labels of single images, whatever the objective reads: to say which other objective could learn from them."""
    votes, _ = _claimed(run, round)
    return labels_of(votes, reliability=_reliability(votes))


def judgements_learnt_from(run: OpenRun, round: int) -> int:
    """How many comparisons, or labels, the round's training used or will use."""
    if _reads_measured_scores(run):
        return len(run.store.pictures.images(round))
    return len(labels_of_round(run, round))


def votes_learnt_from(run: OpenRun, rounds: int) -> list[Vote]:
    """The votes that training has used in so many rounds, each once; none where it read measured rewards."""
    batches = range(1) if run.config.feedback.source == "imported" else range(rounds)
    return [vote for round in batches for vote in _without_held_out(run, run.store.batches.votes(round) or ())]


def is_instructive(run: OpenRun, votes: Iterable[Vote]) -> bool:
    """Whether the run's objective can learn anything from the votes."""
    objective = run.objective
    if isinstance(objective, PairObjective):
        return any(not comparison.is_tie for comparison in comparisons_of(votes))
    return objective.can_learn_from(torch.tensor([label.value for label in labels_of(votes)]))


def _reads_measured_scores(run: OpenRun) -> bool:
    return run.config.feedback.source == "reward" and run.needs.labels == "scores"


def _claimed(run: OpenRun, round: int) -> tuple[list[Vote], int]:
    """The round's votes, and how many were left out. Imported votes are of no round, and every round of a run on them learns from the same."""
    imported = run.config.feedback.source == "imported"
    votes = run.store.batches.claim(0 if imported else round, imported=imported)
    kept = _without_held_out(run, votes)
    return kept, len(votes) - len(kept)


def _without_held_out(run: OpenRun, votes: Sequence[Vote]) -> list[Vote]:
    """Imported votes may be of any prompt; what they say of held-out ones is not learnt from. A run's own rounds draw from others."""
    imported = run.config.feedback.source == "imported"
    return [vote for vote in votes if not (imported and vote.prompt in run.held_out_prompts)]


def _reliability(votes: list[Vote]) -> Mapping[int, float]:
    if len({vote.annotator for vote in votes}) == 1:
        return {}
    trusted = reliabilities(pair_judgements(votes))
    return {annotator: trusted[annotator].weight for annotator in trusted}
