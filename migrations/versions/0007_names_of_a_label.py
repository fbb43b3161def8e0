"""Name pooling of an index, and the rows of a label beyond the first."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_id = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


def upgrade() -> None:
    """Add the columns and the table; labels of older indexes have one row."""
    op.add_column(
        "label_index", sa.Column("names", sa.String(16), nullable=False, server_default="mean")
    )
    op.add_column("label_index", sa.Column("rows", sa.Integer))
    op.create_table(
        "other_name",
        sa.Column(
            "label_id",
            _id,
            sa.ForeignKey("label.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("embedding_id", _id, sa.ForeignKey("embedding.id"), nullable=False),
    )
