"""Digest of an index's plan: a build with the same plan has nothing to do."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; older indexes get the empty string, which no plan has as its digest."""
    op.add_column(
        "label_index", sa.Column("plan", sa.String(64), nullable=False, server_default="")
    )
