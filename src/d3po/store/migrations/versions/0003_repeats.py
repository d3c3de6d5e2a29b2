"""Repeats: questions that the same person is asked again, with the sides swapped."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BEFORE = "purpose IN ('train', 'gold', 'blind')"
AFTER = "purpose IN ('train', 'gold', 'blind', 'repeat')"


def upgrade() -> None:
    """Allow the new purpose of questions."""
    if op.get_context().dialect.name == "postgresql":
        op.drop_constraint("purpose_known", "question")
        op.create_check_constraint("purpose_known", "question", AFTER)
    else:
        _rewrite_check()


def _rewrite_check() -> None:
    """Change the check in the text of SQLite's schema.

    SQLite cannot alter a check, and making the table again would break the foreign keys to it. SQLite's manual (ALTER TABLE, section 8) describes this way: no
    row is changed, and the new schema version makes every connection read the schema again.
    """
    version = op.get_bind().scalar(sa.text("PRAGMA schema_version"))
    op.execute("PRAGMA writable_schema = ON")
    op.execute(
        sa.text("UPDATE sqlite_master SET sql = replace(sql, :before, :after) WHERE type = 'table' AND name = 'question'").bindparams(
            before=BEFORE, after=AFTER
        )
    )
    op.execute(f"PRAGMA schema_version = {version + 1}")
    op.execute("PRAGMA writable_schema = RESET")
