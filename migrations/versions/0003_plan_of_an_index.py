"""What an index was last asked to be, hashed: a build that asks for the same has nothing to do."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; an empty text is no plan's hash."""
    op.add_column(
        "label_index", sa.Column("plan", sa.String(64), nullable=False, server_default="")
    )
