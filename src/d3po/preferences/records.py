"""The records that cross the walls: pictures, questions, votes, and the one comparison that every objective reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from d3po.options import QuestionKind

Kind = QuestionKind

Purpose = Literal["train", "gold", "blind", "repeat"]
"""What an answer is for: training; checking the annotator; before against after; or whether somebody says the same again. Only the first is trained on."""

Outcome = Literal["win", "tie", "both_bad", "skip", "flag", "rank", "best_worst", "marks", "up", "down", "score", "share"]
"""What an answer says. `share` is a soft preference between two pictures, as imported data may hold and models with log-probs give."""

AnnotatorKind = Literal["human", "model", "rule"]
Role = Literal["admin", "annotator"]
Origin = Literal["sampled", "evaluation", "imported"]

OUTCOMES: Mapping[Kind, frozenset[Outcome]] = {
    "pair": frozenset({"win", "tie", "both_bad", "skip", "flag", "share"}),
    "best_worst": frozenset({"best_worst", "tie", "both_bad", "skip", "flag"}),
    "rank": frozenset({"rank", "tie", "both_bad", "skip", "flag"}),
    "grid": frozenset({"marks", "skip", "flag"}),
    "thumb": frozenset({"up", "down", "skip", "flag"}),
    "score": frozenset({"score", "skip", "flag"}),
}
"""Which answers fit which question."""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """A sampled image: who it is, where its picture and its trajectory lie."""

    id: int
    round: int
    prompt_id: int
    prompt: str
    number: int
    """Its place among the K images of its prompt, from 0."""
    shard_id: int
    row: int
    """Its row in the shard's batch dimension."""
    path: str
    """The PNG, relative to the run folder."""
    sha256: str
    """Hash of the PNG's bytes."""


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """A finished trajectory shard."""

    id: int
    round: int
    number: int
    path: str
    """Relative to the run folder."""
    checksum: str


@dataclass(frozen=True, kw_only=True)
class NewQuestion:
    """A question about to be asked."""

    kind: Kind
    purpose: Purpose
    images: tuple[int, ...]
    """Image ids, all of one prompt: two for a pair, one for thumb and score, K otherwise."""
    round: int | None
    """The round whose training it serves."""
    overlap: int = 1
    priority: float = 0.0
    gold_answer: "Answer | None" = None
    probability: float | None = None
    """Of this pair being chosen, where pairs are chosen by what was said before."""
    at_random: bool | None = None
    """Whether it was drawn at random all the same, so that the others can be checked against it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question that was put, however far its answers are."""

    id: int
    prompt: int
    """Prompt id."""
    images: tuple[int, ...]
    """Image ids, in the order in which they were named."""
    overlap: int
    """Answers wanted."""
    probability: float | None
    at_random: bool | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is said of a question's pictures, by image id, never by position."""

    outcome: Outcome
    winner: int | None = None
    """The preferred image of a `win`."""
    values: Mapping[int, float] = field(default_factory=dict[int, float])
    """By image id. `rank`: place from 1, equal places allowed; `best_worst`: best 1 and worst -1; `marks`: 1 for each marked;
    `score`: 1 to 5; `share`: the share of preference of each of the two, summing to 1."""
    reason: str | None = None
    """An annotator's words, with a `flag`."""


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """A question leased to an annotator."""

    assignment: str
    """UUID."""
    question: int
    kind: Kind
    purpose: Purpose
    prompt: str
    shown: tuple[int, ...]
    """Image ids in the order shown, left to right; drawn by the server, stored with the assignment."""
    lease_expires_at: int
    """Milliseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Cast:
    """A vote as a client sends it. `id` is the client's own UUID: sending it twice is one vote."""

    id: str
    assignment: str
    annotator: int
    answer: Answer
    rt_ms: int | None = None
    client: str | None = None


@dataclass(frozen=True, kw_only=True)
class Vote:
    """A current answer: cast, and neither replaced nor withdrawn."""

    id: str
    sequence: int
    question: int
    kind: Kind
    purpose: Purpose
    round: int | None
    prompt: int
    """Prompt id."""
    images: tuple[int, ...]
    """The question's image ids, sorted."""
    shown: tuple[int, ...]
    """The same in the order shown, left to right."""
    annotator: int
    answer: Answer
    rt_ms: int | None
    received_at: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One judgement of two images of one prompt, by id, never by position."""

    image_a: int
    image_b: int
    target: float
    """The share of preference that a holds: 1 a is preferred, 0 b is, 0.5 a tie."""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.image_a == self.image_b:
            raise ValueError(f"image {self.image_a} is compared with itself")
        if not 0 <= self.target <= 1:
            raise ValueError(f"target is {self.target}; a share of preference lies in [0, 1]")
        if not self.weight >= 0:
            raise ValueError(f"weight is {self.weight}; it must be 0 or more")

    @property
    def is_tie(self) -> bool:
        """Whether it says nothing about which is better."""
        return self.target == 0.5
