"""The dtype that an encoder's towers compute in; older encoders are float32."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "encoder", sa.Column("dtype", sa.String(16), nullable=False, server_default="float32")
    )
