"""Stores with pictures and votes, for tests of what goes in and out."""

import hashlib
import uuid
from pathlib import Path

from d3po.preferences.records import Answer, Cast, NewQuestion
from d3po.store import NewPicture, Store
from tests.unit.exchange.formats.items import png

PROMPTS = ("a cat", "a dog")


def sampled_store(folder: Path, *, images: int = 4, seed: int = 0, url: str | None = None) -> Store:
    """A run's store with one round of two prompts and so many pictures each, whose files are there; other seeds draw other pictures."""
    store = Store.in_folder(folder) if url is None else Store(url)
    prompts, pictures = store.pictures.add_prompts(PROMPTS), list[NewPicture]()
    for row, prompt in enumerate(prompts):
        for number in range(images):
            content, path = png(1000 * seed + 100 * row + number), f"images/round-000/{row:03}-{number:03}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
            pictures.append(NewPicture(prompt=prompt, number=number, path=path, sha256=hashlib.sha256(content).hexdigest()))
    store.pictures.add_shard(round=0, number=0, path="s", checksum="c", images=pictures, model="m", policy="base", seed=seed)
    return store


def ids(store: Store, prompt: int = 0) -> list[int]:
    """The sampled pictures of a prompt, in order."""
    return [image.id for image in store.pictures.images(0) if image.prompt == PROMPTS[prompt]]


def ask_and_vote(store: Store, handle: str, question: NewQuestion, answer: Answer, *, rt_ms: int = 900) -> str:
    """Put a question and let somebody answer it in the app; the vote's id."""
    (asked,) = store.questions.ask([question])
    who = store.people.annotator(handle, "human").id
    assigned = next(item for item in store.questions.lease(who, 50) if item.question == asked)
    vote = Cast(id=str(uuid.uuid4()), assignment=assigned.assignment, annotator=who, answer=answer, rt_ms=rt_ms, client="tab")
    return store.votes.cast(vote).vote


def pair(a: int, b: int, *, overlap: int = 3) -> NewQuestion:
    return NewQuestion(kind="pair", purpose="train", images=(a, b), round=0, overlap=overlap)


def wins(winner: int) -> Answer:
    return Answer(outcome="win", winner=winner)
