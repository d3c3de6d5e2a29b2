"""What a round's training learns from: its votes, fixed once, as comparisons or as labels of single images."""

from collections.abc import Iterable, Mapping, Sequence

import torch

from d3po.objectives.base import PairObjective
from d3po.preferences.conversion import comparisons_of, pair_judgements
from d3po.preferences.labels import ImageLabel, labels_of
from d3po.preferences.ranking import reliabilities
from d3po.preferences.records import Comparison, Vote
from d3po.run.feedback.measured import measured
from d3po.run.workbench import Workbench


def judgements_learnt_from(bench: Workbench, round: int) -> int:
    """How many comparisons, or labels, the round's training used or will use."""
    if _reads_measured_scores(bench):
        return len(bench.store.pictures.images(round))
    pairs = bench.trainer.needs.labels == "pairs"
    return len(comparisons_learnt_from(bench, round) if pairs else labels_learnt_from(bench, round))


def comparisons_learnt_from(bench: Workbench, round: int) -> list[Comparison]:
    """The round's comparisons: fixed when training first asks, the same whenever it asks again.

    Where several annotators judged, each counts by how reliable these votes show them to be (Crowd-BT, `preferences.ranking`).
    """
    votes = _votes(bench, round)
    return comparisons_of(votes, reliability=_reliability(votes))


def labels_learnt_from(bench: Workbench, round: int) -> list[ImageLabel]:
    """The round's labels of single images: the measured reward itself where it judges and the objective reads scores, else what the votes say."""
    if _reads_measured_scores(bench):
        images = bench.store.pictures.images(round)
        return [ImageLabel(image=image.id, value=sum(measured(bench, image))) for image in sorted(images, key=lambda image: image.id)]
    votes = _votes(bench, round)
    return labels_of(votes, reliability=_reliability(votes))


def votes_learnt_from(bench: Workbench, rounds: int) -> list[Vote]:
    """The votes that training has used in so many rounds, each once; none where it read measured rewards."""
    batches = range(1) if bench.config.feedback.source == "imported" else range(rounds)
    return [vote for round in batches for vote in _without_held_out(bench, bench.store.batches.votes(round) or ())]


def held_out_votes(bench: Workbench) -> int:
    """How many of the imported votes are of held-out prompts, and so left out of training."""
    votes = bench.store.batches.claim(0, imported=True)
    return len(votes) - len(_without_held_out(bench, votes))


def is_instructive(bench: Workbench, votes: Iterable[Vote]) -> bool:
    """Whether the run's objective can learn anything from the votes."""
    objective = bench.trainer.objective
    if isinstance(objective, PairObjective):
        return any(not comparison.is_tie for comparison in comparisons_of(votes))
    return objective.can_learn_from(torch.tensor([label.value for label in labels_of(votes)]))


def _reads_measured_scores(bench: Workbench) -> bool:
    return bench.config.feedback.source == "reward" and bench.trainer.needs.labels == "scores"


def _votes(bench: Workbench, round: int) -> list[Vote]:
    """Imported votes are of no round, and every round of a run on them learns from the same."""
    imported = bench.config.feedback.source == "imported"
    return _without_held_out(bench, bench.store.batches.claim(0 if imported else round, imported=imported))


def _without_held_out(bench: Workbench, votes: Sequence[Vote]) -> list[Vote]:
    """Imported votes may be of any prompt; what they say of held-out ones is not learnt from. A run's own rounds draw from others."""
    imported = bench.config.feedback.source == "imported"
    return [vote for vote in votes if not (imported and vote.prompt in bench.held_out_prompts)]


def _reliability(votes: list[Vote]) -> Mapping[int, float]:
    if len({vote.annotator for vote in votes}) == 1:
        return {}
    trusted = reliabilities(pair_judgements(votes))
    return {annotator: trusted[annotator].weight for annotator in trusted}
