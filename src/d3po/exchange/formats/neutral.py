"""The format-independent records between file formats and the store: pictures and judgements, without database ids.

Every format reads and writes a stream of them, in which a picture comes before the first judgement that names it.
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
    """A picture in a file of votes."""

    id: str
    """The name by which judgements refer to it, unique together with its prompt: the SHA-256 of its bytes, unless the format has a better name."""
    prompt: str
    sha256: str
    """SHA-256 of its bytes, in hex."""
    content: bytes | None = None
    """The encoded picture; None if the file gives only its hash, so that the picture must already be in the store."""
    model: str = ""
    """The model that sampled it, if known."""
    origin: Origin = "imported"
    series: str = ""
    number: int | None = None
    """Its number among the prompt's pictures of the series."""
    policy: str = ""
    seed: int | None = None
    where: str = field(default="", compare=False)
    """File, line and field that name it, for messages."""


@dataclass(frozen=True, kw_only=True)
class ImportedAnswer:
    """An answer that names pictures by their ids in the file. Its fields are those of `Answer`, which names pictures by their ids in the store."""

    outcome: Outcome
    winner: str | None = None
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """A judgement's vote event, which only d3po's vote log contains."""

    id: str
    """The event's UUID."""
    assignment: str
    """The assignment's UUID."""
    supersedes: str | None
    """The id of the event that it replaces or withdraws."""
    rt_ms: int | None
    """Response time in milliseconds."""
    client: str | None
    received_at: int
    """Milliseconds since 1970."""
    payload_hash: str


@dataclass(frozen=True, kw_only=True)
class ImportedJudgement:
    """One annotator's answer about pictures of one prompt."""

    prompt: str
    kind: Kind
    pictures: tuple[str, ...]
    """Picture ids, in the order shown if the format records it."""
    answer: ImportedAnswer | None
    """The answer; None withdraws the event `event.supersedes`."""
    annotator: str
    """A handle, never an e-mail address."""
    annotator_kind: AnnotatorKind = "human"
    purpose: Purpose = "train"
    expected: ImportedAnswer | None = None
    """The expected answer of a gold question."""
    event: Event | None = None
    where: str = field(default="", compare=False)
    """Its file and line, for messages."""


@dataclass(frozen=True, kw_only=True)
class BadRecord:
    """A record that cannot be read."""

    message: str
    """Where it is and what is wrong with it."""


Item = ImportedPicture | ImportedJudgement


@dataclass(frozen=True, kw_only=True)
class ImportedPair:
    """What a judgement says about two of its pictures."""

    first: str
    """Id of the picture shown first."""
    second: str
    """Id of the picture shown second."""
    share: float
    """The share of preference, in [0, 1], that the first picture holds; 0.5 for a tie."""


def picture_of(content: bytes, prompt: str, *, model: str = "", where: str = "") -> ImportedPicture:
    """Make a picture whose id is the hash of its bytes."""
    name = hashlib.sha256(content).hexdigest()
    return ImportedPicture(id=name, prompt=prompt, sha256=name, content=content, model=model, where=where)


def pairs_of(judgement: ImportedJudgement) -> list[ImportedPair]:
    """List everything that a judgement says about two of its pictures (see `d3po.preferences.conversion`), with pictures in the order shown."""
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
    """The answer with picture ids of the store."""
    return Answer(
        outcome=answer.outcome,
        winner=None if answer.winner is None else ids[answer.winner],
        values={ids[picture]: float(value) for picture, value in answer.values.items()},
        reason=answer.reason,
    )


def named(answer: Answer, names: Mapping[int, str]) -> ImportedAnswer:
    """The answer with picture ids of a file."""
    return ImportedAnswer(
        outcome=answer.outcome,
        winner=None if answer.winner is None else names[answer.winner],
        values={names[image]: float(value) for image, value in answer.values.items()},
        reason=answer.reason,
    )


def handle_of(who: object) -> str:
    """A handle for an annotator whom a file names: a number such as 7 becomes user-7, other names are cleaned by `clean_handle`."""
    text = str(who).strip()
    return clean_handle(f"user-{text}" if isinstance(who, int) or text.isdecimal() else text)


def clean_handle(text: str) -> str:
    """The handle, or a hash of it if it is an e-mail address, too long, empty or not printable."""
    plain = text.strip()
    if "@" in normalize("NFKC", plain) or len(plain) > LONGEST_HANDLE or not plain.isprintable() or not plain:
        return f"person-{hashlib.sha256(plain.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    return plain
