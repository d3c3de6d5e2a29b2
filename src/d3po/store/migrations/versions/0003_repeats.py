"""Questions that are put to somebody again, sides swapped."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BEFORE = "purpose IN ('train', 'gold', 'blind')"
AFTER = "purpose IN ('train', 'gold', 'blind', 'repeat')"


def upgrade() -> None:
    """Let questions have the new purpose."""
    if op.get_context().dialect.name == "postgresql":
        op.drop_constraint("purpose_known", "question")
        op.create_check_constraint("purpose_known", "question", AFTER)
    else:
        _rewrite_check()


def _rewrite_check() -> None:
    """SQLite cannot alter a check, and making the table anew would break the keys that lead to it. Its manual (ALTER TABLE, section 8)
    has checks changed in the schema's own text: no row is touched, and the new schema version makes every connection read it again.
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
