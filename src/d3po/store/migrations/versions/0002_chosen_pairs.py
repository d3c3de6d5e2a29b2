"""Columns that record how a pair was selected, if pairs are selected by earlier votes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; they are null for existing questions."""
    op.add_column("question", sa.Column("probability", sa.Double(), nullable=True))
    op.add_column("question", sa.Column("at_random", sa.Boolean(), nullable=True))
