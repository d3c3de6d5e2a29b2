"""The tables of a run's database. Their constraints, not the code that writes, make invalid states impossible.

One database is one run. Times are milliseconds since 1970 (UTC) by the server's clock. Ids of votes and assignments are UUIDs as text, so that a client
can choose a vote's id before it sends the vote.
"""

from sqlalchemy import BigInteger, CheckConstraint, Dialect, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON, TypeDecorator

Milliseconds = BigInteger
"""A point in time, in milliseconds since 1970."""


class Unsigned(TypeDecorator[int]):
    """A whole number from 0 to 2^64 - 1, stored in a signed 64-bit column; the upper half is stored as negative numbers."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return value if value is None or value < 2**63 else value - 2**64

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return value if value is None or value >= 0 else value + 2**64


class Base(DeclarativeBase):
    """Declarative base of the run's tables."""


class PromptRow(Base):
    """A text that pictures are sampled from."""

    __tablename__ = "prompt"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(comment="the text as the model is given it")
    text_hash: Mapped[str] = mapped_column(unique=True, comment="SHA-256 of the text; long texts cannot be indexed everywhere")


class ShardRow(Base):
    """A file of trajectories. A row exists only once the file is complete."""

    __tablename__ = "shard"
    __table_args__ = (UniqueConstraint("round", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(comment="the round it was sampled for")
    number: Mapped[int] = mapped_column(comment="number among the round's shards, from 0")
    path: Mapped[str] = mapped_column(unique=True, comment="relative to the run folder")
    checksum: Mapped[str] = mapped_column(comment="SHA-256 of the file")


class ImageRow(Base):
    """A picture. It is unique by series, prompt and number, so that a resumed sampler cannot record it twice. Only sampled pictures have a trajectory."""

    __tablename__ = "image"
    __table_args__ = (
        UniqueConstraint("series", "prompt_id", "number"),
        UniqueConstraint("shard_id", "row"),
        CheckConstraint("(shard_id IS NULL) = (row IS NULL)", name="trajectory_is_whole"),
        CheckConstraint("(origin = 'sampled') = (shard_id IS NOT NULL AND round IS NOT NULL)", name="only_sampled_has_trajectory"),
        CheckConstraint("origin IN ('sampled', 'evaluation', 'imported')", name="origin_known"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"), comment="the prompt it was made from")
    origin: Mapped[str] = mapped_column(comment="sampled (a round's, with trajectory), evaluation (held out) or imported")
    series: Mapped[str] = mapped_column(comment="the set of pictures it belongs to: round-000, held-out/base, import/NAME")
    number: Mapped[int] = mapped_column(comment="number among the prompt's pictures of the series, from 0")
    round: Mapped[int | None] = mapped_column(index=True, comment="the round it was sampled for")
    shard_id: Mapped[int | None] = mapped_column(ForeignKey("shard.id"), comment="the file its trajectory is in")
    row: Mapped[int | None] = mapped_column(comment="index in the shard's batch dimension")
    path: Mapped[str] = mapped_column(unique=True, comment="the file, relative to the run folder")
    sha256: Mapped[str] = mapped_column(index=True, comment="hash of the file's bytes")
    model: Mapped[str] = mapped_column(comment="the base model, or where an imported picture came from")
    policy: Mapped[str] = mapped_column(comment="the policy that sampled it: base, round-000, ...; empty for imported pictures")
    seed: Mapped[int | None] = mapped_column(
        Unsigned, comment="the run's seed; noise is derived from it, the round, the prompt and the number"
    )


class AnnotatorRow(Base):
    """A person, model or rule that answers questions, identified by a handle, never by an e-mail address."""

    __tablename__ = "annotator"
    __table_args__ = (
        CheckConstraint("kind IN ('human', 'model', 'rule')", name="kind_known"),
        CheckConstraint("role IN ('admin', 'annotator')", name="role_known"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    handle: Mapped[str] = mapped_column(unique=True, comment="the annotator's name")
    kind: Mapped[str] = mapped_column(comment="human, model (a vision-language model or a learned scorer), or rule (any other reward)")
    role: Mapped[str] = mapped_column(default="annotator", comment="admin may use the dashboard, annotator only answers")
    created_at: Mapped[int] = mapped_column(Milliseconds, comment="when it was added")


class TokenRow(Base):
    """An invitation or a browser's session. Only the hash of its secret is stored."""

    __tablename__ = "token"
    __table_args__ = (CheckConstraint("scope IN ('invitation', 'session')", name="scope_known"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotator.id"), index=True, comment="the annotator it is for")
    scope: Mapped[str] = mapped_column(comment="invitation (exchanged for sessions) or session (of one browser)")
    secret_hash: Mapped[str] = mapped_column(unique=True, comment="SHA-256 of the secret")
    parent_id: Mapped[int | None] = mapped_column(
        ForeignKey("token.id"), comment="the invitation that opened the session; revoking it ends both"
    )
    created_at: Mapped[int] = mapped_column(Milliseconds, comment="when it was made")
    expires_at: Mapped[int] = mapped_column(Milliseconds, comment="when it becomes invalid")
    revoked_at: Mapped[int | None] = mapped_column(Milliseconds, comment="when it was ended early")


class QuestionRow(Base):
    """A question about K pictures of one prompt. The same pictures asked about in the same way for the same purpose are the same question."""

    __tablename__ = "question"
    __table_args__ = (
        CheckConstraint("kind IN ('pair', 'best_worst', 'rank', 'grid', 'thumb', 'score')", name="kind_known"),
        CheckConstraint("purpose IN ('train', 'gold', 'blind', 'repeat')", name="purpose_known"),
        CheckConstraint("overlap >= 1", name="asked_at_least_once"),
        CheckConstraint("open_slots >= 0 AND open_slots <= overlap", name="never_over_assigned"),
        CheckConstraint("(purpose = 'gold') = (gold_answer IS NOT NULL)", name="gold_has_answer"),
        Index("question_queue", "priority", "id", sqlite_where=text("open_slots > 0"), postgresql_where=text("open_slots > 0")),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(comment="two pictures; best and worst; an order; mark the bad ones; up or down; 1 to 5")
    purpose: Mapped[str] = mapped_column(
        comment="train; or, never trained on: gold (checks the annotator), blind (base against tuned), repeat (answered before by the same person)"
    )
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"), comment="the prompt of all its pictures")
    round: Mapped[int | None] = mapped_column(index=True, comment="the round whose training it serves")
    dedup_key: Mapped[str] = mapped_column(unique=True, comment="hash of purpose, kind and the sorted image ids, so that (a, b) is (b, a)")
    overlap: Mapped[int] = mapped_column(comment="number of answers wanted, each from another annotator")
    open_slots: Mapped[int] = mapped_column(comment="answers neither given nor leased; 0 once the question is closed")
    priority: Mapped[float] = mapped_column(comment="smaller is asked earlier")
    gold_answer: Mapped[dict[str, object] | None] = mapped_column(JSON(none_as_null=True), comment="the expected answer of a gold question")
    probability: Mapped[float | None] = mapped_column(
        comment="probability with which this pair was selected, if pairs are selected by earlier votes"
    )
    at_random: Mapped[bool | None] = mapped_column(comment="whether it was drawn at random nevertheless, as a check on the selected ones")


class QuestionImageRow(Base):
    """A picture of a question."""

    __tablename__ = "question_image"
    __table_args__ = (UniqueConstraint("question_id", "image_id"),)
    question_id: Mapped[int] = mapped_column(ForeignKey("question.id"), primary_key=True, comment="the question")
    slot: Mapped[int] = mapped_column(
        primary_key=True, comment="position in which the question names it; the order shown is drawn for each annotator"
    )
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), comment="the picture")


class AssignmentRow(Base):
    """One question as it is put to one annotator, with the order in which the pictures are shown and the lease that reserves a slot."""

    __tablename__ = "assignment"
    __table_args__ = (
        UniqueConstraint("question_id", "overlap_slot"),
        UniqueConstraint("question_id", "annotator_id"),
        UniqueConstraint("id", "question_id", "annotator_id"),
        CheckConstraint("state IN ('leased', 'answered', 'lost')", name="state_known"),
        CheckConstraint("(state = 'leased') <= (overlap_slot IS NOT NULL)", name="a_lease_holds_a_slot"),
        Index("assignment_leases", "lease_expires_at", sqlite_where=text("state = 'leased'"), postgresql_where=text("state = 'leased'")),
        Index("assignment_of_annotator", "annotator_id", "state"),
    )
    id: Mapped[str] = mapped_column(primary_key=True, comment="UUID")
    question_id: Mapped[int] = mapped_column(ForeignKey("question.id"), comment="the question")
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotator.id"), comment="the annotator who is asked")
    overlap_slot: Mapped[int | None] = mapped_column(comment="number of the slot it holds, from 0; none once the lease is lost")
    shown: Mapped[list[int]] = mapped_column(JSON, comment="image ids in the order shown, left to right")
    state: Mapped[str] = mapped_column(comment="leased (not answered yet), answered, or lost (the lease expired, or the round was closed)")
    created_at: Mapped[int] = mapped_column(Milliseconds, comment="when the annotator was first asked")
    lease_expires_at: Mapped[int] = mapped_column(Milliseconds, comment="when the lease expires")


class VoteRow(Base):
    """An answer, or its withdrawal: an event that is never changed. A later event of the same annotator supersedes an earlier one."""

    __tablename__ = "vote"
    __table_args__ = (
        ForeignKeyConstraint(
            ["assignment_id", "question_id", "annotator_id"], ["assignment.id", "assignment.question_id", "assignment.annotator_id"]
        ),
        ForeignKeyConstraint(["question_id", "winner_id"], ["question_image.question_id", "question_image.image_id"]),
        UniqueConstraint("id", "question_id"),
        CheckConstraint("action IN ('cast', 'retract')", name="action_known"),
        CheckConstraint("(action = 'retract') = (outcome IS NULL)", name="a_cast_has_an_outcome"),
        CheckConstraint("(action = 'retract') <= (supersedes IS NOT NULL)", name="a_retract_supersedes"),
        CheckConstraint(
            "outcome IN ('win', 'tie', 'both_bad', 'skip', 'flag', 'rank', 'best_worst', 'marks', 'up', 'down', 'score', 'share')",
            name="outcome_known",
        ),
        CheckConstraint("(outcome IS NOT NULL AND outcome = 'win') = (winner_id IS NOT NULL)", name="a_win_has_a_winner"),
        CheckConstraint("rt_ms IS NULL OR rt_ms >= 0", name="time_taken_is_positive"),
        Index(
            "vote_first",
            "question_id",
            "annotator_id",
            unique=True,
            sqlite_where=text("supersedes IS NULL"),
            postgresql_where=text("supersedes IS NULL"),
        ),
        Index("vote_of_question", "question_id", "annotator_id"),
        Index("vote_of_annotator", "annotator_id", "received_at"),
    )
    id: Mapped[str] = mapped_column(primary_key=True, comment="UUID made by the client; sending it twice is one vote")
    sequence: Mapped[int] = mapped_column(
        BigInteger, unique=True, comment="order of arrival at the writer; for paging and exports, not for claiming"
    )
    assignment_id: Mapped[str] = mapped_column(comment="the assignment that it answers")
    question_id: Mapped[int] = mapped_column(comment="the question")
    annotator_id: Mapped[int] = mapped_column(comment="the annotator")
    action: Mapped[str] = mapped_column(comment="cast, or retract (withdraws the event that it supersedes)")
    outcome: Mapped[str | None] = mapped_column(comment="the kind of answer; none in a withdrawal")
    winner_id: Mapped[int | None] = mapped_column(comment="the preferred image of a win")
    reason: Mapped[str | None] = mapped_column(comment="an annotator's words, with a flag")
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("vote.id"), unique=True, comment="the event this one replaces")
    rt_ms: Mapped[int | None] = mapped_column(comment="response time: milliseconds between seeing and answering")
    client: Mapped[str | None] = mapped_column(comment="the browser tab or program that sent it")
    payload_hash: Mapped[str] = mapped_column(comment="hash of what was sent; the same id with another payload is refused")
    received_at: Mapped[int] = mapped_column(Milliseconds, comment="when the server received it, by a clock that never goes back")


class VoteItemRow(Base):
    """The value that a vote gives to one picture: a rank from 1, best 1 and worst -1, marked 1, a score, or a share of preference."""

    __tablename__ = "vote_item"
    __table_args__ = (
        ForeignKeyConstraint(["vote_id", "question_id"], ["vote.id", "vote.question_id"]),
        ForeignKeyConstraint(["question_id", "image_id"], ["question_image.question_id", "question_image.image_id"]),
    )
    vote_id: Mapped[str] = mapped_column(primary_key=True, comment="the vote")
    image_id: Mapped[int] = mapped_column(primary_key=True, comment="the picture")
    question_id: Mapped[int] = mapped_column(comment="the vote's question, so that only its pictures can be named")
    value: Mapped[float] = mapped_column(comment="the value")


class FeedbackBatchRow(Base):
    """The votes that one round's training used. They are fixed once, so that a resumed training reads the same votes."""

    __tablename__ = "feedback_batch"
    id: Mapped[int] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(unique=True, comment="the round that is trained on it")
    created_at: Mapped[int] = mapped_column(Milliseconds, comment="when it was claimed")


class FeedbackBatchVoteRow(Base):
    """A vote in a batch; no vote is in two batches."""

    __tablename__ = "feedback_batch_vote"
    vote_id: Mapped[str] = mapped_column(ForeignKey("vote.id"), primary_key=True, comment="the vote")
    batch_id: Mapped[int] = mapped_column(ForeignKey("feedback_batch.id"), index=True, comment="the batch it is in")


class JournalRow(Base):
    """A message from the trainer to the dashboard: a phase, an evaluation, an update or an alarm."""

    __tablename__ = "journal"
    __table_args__ = (CheckConstraint("kind IN ('phase', 'evaluation', 'update', 'alarm')", name="kind_known"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(Milliseconds, comment="when it was written")
    kind: Mapped[str] = mapped_column(index=True, comment="phase, evaluation, update or alarm")
    round: Mapped[int | None] = mapped_column(comment="the round it is about")
    body: Mapped[dict[str, object]] = mapped_column(JSON, comment="the message")


class ControlRow(Base):
    """An action that the dashboard sends to the trainer: pause, resume, stop, train now. The trainer acts on the newest."""

    __tablename__ = "control"
    __table_args__ = (CheckConstraint("action IN ('pause', 'resume', 'stop', 'train_now')", name="action_known"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(Milliseconds, comment="when it was sent")
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotator.id"), comment="the administrator who sent it")
    action: Mapped[str] = mapped_column(comment="what the trainer is to do")
    round: Mapped[int | None] = mapped_column(comment="the round that train_now closes")


class AuditRow(Base):
    """The audit log of administrators' actions. Entries are chained by hashes, so that a changed or missing entry breaks the chain."""

    __tablename__ = "audit_log"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(Milliseconds, comment="when it was done")
    actor: Mapped[str] = mapped_column(comment="the administrator's handle")
    action: Mapped[str] = mapped_column(comment="what was done")
    detail: Mapped[dict[str, object]] = mapped_column(JSON, comment="what the action was applied to")
    previous_hash: Mapped[str] = mapped_column(comment="hash of the previous entry; 64 zeros in the first")
    hash: Mapped[str] = mapped_column(unique=True, comment="SHA-256 of everything else in the entry")
