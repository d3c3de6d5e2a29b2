"""Small worlds for tests of the store."""

import uuid
from collections.abc import Sequence

from d3po.preferences.records import Answer, Assigned, Cast, NewQuestion
from d3po.store import NewPicture, Receipt, Store


def fill(store: Store, *, prompts: int = 2, images: int = 3, round: int = 0) -> list[list[int]]:
    """A sampled shard; the image ids of each prompt."""
    texts = [f"prompt {number} of round {round}" for number in range(prompts)]
    pictures = [
        NewPicture(prompt=prompt, number=number, path=f"images/round-{round:03}/{prompt}-{number}.png", sha256="f" * 64)
        for prompt in store.pictures.add_prompts(texts)
        for number in range(images)
    ]
    store.pictures.add_shard(
        round=round,
        number=0,
        path=f"rollouts/round-{round:03}/shard-000.safetensors",
        checksum="c" * 64,
        images=pictures,
        model="emoji",
        policy="base",
        seed=7,
    )
    ids = [image.id for image in store.pictures.images(round)]
    return [ids[start : start + images] for start in range(0, len(ids), images)]


def pair(a: int, b: int, *, round: int | None = 0, overlap: int = 1, priority: float = 0.0) -> NewQuestion:
    return NewQuestion(kind="pair", purpose="train", images=(a, b), round=round, overlap=overlap, priority=priority)


def pairs(images: Sequence[Sequence[int]], *, round: int = 0, overlap: int = 1) -> list[NewQuestion]:
    """Every pair of every prompt."""
    return [pair(a, b, round=round, overlap=overlap) for ids in images for i, a in enumerate(ids) for b in ids[i + 1 :]]


def human(store: Store, handle: str) -> int:
    return store.people.annotator(handle, "human").id


def prefers_left(assigned: Assigned) -> Answer:
    return Answer(outcome="win", winner=assigned.shown[0])


def cast(assigned: Assigned, annotator: int, answer: Answer | None = None, *, id: str | None = None, rt_ms: int = 900) -> Cast:
    """A vote; for the left picture if nothing else is said."""
    said = answer or prefers_left(assigned)
    return Cast(id=id or str(uuid.uuid4()), assignment=assigned.assignment, annotator=annotator, answer=said, rt_ms=rt_ms, client="tab")


def vote(store: Store, assigned: Assigned, annotator: int, answer: Answer | None = None) -> Receipt:
    return store.votes.cast(cast(assigned, annotator, answer))
