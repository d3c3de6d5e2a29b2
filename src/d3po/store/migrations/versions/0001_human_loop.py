"""The tables of the human loop, and the triggers that keep events from being changed.

They are written out, not taken from `tables.py`, since a migration describes the tables at the time when it was written.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

APPEND_ONLY = ("vote", "vote_item", "feedback_batch_vote", "audit_log")


def upgrade() -> None:
    """Create the tables, then the triggers."""
    _pictures()
    _people()
    _questions()
    _votes()
    _records()
    if op.get_context().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def _pictures() -> None:
    op.create_table(
        "prompt",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("text_hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("text_hash"),
    )
    op.create_table(
        "shard",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("checksum", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("path"),
        sa.UniqueConstraint("round", "number"),
    )
    op.create_table(
        "image",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("series", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.Column("shard_id", sa.Integer(), nullable=True),
        sa.Column("row", sa.Integer(), nullable=True),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("(origin = 'sampled') = (shard_id IS NOT NULL AND round IS NOT NULL)", name="only_sampled_has_trajectory"),
        sa.CheckConstraint("origin IN ('sampled', 'evaluation', 'imported')", name="origin_known"),
        sa.CheckConstraint("(shard_id IS NULL) = (row IS NULL)", name="trajectory_is_whole"),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"]),
        sa.ForeignKeyConstraint(["shard_id"], ["shard.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("path"),
        sa.UniqueConstraint("series", "prompt_id", "number"),
        sa.UniqueConstraint("shard_id", "row"),
    )
    op.create_index("ix_image_round", "image", ["round"])
    op.create_index("ix_image_sha256", "image", ["sha256"])


def _people() -> None:
    op.create_table(
        "annotator",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("handle", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('human', 'model', 'rule')", name="kind_known"),
        sa.CheckConstraint("role IN ('admin', 'annotator')", name="role_known"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("handle"),
    )
    op.create_table(
        "token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("scope IN ('invitation', 'session')", name="scope_known"),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotator.id"]),
        sa.ForeignKeyConstraint(["parent_id"], ["token.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("secret_hash"),
    )
    op.create_index("ix_token_annotator_id", "token", ["annotator_id"])


def _questions() -> None:
    op.create_table(
        "question",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.Column("dedup_key", sa.String(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("open_slots", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("gold_answer", sa.JSON(none_as_null=True), nullable=True),
        sa.CheckConstraint("(purpose = 'gold') = (gold_answer IS NOT NULL)", name="gold_has_answer"),
        sa.CheckConstraint("kind IN ('pair', 'best_worst', 'rank', 'grid', 'thumb', 'score')", name="kind_known"),
        sa.CheckConstraint("purpose IN ('train', 'gold', 'blind')", name="purpose_known"),
        sa.CheckConstraint("open_slots >= 0 AND open_slots <= overlap", name="never_over_assigned"),
        sa.CheckConstraint("overlap >= 1", name="asked_at_least_once"),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("dedup_key"),
    )
    op.create_index("ix_question_round", "question", ["round"])
    op.create_index(
        "question_queue", "question", ["priority", "id"], sqlite_where=sa.text("open_slots > 0"), postgresql_where=sa.text("open_slots > 0")
    )
    op.create_table(
        "question_image",
        sa.Column("question_id", sa.Integer(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"]),
        sa.ForeignKeyConstraint(["question_id"], ["question.id"]),
        sa.PrimaryKeyConstraint("question_id", "slot"),
        sa.UniqueConstraint("question_id", "image_id"),
    )
    op.create_table(
        "assignment",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("question_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("overlap_slot", sa.Integer(), nullable=True),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(state = 'leased') <= (overlap_slot IS NOT NULL)", name="a_lease_holds_a_slot"),
        sa.CheckConstraint("state IN ('leased', 'answered', 'lost')", name="state_known"),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotator.id"]),
        sa.ForeignKeyConstraint(["question_id"], ["question.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("id", "question_id", "annotator_id"),
        sa.UniqueConstraint("question_id", "annotator_id"),
        sa.UniqueConstraint("question_id", "overlap_slot"),
    )
    op.create_index(
        "assignment_leases",
        "assignment",
        ["lease_expires_at"],
        sqlite_where=sa.text("state = 'leased'"),
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index("assignment_of_annotator", "assignment", ["annotator_id", "state"])


def _votes() -> None:
    op.create_table(
        "vote",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("assignment_id", sa.String(), nullable=False),
        sa.Column("question_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("winner_id", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("supersedes", sa.String(), nullable=True),
        sa.Column("rt_ms", sa.Integer(), nullable=True),
        sa.Column("client", sa.String(), nullable=True),
        sa.Column("payload_hash", sa.String(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(action = 'retract') <= (supersedes IS NOT NULL)", name="a_retract_supersedes"),
        sa.CheckConstraint("(action = 'retract') = (outcome IS NULL)", name="a_cast_has_an_outcome"),
        sa.CheckConstraint("(outcome IS NOT NULL AND outcome = 'win') = (winner_id IS NOT NULL)", name="a_win_has_a_winner"),
        sa.CheckConstraint("action IN ('cast', 'retract')", name="action_known"),
        sa.CheckConstraint(
            "outcome IN ('win', 'tie', 'both_bad', 'skip', 'flag', 'rank', 'best_worst', 'marks', 'up', 'down', 'score', 'share')",
            name="outcome_known",
        ),
        sa.CheckConstraint("rt_ms IS NULL OR rt_ms >= 0", name="time_taken_is_positive"),
        sa.ForeignKeyConstraint(
            ["assignment_id", "question_id", "annotator_id"], ["assignment.id", "assignment.question_id", "assignment.annotator_id"]
        ),
        sa.ForeignKeyConstraint(["question_id", "winner_id"], ["question_image.question_id", "question_image.image_id"]),
        sa.ForeignKeyConstraint(["supersedes"], ["vote.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("id", "question_id"),
        sa.UniqueConstraint("sequence"),
        sa.UniqueConstraint("supersedes"),
    )
    op.create_index(
        "vote_first",
        "vote",
        ["question_id", "annotator_id"],
        unique=True,
        sqlite_where=sa.text("supersedes IS NULL"),
        postgresql_where=sa.text("supersedes IS NULL"),
    )
    op.create_index("vote_of_annotator", "vote", ["annotator_id", "received_at"])
    op.create_index("vote_of_question", "vote", ["question_id", "annotator_id"])
    op.create_table(
        "vote_item",
        sa.Column("vote_id", sa.String(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("question_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["question_id", "image_id"], ["question_image.question_id", "question_image.image_id"]),
        sa.ForeignKeyConstraint(["vote_id", "question_id"], ["vote.id", "vote.question_id"]),
        sa.PrimaryKeyConstraint("vote_id", "image_id"),
    )
    op.create_table(
        "feedback_batch",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("round"),
    )
    op.create_table(
        "feedback_batch_vote",
        sa.Column("vote_id", sa.String(), nullable=False),
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["feedback_batch.id"]),
        sa.ForeignKeyConstraint(["vote_id"], ["vote.id"]),
        sa.PrimaryKeyConstraint("vote_id"),
    )
    op.create_index("ix_feedback_batch_vote_batch_id", "feedback_batch_vote", ["batch_id"])


def _records() -> None:
    op.create_table(
        "journal",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.CheckConstraint("kind IN ('phase', 'evaluation', 'update', 'alarm')", name="kind_known"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_journal_kind", "journal", ["kind"])
    op.create_table(
        "control",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.CheckConstraint("action IN ('pause', 'resume', 'stop', 'train_now')", name="action_known"),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotator.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous_hash", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )


def _guard_sqlite() -> None:
    for table in APPEND_ONLY:
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def _guard_postgresql() -> None:
    op.execute("CREATE SEQUENCE vote_sequence OWNED BY vote.sequence")
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
