"""Kind of an index: its data structure for scanning or searching."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; older indexes are flat."""
    op.add_column(
        "label_index", sa.Column("kind", sa.String(16), nullable=False, server_default="flat")
    )
