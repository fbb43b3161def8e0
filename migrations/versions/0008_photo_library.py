"""Photo libraries: photos, runs, decisions, tags, sidecars, verdicts and thresholds."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the tables."""
    big = sa.BigInteger
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "photo",
        sa.Column("id", row_id, primary_key=True),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("size", big, nullable=False),
        sa.Column("mtime_ns", big, nullable=False),
        sa.Column("content_hash", sa.LargeBinary(32), index=True),
        sa.Column("problem", sa.Text),
        sa.Column("missing_since", sa.Float(53)),
        sa.Column("tags_digest", sa.String(64), nullable=False, server_default=""),
        sa.UniqueConstraint("folder", "name"),
    )
    op.create_table(
        "tag_run",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, index=True),
        sa.Column("index_name", sa.String(64), nullable=False),
        sa.Column("model_id", sa.Text),
        sa.Column("taxonomy", sa.String(64), nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("counts", sa.Text, nullable=False, server_default="{}"),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("finished_at", sa.Float(53)),
    )
    op.create_table(
        "photo_decision",
        sa.Column("photo_id", row_id, sa.ForeignKey("photo.id"), primary_key=True),
        sa.Column("index_id", big, primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "photo_tag",
        sa.Column("photo_id", row_id, sa.ForeignKey("photo.id"), primary_key=True),
        sa.Column("index_id", big, primary_key=True),
        sa.Column("path", sa.Text, primary_key=True, index=True),
        sa.Column("label_id", big),
        sa.Column("probability", sa.Float(53)),
        sa.Column("run_id", sa.String(40), sa.ForeignKey("tag_run.id"), nullable=False, index=True),
        sa.Column("written_by", sa.String(40), index=True),
    )
    op.create_table(
        "sidecar",
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("photo_id", row_id, sa.ForeignKey("photo.id"), nullable=False, index=True),
        sa.Column("sidecar_for", sa.String(16), nullable=False, server_default=""),
        sa.Column("tags_digest", sa.String(64), nullable=False),
        sa.Column("record", sa.Text),
        sa.Column("written", sa.String(64), index=True),
        sa.Column("size", big),
        sa.Column("mtime_ns", big),
        sa.Column("intent", sa.Text),
    )
    op.create_table(
        "verdict",
        sa.Column("content_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("label_id", big, primary_key=True),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "label_threshold",
        sa.Column("label_id", big, primary_key=True, autoincrement=False),
        sa.Column("index_id", big, nullable=False, index=True),
        sa.Column("threshold", sa.Float(53), nullable=False),
    )
