"""An encoder as it is once it is loaded, hashed: so that a loaded model can be told to be it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; NULL where it is not known."""
    op.add_column("encoder", sa.Column("loaded_fingerprint", sa.String(64)))
