"""Votes for tests, without a database."""

from collections.abc import Mapping
from itertools import count
from typing import Any

from d3po.preferences.records import Answer, Kind, Vote

_sequence = count(1)


def vote(kind: Kind, images: tuple[int, ...], answer: Answer, **given: Any) -> Vote:
    """A vote on these images; what is not given is made up, with ids in order of making."""
    number = next(_sequence)
    defaults: dict[str, Any] = {
        "id": f"vote-{number}",
        "sequence": number,
        "question": number,
        "purpose": "train",
        "round": 0,
        "prompt": 1,
        "shown": images,
        "annotator": 1,
        "rt_ms": 1500,
        "received_at": 1_700_000_000_000 + number,
    }
    return Vote(kind=kind, images=tuple(sorted(images)), answer=answer, **defaults | given)


def won(winner: int, loser: int, **given: Any) -> Vote:
    """A pair of which one won."""
    return vote("pair", (winner, loser), Answer(outcome="win", winner=winner), **given)


def tied(*images: int, **given: Any) -> Vote:
    """Pictures that are all equally good."""
    return vote("pair" if len(images) == 2 else "rank", images, Answer(outcome="tie"), **given)


def ranked(places: Mapping[int, float], **given: Any) -> Vote:
    """An order, by place from 1."""
    return vote("rank", tuple(places), Answer(outcome="rank", values={image: float(place) for image, place in places.items()}), **given)


def best_worst(images: tuple[int, ...], best: int, worst: int, **given: Any) -> Vote:
    """The best and the worst of some."""
    return vote("best_worst", images, Answer(outcome="best_worst", values={best: 1.0, worst: -1.0}), **given)


def marked(images: tuple[int, ...], bad: tuple[int, ...], **given: Any) -> Vote:
    """A grid whose bad pictures are marked."""
    return vote("grid", images, Answer(outcome="marks", values=dict.fromkeys(bad, 1.0)), **given)


def thumb(image: int, up: bool, **given: Any) -> Vote:
    """Up or down."""
    return vote("thumb", (image,), Answer(outcome="up" if up else "down"), **given)


def scored(image: int, score: float, **given: Any) -> Vote:
    """A score from 1 to 5."""
    return vote("score", (image,), Answer(outcome="score", values={image: float(score)}), **given)
