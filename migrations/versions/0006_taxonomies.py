"""Taxonomies: kept whole, by content; labels that are shown by another name than they are known."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table and the columns; indexes of before have none."""
    op.create_table(
        "taxonomy",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.add_column("label_index", sa.Column("taxonomy", sa.String(64)))
    op.add_column("label", sa.Column("shown", sa.Text))
