"""The bodies of all requests and responses under /v1.

Requests are strict: unknown fields are refused, values are not coerced, and texts have a maximum length. Times are milliseconds since 1970.
"""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StringConstraints

from d3po.preferences.records import Kind, Outcome, Role

MOST_AT_ONCE = 16
"""The most questions that one request may lease."""
MOST_PICTURES = 64
DAY_MS = 24 * 60 * 60 * 1000

Position = Annotated[StrictInt, Field(ge=0, lt=MOST_PICTURES)]
PositionKey = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}$")]
Value = Annotated[StrictInt | StrictFloat, Field(ge=-1000, le=1000, allow_inf_nan=False)]
HANDLE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"
"""The pattern of a person's handle. It excludes e-mail addresses, which have an @."""

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
    """A vote. It refers to pictures by their position on the page; the server knows which picture was shown there."""

    id: UUID
    assignment: UUID
    outcome: Outcome
    position: Position | None = None
    """The preferred picture of a `win`."""
    positions: Annotated[dict[PositionKey, Value], Field(max_length=MOST_PICTURES)] | None = None
    """A value for each position: ranks from 1, or 1 for the best and -1 for the worst, or 1 for a marked picture, or the score."""
    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")] | None = None
    rt_ms: Annotated[StrictInt, Field(ge=0, le=DAY_MS)] | None = None
    client: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None


class Withdrawal(Request):
    """The withdrawal of a vote. Its id differs from the vote's, so that sending it twice withdraws once."""

    id: UUID


class ControlRequest(Request):
    """What the trainer is told to do."""

    action: Order
    """`end_test`: no more blind questions are put, and a run that waits for their answers goes on without."""
    round: Annotated[StrictInt, Field(ge=0, lt=2**31)] | None = None
    """The round that `train_now` trains on its votes so far. Default: the current round."""


class InvitationRequest(Request):
    """The person to invite."""

    handle: Handle
    role: Role = "annotator"
    days: Annotated[StrictInt, Field(ge=1, le=365)] = 30
    """For how many days the invitation and its sessions are valid."""


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    detail: str


class Me(BaseModel):
    """The caller, and the caller's progress."""

    handle: str
    role: Role
    done: int
    """Questions that the caller has answered."""
    left: int
    """Questions that the caller could still be asked."""
    rate_per_minute: float
    """The caller's answers per minute, over the last five minutes."""
    round: int | None
    phase: str
    message: str


class QuestionPicture(BaseModel):
    """A picture of a question, with its position."""

    position: int
    url: str
    width: int | None
    """Width in pixels; null if the file cannot be read."""
    height: int | None


class Item(BaseModel):
    """A question to answer."""

    assignment: str
    kind: Kind
    prompt: str
    images: list[QuestionPicture]
    lease_expires_at: int
    instruction: str


class Queue(BaseModel):
    """Questions leased to the caller."""

    items: list[Item]
    done: int
    left: int
    phase: str


class Acknowledged(BaseModel):
    """A vote that is on disk."""

    vote: str
    status: Literal["new", "duplicate"]


class Retracted(BaseModel):
    """The question whose answer was withdrawn, with its pictures in the same order; null if it cannot be asked again."""

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
    """Krippendorff's alpha of people's comparisons of pairs, with its 95 % interval; null if it is undefined."""

    alpha: float | None
    low: float | None
    high: float | None
    pairs: int
    """The number of pairs that two or more people compared."""


class Round(BaseModel):
    """One round's questions and answers."""

    round: int
    questions: int
    wanted: int
    """Answers wanted: the overlap of every question, summed."""
    answered: int
    """Of these, answers given."""
    open: int
    """Of these, answers that are neither given nor leased."""
    agreement: AgreementMessage | None
    """People's agreement on this round's pictures; null before the first vote."""
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
    """One figure over all evaluations, with its 95 % interval if it has one."""

    name: str
    points: list[CurvePoint]


class AnnotatorFigures(BaseModel):
    """Statistics of one annotator's answers."""

    handle: str
    kind: str
    votes: int
    gold_asked: int
    gold_right: int
    gold_low: float | None
    gold_high: float | None
    again_asked: int
    """Pairs that were asked twice and decided both times, the second time with the sides swapped."""
    again_same: int
    """Of these, pairs decided the same way."""
    left_share: float | None
    """The share of pairs in which the left picture was preferred."""
    left_p: float | None
    """The p value of the left share, under the hypothesis that both sides are equally likely."""
    median_rt_ms: float | None
    fast_share: float | None
    """The share of answers given in under 300 ms."""
    intransitive: int
    """The number of intransitive triples: A over B, B over C, and C over A."""
    suspicions: list[str]


class AlarmMessage(BaseModel):
    """A guard's warning."""

    at: int
    round: int | None
    message: str
    stops: bool


class CostSoFar(BaseModel):
    """What the run has cost so far."""

    network_rows: int
    """Forward passes of the network: one image at one denoising step, doubled by guidance."""
    seconds: float
    updates: int


class SampleGrid(BaseModel):
    """Pictures of one series. The prompts are the same in every series, so that rounds can be compared side by side."""

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
    """The last two hours, oldest first, including minutes without votes."""
    votes: int
    measured_by: str
    """The reward that figures are measured by in a run that people judge, whose own figure comes first; else empty."""
    curves: list[CurveMessage]
    agreement: AgreementMessage | None
    annotators: list[AnnotatorFigures]
    alarms: list[AlarmMessage]
    """Newest first."""
    cost: CostSoFar
    samples: list[SampleGrid]


class InvitationMade(BaseModel):
    """A new invitation. The link is shown only once, because only a hash of it is stored."""

    id: int
    handle: str
    link: str
    expires_at: int


class InvitationMessage(BaseModel):
    """An invitation in the list, without its secret."""

    id: int
    handle: str
    role: Role
    created_at: int
    expires_at: int
    revoked_at: int | None
    sessions: int
    """The number of its sessions that are still valid."""


class InvitationList(BaseModel):
    """All invitations, newest first."""

    invitations: list[InvitationMessage]


class AuditEntryMessage(BaseModel):
    """One action of an administrator."""

    at: int
    actor: str
    action: str
    detail: dict[str, object]


class AuditMessage(BaseModel):
    """The actions of administrators, newest first, and whether the log's chain of hashes is intact."""

    entries: list[AuditEntryMessage]
    intact: bool
