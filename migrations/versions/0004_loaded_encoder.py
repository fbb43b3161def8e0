"""Fingerprint of an encoder's loaded weights, to identify a model that is loaded already."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; NULL for older encoders, whose value is unknown."""
    op.add_column("encoder", sa.Column("loaded_fingerprint", sa.String(64)))
