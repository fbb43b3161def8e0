"""Tables of encoders, embeddings, indexes and labels."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "encoder",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False, unique=True),
        sa.Column("model_id", sa.Text()),
        sa.Column("revision", sa.Text()),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("logit_scale", sa.Float(53), nullable=False),
        sa.Column("logit_bias", sa.Float(53), nullable=False),
        sa.Column("activation", sa.String(16), nullable=False),
    )
    op.create_table(
        "embedding",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("encoder_id", _ID, sa.ForeignKey("encoder.id"), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "label_index",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("encoder_id", _ID, sa.ForeignKey("encoder.id")),
        sa.Column("templates", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "label",
        sa.Column("id", _ID, primary_key=True),
        sa.Column(
            "index_id", _ID, sa.ForeignKey("label_index.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer()),
        sa.Column("embedding_id", _ID, sa.ForeignKey("embedding.id")),
        sa.UniqueConstraint("index_id", "name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_label_index_id_position", "label", ["index_id", "position"])
