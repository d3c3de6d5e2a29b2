"""Preferences: the records that packages exchange, and the conversion of votes into comparisons and labels. Never imports torch: rating needs no GPU."""

from d3po.preferences.conversion import PairJudgement, comparisons_of, pair_judgements
from d3po.preferences.labels import ImageLabel, labels_of
from d3po.preferences.records import Answer, Comparison, NewQuestion, Vote

__all__ = [
    "Answer",
    "Comparison",
    "ImageLabel",
    "NewQuestion",
    "PairJudgement",
    "Vote",
    "comparisons_of",
    "labels_of",
    "pair_judgements",
]
