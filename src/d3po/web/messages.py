"""What goes over the wire: the bodies of every request and answer under /v1.

Requests are strict: unknown fields are refused, numbers are numbers, texts are bounded. Times are milliseconds since 1970.
"""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StringConstraints

from d3po.preferences.records import Kind, Outcome, Role

MOST_AT_ONCE = 16
"""Questions one request may lease."""
MOST_PICTURES = 64
DAY_MS = 24 * 60 * 60 * 1000

Position = Annotated[StrictInt, Field(ge=0, lt=MOST_PICTURES)]
PositionKey = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}$")]
Value = Annotated[StrictInt | StrictFloat, Field(ge=-1000, le=1000, allow_inf_nan=False)]
HANDLE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"
"""A name to be known by; not an e-mail address, which has an @."""

Handle = Annotated[str, StringConstraints(pattern=HANDLE)]


Order = Literal["pause", "resume", "stop", "train_now", "end_test"]
"""What administrators tell a run."""


class Request(BaseModel):
    """A body from a client."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Join(Request):
    """An invitation, to be exchanged for a session."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9._=-]+$")]


class Ballot(Request):
    """A vote. It names positions as shown; the server knows which picture stood there."""

    id: UUID
    assignment: UUID
    outcome: Outcome
    position: Position | None = None
    """The preferred picture of a `win`."""
    positions: Annotated[dict[PositionKey, Value], Field(max_length=MOST_PICTURES)] | None = None
    """By position: ranks from 1, best 1 and worst -1, marked 1, or the score."""
    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")] | None = None
    rt_ms: Annotated[StrictInt, Field(ge=0, le=DAY_MS)] | None = None
    client: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None


class Withdrawal(Request):
    """The event that takes a vote back; it has an id of its own, so that sending it twice is one withdrawal."""

    id: UUID


class ControlRequest(Request):
    """What the trainer is to do."""

    action: Order
    """`end_test`: no more blind questions are put, and a run that waits for their answers goes on without."""
    round: Annotated[StrictInt, Field(ge=0, lt=2**31)] | None = None
    """The round that `train_now` closes; the current one if left out."""


class InvitationRequest(Request):
    """Whom to invite."""

    handle: Handle
    role: Role = "annotator"
    days: Annotated[StrictInt, Field(ge=1, le=365)] = 30
    """How long the invitation can be used, and its sessions live."""


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    detail: str


class Me(BaseModel):
    """Who asks, and how things stand for them."""

    handle: str
    role: Role
    done: int
    """Questions answered by them."""
    left: int
    """Questions they could still be given."""
    rate_per_minute: float
    """Their answers a minute, over the last five minutes."""
    round: int | None
    phase: str
    message: str


class Picture(BaseModel):
    """A picture of a question, where it stands."""

    position: int
    url: str
    width: int | None
    """Pixels; null if the file cannot be read."""
    height: int | None


class Item(BaseModel):
    """A question to answer."""

    assignment: str
    kind: Kind
    prompt: str
    images: list[Picture]
    lease_expires_at: int
    instruction: str


class Queue(BaseModel):
    """Questions leased to whoever asked."""

    items: list[Item]
    done: int
    left: int
    phase: str


class Acknowledged(BaseModel):
    """A vote that is on disk."""

    vote: str
    status: Literal["new", "duplicate"]


class Retracted(BaseModel):
    """The question whose answer was taken back, in the same order; null if it cannot be asked again."""

    item: Item | None


class Phase(BaseModel):
    """What the trainer is doing."""

    phase: str
    round: int | None
    since: int
    message: str


class Control(BaseModel):
    """What the trainer has been told."""

    paused: bool
    stop: bool
    train_now_round: int | None


class AgreementMessage(BaseModel):
    """Krippendorff's alpha of people's judgements of pairs of pictures, with its 95 % interval; null where no pair has two judges."""

    alpha: float | None
    low: float | None
    high: float | None
    pairs: int
    """Pairs judged by two people or more."""


class Round(BaseModel):
    """One round's questions and answers."""

    round: int
    questions: int
    wanted: int
    """Answers wanted: the overlap of every question, summed."""
    answered: int
    """Of these, the answers given."""
    open: int
    """Of these, neither given nor leased."""
    agreement: AgreementMessage | None
    """How far people agreed on this round's pictures; null before anybody has voted."""
    phases: list[Phase]


class Minute(BaseModel):
    """Votes that came in within one minute."""

    at: int
    votes: int


class CurvePoint(BaseModel):
    """One evaluation."""

    round: int | None
    rounds: int | None
    """Rounds of training behind the policy."""
    comparisons: int | None
    answers: int | None
    """People's answers behind a figure that is theirs."""
    value: float
    low: float | None
    high: float | None


class CurveMessage(BaseModel):
    """One figure over the evaluations, with its 95 % interval where there is one."""

    name: str
    points: list[CurvePoint]


class AnnotatorFigures(BaseModel):
    """How one annotator answers."""

    handle: str
    kind: str
    votes: int
    gold_asked: int
    gold_right: int
    gold_low: float | None
    gold_high: float | None
    again_asked: int
    """Pairs decided twice, the second time with the sides swapped."""
    again_same: int
    """Of these, decided the same way."""
    left_share: float | None
    left_p: float | None
    """Chance of a left share as far from one half, were sides drawn by a coin."""
    median_rt_ms: float | None
    fast_share: float | None
    """Share of answers in under 300 ms."""
    intransitive: int
    """Triples of pictures judged in a circle."""
    suspicions: list[str]


class AlarmMessage(BaseModel):
    """A guard's warning."""

    at: int
    round: int | None
    message: str
    stops: bool


class Cost(BaseModel):
    """What the run has cost so far."""

    network_rows: int
    seconds: float
    updates: int


class SampleGrid(BaseModel):
    """Pictures of one series: the same prompts in every series, so that rounds can be laid side by side."""

    series: str
    prompts: list[str]
    images: list[list[int]]
    """Image ids by prompt."""


class Dashboard(BaseModel):
    """Everything the dashboard shows."""

    run: str
    now: int
    phase: Phase | None
    control: Control
    rounds: list[Round]
    votes_per_minute: list[Minute]
    """The last two hours, oldest first, minutes without votes included."""
    votes: int
    measured_by: str
    """The reward that figures are measured by in a run that people judge, whose own figure comes first; else empty."""
    curves: list[CurveMessage]
    agreement: AgreementMessage | None
    annotators: list[AnnotatorFigures]
    alarms: list[AlarmMessage]
    """Newest first."""
    cost: Cost
    samples: list[SampleGrid]


class InvitationMade(BaseModel):
    """An invitation. The link is shown this once; only a hash of it is kept."""

    id: int
    handle: str
    link: str
    expires_at: int


class InvitationMessage(BaseModel):
    """An invitation as it stands in the list, without its secret."""

    id: int
    handle: str
    role: Role
    created_at: int
    expires_at: int
    revoked_at: int | None
    sessions: int
    """Sessions opened with it that are still good."""


class Invitations(BaseModel):
    """All invitations, newest first."""

    invitations: list[InvitationMessage]


class AuditEntryMessage(BaseModel):
    """Something an administrator did."""

    at: int
    actor: str
    action: str
    detail: dict[str, object]


class AuditMessage(BaseModel):
    """What administrators did, newest first, and whether the chain of hashes is whole."""

    entries: list[AuditEntryMessage]
    intact: bool
