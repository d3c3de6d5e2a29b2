"""How a pair came to be asked, where pairs are chosen by the votes before."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what is known of a choice; of questions asked so far, nothing is."""
    op.add_column("question", sa.Column("probability", sa.Double(), nullable=True))
    op.add_column("question", sa.Column("at_random", sa.Boolean(), nullable=True))
