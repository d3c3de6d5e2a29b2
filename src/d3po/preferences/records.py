"""The records that packages exchange: pictures, questions, votes, and the comparison that objectives on pairs read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from d3po.options import QuestionKind

Kind = QuestionKind

Purpose = Literal["train", "gold", "blind", "repeat"]
"""What a question is for: training; checking the annotator (gold); comparing base and tuned model (blind); checking consistency (repeat).
Only votes on the first kind are trained on."""

Outcome = Literal["win", "tie", "both_bad", "skip", "flag", "rank", "best_worst", "marks", "up", "down", "score", "share"]
"""The kind of an answer. `share` is a soft preference between two pictures, from imported data or from a model with log-probs."""

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
"""The kinds of answers to each kind of question."""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """A sampled image, with its picture's file and its trajectory's place in a shard."""

    id: int
    round: int
    prompt_id: int
    prompt: str
    number: int
    """Its number among the K images of its prompt, from 0."""
    shard_id: int
    row: int
    """Its index in the shard's batch dimension."""
    path: str
    """The PNG file, relative to the run folder."""
    sha256: str
    """Hash of the PNG's bytes."""


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """A finished trajectory shard."""

    id: int
    round: int
    number: int
    path: str
    """The file, relative to the run folder."""
    checksum: str
    """SHA-256 of the file's bytes."""


@dataclass(frozen=True, kw_only=True)
class NewQuestion:
    """A question that is not recorded yet."""

    kind: Kind
    purpose: Purpose
    images: tuple[int, ...]
    """Image ids, all of one prompt: two for a pair, one for thumb and score, K otherwise."""
    round: int | None
    """The round whose training it is for; None for imported pictures."""
    overlap: int = 1
    """Number of answers wanted, each from another annotator."""
    priority: float = 0.0
    """Questions with smaller values are asked earlier."""
    gold_answer: "Answer | None" = None
    """The expected answer of a gold question."""
    probability: float | None = None
    """The probability with which this pair was selected, if pairs are selected by earlier votes."""
    at_random: bool | None = None
    """Whether it was drawn at random nevertheless, as a check on the selected pairs."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question that is recorded, with or without answers."""

    id: int
    prompt: int
    """Prompt id."""
    images: tuple[int, ...]
    """Image ids, in the order in which the question names them."""
    overlap: int
    """Number of answers wanted."""
    probability: float | None
    """The probability with which this pair was selected, if pairs are selected by earlier votes."""
    at_random: bool | None
    """Whether it was drawn at random nevertheless."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to a question. It names pictures by image id, never by position."""

    outcome: Outcome
    winner: int | None = None
    """The preferred image of a `win`."""
    values: Mapping[int, float] = field(default_factory=dict[int, float])
    """Values by image id. `rank`: ranks from 1, equal ranks allowed; `best_worst`: best 1 and worst -1; `marks`: 1 for each marked picture;
    `score`: 1 to 5; `share`: the share of preference of each of the two pictures, which sum to 1."""
    reason: str | None = None
    """The annotator's explanation of a `flag`."""


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """A question leased to an annotator."""

    assignment: str
    """The assignment's UUID."""
    question: int
    """Question id."""
    kind: Kind
    purpose: Purpose
    prompt: str
    """The prompt's text."""
    shown: tuple[int, ...]
    """Image ids in the order shown, left to right, which the server draws and stores with the assignment."""
    lease_expires_at: int
    """Milliseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Cast:
    """A vote as a client sends it. `id` is a UUID that the client makes, so that a vote that is sent twice is recorded once."""

    id: str
    assignment: str
    annotator: int
    answer: Answer
    rt_ms: int | None = None
    """Response time in milliseconds."""
    client: str | None = None
    """Name of the browser tab or program that sends it."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """A current vote, which was neither replaced nor withdrawn."""

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
    """The question's image ids in the order shown, left to right."""
    annotator: int
    answer: Answer
    rt_ms: int | None
    """Response time in milliseconds."""
    received_at: int
    """Milliseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of two images of one prompt, by one or several annotators. It names images by id, never by position."""

    image_a: int
    image_b: int
    target: float
    """The share of preference that a holds: 1 a is preferred, 0 b is, 0.5 a tie."""
    weight: float = 1.0
    """How much it counts: the sum of its annotators' reliabilities."""

    def __post_init__(self) -> None:
        if self.image_a == self.image_b:
            raise ValueError(f"image {self.image_a} is compared with itself")
        if not 0 <= self.target <= 1:
            raise ValueError(f"target is {self.target}; a share of preference lies in [0, 1]")
        if not self.weight >= 0:
            raise ValueError(f"weight is {self.weight}; it must be 0 or more")

    @property
    def is_tie(self) -> bool:
        """Whether neither image is preferred."""
        return self.target == 0.5
