"""Taxonomies, names of labels that differ from their keys, and calibrations."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the tables and the columns; older indexes have none of these."""
    op.create_table(
        "taxonomy",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.add_column("label_index", sa.Column("taxonomy", sa.String(64)))
    op.add_column("label", sa.Column("shown", sa.Text))
    op.create_table(
        "calibration",
        sa.Column(
            "index_id",
            sa.Integer().with_variant(sa.BigInteger(), "postgresql"),
            sa.ForeignKey("label_index.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("plan", sa.String(64), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
    )
