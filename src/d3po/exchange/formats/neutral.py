"""What stands between file formats and the store: pictures and judgements by content, with no database ids in them.

A format reads a stream of these and writes one. A picture comes before the first judgement that names it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from unicodedata import normalize

from d3po.preferences.conversion import pair_judgements
from d3po.preferences.records import AnnotatorKind, Answer, Kind, Origin, Outcome, Purpose, Vote
from d3po.store.people import LONGEST_HANDLE


@dataclass(frozen=True, kw_only=True)
class ImportedPicture:
    """A picture as a file holds it."""

    id: str
    """What judgements call it; with its prompt it is unique in the file. The SHA-256 of its bytes, where the format has no better name."""
    prompt: str
    sha256: str
    """Of its bytes, in hex."""
    content: bytes | None = None
    """An encoded picture; None where the file names it by its hash alone, so that it must be in the store already."""
    model: str = ""
    """What drew it, if known."""
    origin: Origin = "imported"
    series: str = ""
    number: int | None = None
    """Its place among the prompt's pictures of the series."""
    policy: str = ""
    seed: int | None = None
    where: str = field(default="", compare=False)
    """File, line and field that named it, for messages."""


@dataclass(frozen=True, kw_only=True)
class ImportedAnswer:
    """What is said of pictures, by their ids in the file; as `Answer` is by ids in the store."""

    outcome: Outcome
    winner: str | None = None
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """What only our own log knows of an answer: that it is an event among others."""

    id: str
    """UUID."""
    assignment: str
    """UUID."""
    supersedes: str | None
    rt_ms: int | None
    client: str | None
    received_at: int
    """Milliseconds since 1970."""
    payload_hash: str


@dataclass(frozen=True, kw_only=True)
class ImportedJudgement:
    """What one annotator said of pictures of one prompt."""

    prompt: str
    kind: Kind
    pictures: tuple[str, ...]
    """Ids in the order shown, where the format knows it."""
    answer: ImportedAnswer | None
    """None withdraws the answer that `event.supersedes`."""
    annotator: str
    """A handle, never an e-mail address."""
    annotator_kind: AnnotatorKind = "human"
    purpose: Purpose = "train"
    expected: ImportedAnswer | None = None
    """What a gold question's answer must be."""
    event: Event | None = None
    where: str = field(default="", compare=False)
    """File and line that it stands in, for messages."""


@dataclass(frozen=True, kw_only=True)
class BadRecord:
    """A record that cannot be read."""

    message: str
    """Where it stands and what is wrong with it."""


Item = ImportedPicture | ImportedJudgement


@dataclass(frozen=True, kw_only=True)
class ImportedPair:
    """What a judgement says of two of its pictures."""

    first: str
    second: str
    share: float
    """The share of preference that the first holds: 1, 0.5 for a tie, or 0."""


def picture_of(content: bytes, prompt: str, *, model: str = "", where: str = "") -> ImportedPicture:
    """A picture called by the hash of its bytes."""
    name = hashlib.sha256(content).hexdigest()
    return ImportedPicture(id=name, prompt=prompt, sha256=name, content=content, model=model, where=where)


def pairs_of(judgement: ImportedJudgement) -> list[ImportedPair]:
    """Everything a judgement says of two of its pictures, in the order shown; nothing where it says nothing (see `conversion`)."""
    if judgement.answer is None:
        return []
    place = {picture: number for number, picture in enumerate(judgement.pictures)}
    images = tuple(range(len(place)))
    vote = Vote(
        id="",
        sequence=0,
        question=0,
        kind=judgement.kind,
        purpose=judgement.purpose,
        round=None,
        prompt=0,
        images=images,
        shown=images,
        annotator=0,
        answer=renamed(judgement.answer, place),
        rt_ms=None,
        received_at=0,
    )
    said = pair_judgements([vote])
    return [
        ImportedPair(first=judgement.pictures[each.image_a], second=judgement.pictures[each.image_b], share=each.target) for each in said
    ]


def renamed(answer: ImportedAnswer, ids: Mapping[str, int]) -> Answer:
    """The answer by other ids."""
    return Answer(
        outcome=answer.outcome,
        winner=None if answer.winner is None else ids[answer.winner],
        values={ids[picture]: float(value) for picture, value in answer.values.items()},
        reason=answer.reason,
    )


def named(answer: Answer, names: Mapping[int, str]) -> ImportedAnswer:
    """The answer by the names that a file gives to pictures."""
    return ImportedAnswer(
        outcome=answer.outcome,
        winner=None if answer.winner is None else names[answer.winner],
        values={names[image]: float(value) for image, value in answer.values.items()},
        reason=answer.reason,
    )


def handle_of(who: object) -> str:
    """A handle for whoever a file says has judged: numbers become user-7, and see `clean_handle`."""
    text = str(who).strip()
    return clean_handle(f"user-{text}" if isinstance(who, int) or text.isdecimal() else text)


def clean_handle(text: str) -> str:
    """The same handle, or a hash where it is an e-mail address, too long, or nothing that can be shown."""
    plain = text.strip()
    if "@" in normalize("NFKC", plain) or len(plain) > LONGEST_HANDLE or not plain.isprintable() or not plain:
        return f"person-{hashlib.sha256(plain.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    return plain
