"""Tables of the database. ``migrations/`` creates them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

# SQLite generates ids only for a column that is declared INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

METADATA = MetaData()

ENCODER = Table(
    "encoder",
    METADATA,
    Column("id", _Id, primary_key=True),
    Column("fingerprint", String(64), unique=True, nullable=False),
    Column("model_id", Text),
    Column("revision", Text),
    Column("dtype", String(16), server_default="float32", nullable=False),
    Column("dim", Integer, nullable=False),
    Column("logit_scale", Float(53), nullable=False),
    Column("logit_bias", Float(53), nullable=False),
    Column("activation", String(16), nullable=False),
    Column("loaded_fingerprint", String(64)),
)
"""The model that embeddings are of, with its logit scale; also for imported embeddings."""

EMBEDDING = Table(
    "embedding",
    METADATA,
    Column("id", _Id, primary_key=True),
    Column("fingerprint", LargeBinary(32), unique=True, nullable=False),
    Column("encoder_id", ForeignKey("encoder.id"), nullable=False),
    Column("vector", LargeBinary, nullable=False),
)
"""An embedding of a label or image: D little-endian float32 numbers of norm 1, 4*D bytes."""

LABEL_INDEX = Table(
    "label_index",
    METADATA,
    Column("id", _Id, primary_key=True),
    Column("name", String(64), unique=True, nullable=False),
    Column("encoder_id", ForeignKey("encoder.id")),
    Column("templates", Text, nullable=False),
    Column("kind", String(16), server_default="flat", nullable=False),
    Column("names", String(16), server_default="mean", nullable=False),
    Column("generation", Integer, nullable=False),
    Column("labels", Integer, nullable=False),
    Column("rows", Integer),
    Column("checksum", String(64), nullable=False),
    Column("plan", String(64), server_default="", nullable=False),
    Column("taxonomy", String(64)),
    Column("created_at", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    # Ids are never reused: an index file that was left behind must not match a later index.
    sqlite_autoincrement=True,
)
"""A named set of labels on one encoder.

``names`` is the name pooling. ``rows`` is NULL if each label has one row. ``plan`` is a digest
of everything that the index was built from. ``generation`` is 0 until it is published.
"""

TAXONOMY = Table(
    "taxonomy",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
"""A packed taxonomy; ``digest`` is the sha256 of ``content``."""

CALIBRATION = Table(
    "calibration",
    METADATA,
    Column(
        "index_id",
        _Id,
        ForeignKey("label_index.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("plan", String(64), nullable=False),
    Column("content", Text, nullable=False),
)
"""A calibration of an index, as JSON, with the plan of the index at that time."""

LABEL = Table(
    "label",
    METADATA,
    Column("id", _Id, primary_key=True),
    Column("index_id", ForeignKey("label_index.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("shown", Text),
    Column("position", Integer),
    Column("embedding_id", ForeignKey("embedding.id")),
    UniqueConstraint("index_id", "name"),
    Index("ix_label_index_id_position", "index_id", "position"),
    sqlite_autoincrement=True,
)
"""A label of an index. An id belongs to one key for ever: neither is changed or reused.

``name`` is the label's key in its taxonomy. ``shown`` is its name, NULL if that is the key;
several labels may have the same one, and a new taxonomy may change it.

A label that has left the index keeps its row, without ``position``. So readers of an older
generation still find its name, and it gets its old id when it comes back.
"""

OTHER_NAME = Table(
    "other_name",
    METADATA,
    Column(
        "label_id",
        _Id,
        ForeignKey("label.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("embedding_id", ForeignKey("embedding.id"), nullable=False),
)
"""A further row of a label: the embedding of another name; ``place`` counts from 1."""

PHOTO = Table(
    "photo",
    METADATA,
    Column("id", _Id, primary_key=True),
    Column("folder", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("content_hash", LargeBinary(32), index=True),
    Column("problem", Text),
    Column("missing_since", Float(53)),
    Column("tags_digest", String(64), server_default="", nullable=False),
    UniqueConstraint("folder", "name"),
)
"""A file of a photo library, as it was when a run last read it.

``folder`` is absolute. ``content_hash`` is the sha256 of the image file, or of the picture in a
RAW file; a refused photo has none, and ``problem`` says why. ``missing_since`` is the time of
the first complete walk that did not find it; its row is kept. ``tags_digest`` is a hash of all
its tags, empty for none.
"""

TAG_RUN = Table(
    "tag_run",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("digest", String(64), index=True, nullable=False),
    Column("index_name", String(64), nullable=False),
    Column("model_id", Text),
    Column("taxonomy", String(64), nullable=False),
    Column("settings", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("counts", Text, server_default="{}", nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("finished_at", Float(53)),
)
"""A run of ``tag``.

``settings`` are all its settings, as JSON, and ``digest`` is a hash of them: the next run with
the same digest resumes one that was killed.
"""

PHOTO_DECISION = Table(
    "photo_decision",
    METADATA,
    Column("photo_id", ForeignKey("photo.id"), primary_key=True),
    Column("index_id", BigInteger, primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
)
"""Digest of everything that a photo's tags of one index were decided from.

A run skips photos whose digest has not changed. ``index_id`` is no foreign key, because tags
outlive the index that gave them.
"""

PHOTO_TAG = Table(
    "photo_tag",
    METADATA,
    Column("photo_id", ForeignKey("photo.id"), primary_key=True),
    Column("index_id", BigInteger, primary_key=True),
    Column("path", Text, primary_key=True, index=True),
    Column("label_id", BigInteger),
    Column("probability", Float(53)),
    Column("run_id", ForeignKey("tag_run.id"), index=True, nullable=False),
    Column("written_by", String(40), index=True),
)
"""A tag that an index gave to a photo.

``path`` is a JSON list from the root of automatic tags down. A tag for a node above a label has
no label and no probability. ``run_id`` is the run that gave it, ``written_by`` the run that
first wrote it to a sidecar.
"""

SIDECAR = Table(
    "sidecar",
    METADATA,
    Column("path", Text, primary_key=True),
    Column("photo_id", ForeignKey("photo.id"), index=True, nullable=False),
    Column("sidecar_for", String(16), server_default="", nullable=False),
    Column("tags_digest", String(64), nullable=False),
    Column("record", Text),
    Column("written", String(64), index=True),
    Column("size", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("intent", Text),
)
"""A sidecar that tags were written to.

``record`` is a ``SidecarRecord``. ``written`` is the sha256 of the file after it was written,
which identifies a sidecar that was moved; ``size`` and ``mtime_ns`` are of that moment.
``intent`` describes the content that is about to be written: after a kill, a run compares it
with the file.
"""

VERDICT = Table(
    "verdict",
    METADATA,
    Column("content_hash", LargeBinary(32), primary_key=True),
    Column("label_id", BigInteger, primary_key=True),
    Column("verdict", String(16), nullable=False),
    Column("source", String(16), nullable=False),
    Column("at", Float(53), nullable=False),
)
"""A verdict of the user on a label, by image content, so that copies of a photo share it."""

LABEL_THRESHOLD = Table(
    "label_threshold",
    METADATA,
    Column("label_id", BigInteger, primary_key=True, autoincrement=False),
    Column("index_id", BigInteger, index=True, nullable=False),
    Column("threshold", Float(53), nullable=False),
)
"""Minimum probability for a label to become a tag, fitted to the user's verdicts."""
