"""What an index is scanned or searched through first."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; indexes of before are flat."""
    op.add_column(
        "label_index", sa.Column("kind", sa.String(16), nullable=False, server_default="flat")
    )
