"""Export from the store: votes as the records that every file format writes."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from d3po.errors import CorruptFileError
from d3po.exchange.formats.neutral import Event, ImportedJudgement, ImportedPicture, Item, named
from d3po.preferences.records import Purpose
from d3po.store import Store
from d3po.store.foreign import Foreign, KnownPicture, StoredEvent

BATCH = 200
"""Events read at a time."""


def export_items(
    store: Store, root: Path, *, events: bool, pictures: bool, round: int | None = None, purpose: Purpose | None = None
) -> Iterator[Item]:
    """Yield the store's votes as format-independent records, each picture before the first judgement that names it.

    Args:
        store: the store.
        root: the run folder, to which the pictures' paths are relative.
        events: export every event, withdrawn and replaced ones included, with ids and times, and identify pictures by series and number; otherwise export
            the current votes, and identify pictures by the hash of their bytes.
        pictures: include the pictures' bytes; otherwise their hashes alone.
        round: only votes on this round's questions.
        purpose: only votes on questions for this purpose.

    Raises:
        CorruptFileError: a picture is missing or not what was recorded.
    """
    foreign, told, prompts = Foreign(store.database), dict[int, str](), store.pictures.prompts()
    for part in _parts(foreign.events(round=round, purpose=purpose, current=not events)):
        new = sorted({image for event in part for image in event.shown} - told.keys())
        for known in foreign.by_id(new).values():
            item = _outgoing(known, root, by_place=events, with_content=pictures)
            told[known.id] = item.id
            yield item
        for event in part:
            yield _judgement(event, prompts[event.prompt], told, events=events)


def _parts(events: Iterable[StoredEvent]) -> Iterator[list[StoredEvent]]:
    part: list[StoredEvent] = []
    for event in events:
        part.append(event)
        if len(part) == BATCH:
            yield part
            part = []
    yield part


def _outgoing(known: KnownPicture, root: Path, *, by_place: bool, with_content: bool) -> ImportedPicture:
    place = f"{known.series}\n{known.number}\n{known.prompt}\n{known.sha256}"
    return ImportedPicture(
        id=hashlib.sha256(place.encode()).hexdigest() if by_place else known.sha256,
        prompt=known.prompt,
        sha256=known.sha256,
        content=_read(root / known.path, known.sha256) if with_content else None,
        model=known.model,
        origin=known.origin,
        series=known.series,
        number=known.number,
        policy=known.policy,
        seed=known.seed,
    )


def _judgement(event: StoredEvent, prompt: str, names: dict[int, str], *, events: bool) -> ImportedJudgement:
    about = Event(
        id=event.id,
        assignment=event.assignment,
        supersedes=event.supersedes,
        rt_ms=event.rt_ms,
        client=event.client,
        received_at=event.received_at,
        payload_hash=event.payload_hash,
    )
    return ImportedJudgement(
        prompt=prompt,
        kind=event.kind,
        purpose=event.purpose,
        pictures=tuple(names[image] for image in event.shown),
        answer=None if event.answer is None else named(event.answer, names),
        expected=None if event.expected is None else named(event.expected, names),
        annotator=event.annotator,
        annotator_kind=event.annotator_kind,
        event=about if events else None,
    )


def _read(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorruptFileError(f"cannot read picture {path}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CorruptFileError(f"{path} is not the picture that was recorded; bring back the original")
    return content
