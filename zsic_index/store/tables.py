"""Tables of the database. ``migrations/`` creates them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite generates ids only for a column that is declared INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Base class of all tables."""


class EncoderRow(Base):
    """The model that embeddings are of, with its logit scale; also for imported embeddings."""

    __tablename__ = "encoder"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    model_id: Mapped[str | None] = mapped_column(Text)
    revision: Mapped[str | None] = mapped_column(Text)
    dtype: Mapped[str] = mapped_column(String(16), server_default="float32")
    dim: Mapped[int] = mapped_column(Integer)
    logit_scale: Mapped[float] = mapped_column(Float(53))
    logit_bias: Mapped[float] = mapped_column(Float(53))
    activation: Mapped[str] = mapped_column(String(16))
    loaded_fingerprint: Mapped[str | None] = mapped_column(String(64))


class EmbeddingRow(Base):
    """An embedding of a label or image: D little-endian float32 numbers of norm 1, 4*D bytes."""

    __tablename__ = "embedding"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoder.id"))
    vector: Mapped[bytes] = mapped_column(LargeBinary)


class LabelIndexRow(Base):
    """A named set of labels on one encoder.

    ``names`` is the name pooling. ``rows`` is NULL if each label has one row. ``plan`` is a digest
    of everything that the index was built from. ``generation`` is 0 until it is published.
    """

    __tablename__ = "label_index"
    # Ids are never reused: an index file that was left behind must not match a later index.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    encoder_id: Mapped[int | None] = mapped_column(ForeignKey("encoder.id"))
    templates: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(16), server_default="flat")
    names: Mapped[str] = mapped_column(String(16), server_default="mean")
    generation: Mapped[int] = mapped_column(Integer)
    labels: Mapped[int] = mapped_column(Integer)
    rows: Mapped[int | None] = mapped_column(Integer)
    checksum: Mapped[str] = mapped_column(String(64))
    plan: Mapped[str] = mapped_column(String(64), server_default="")
    taxonomy: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Float(53))
    updated_at: Mapped[float] = mapped_column(Float(53))


class TaxonomyRow(Base):
    """A packed taxonomy; ``digest`` is the sha256 of ``content``."""

    __tablename__ = "taxonomy"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class CalibrationRow(Base):
    """A calibration of an index, as JSON, with the plan of the index at that time."""

    __tablename__ = "calibration"

    index_id: Mapped[int] = mapped_column(
        _Id, ForeignKey("label_index.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    plan: Mapped[str] = mapped_column(String(64))
    content: Mapped[str] = mapped_column(Text)


class LabelRow(Base):
    """A label of an index. An id belongs to one key for ever: neither is changed or reused.

    ``name`` is the label's key in its taxonomy. ``shown`` is its name, NULL if that is the key;
    several labels may have the same one, and a new taxonomy may change it.

    A label that has left the index keeps its row, without ``position``. So readers of an older
    generation still find its name, and it gets its old id when it comes back.
    """

    __tablename__ = "label"
    __table_args__ = (
        UniqueConstraint("index_id", "name"),
        Index("ix_label_index_id_position", "index_id", "position"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    index_id: Mapped[int] = mapped_column(ForeignKey("label_index.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Text)
    shown: Mapped[str | None] = mapped_column(Text)
    position: Mapped[int | None] = mapped_column(Integer)
    embedding_id: Mapped[int | None] = mapped_column(ForeignKey("embedding.id"))


class OtherNameRow(Base):
    """A further row of a label: the embedding of another name; ``place`` counts from 1."""

    __tablename__ = "other_name"

    label_id: Mapped[int] = mapped_column(
        _Id, ForeignKey("label.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    place: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    embedding_id: Mapped[int] = mapped_column(ForeignKey("embedding.id"))


class PhotoRow(Base):
    """A file of a photo library, as it was when a run last read it.

    ``folder`` is absolute. ``content_hash`` is the sha256 of the image file, or of the picture in a
    RAW file; a refused photo has none, and ``problem`` says why. ``missing_since`` is the time of
    the first complete walk that did not find it; its row is kept. ``tags_digest`` is a hash of all
    its tags, empty for none.
    """

    __tablename__ = "photo"
    __table_args__ = (UniqueConstraint("folder", "name"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    folder: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    content_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32), index=True)
    problem: Mapped[str | None] = mapped_column(Text)
    missing_since: Mapped[float | None] = mapped_column(Float(53))
    tags_digest: Mapped[str] = mapped_column(String(64), server_default="")


class TagRunRow(Base):
    """A run of ``tag``.

    ``settings`` are all its settings, as JSON, and ``digest`` is a hash of them: the next run with
    the same digest resumes one that was killed.
    """

    __tablename__ = "tag_run"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), index=True)
    index_name: Mapped[str] = mapped_column(String(64))
    model_id: Mapped[str | None] = mapped_column(Text)
    taxonomy: Mapped[str] = mapped_column(String(64))
    settings: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    counts: Mapped[str] = mapped_column(Text, server_default="{}")
    started_at: Mapped[float] = mapped_column(Float(53))
    finished_at: Mapped[float | None] = mapped_column(Float(53))


class PhotoDecisionRow(Base):
    """Digest of everything that a photo's tags of one index were decided from.

    A run skips photos whose digest has not changed. ``index_id`` is no foreign key, because tags
    outlive the index that gave them.
    """

    __tablename__ = "photo_decision"

    photo_id: Mapped[int] = mapped_column(ForeignKey("photo.id"), primary_key=True)
    index_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))


class PhotoTagRow(Base):
    """A tag that an index gave to a photo.

    ``path`` is a JSON list from the root of automatic tags down. A tag for a node above a label has
    no label and no probability. ``run_id`` is the run that gave it, ``written_by`` the run that
    first wrote it to a sidecar.
    """

    __tablename__ = "photo_tag"

    photo_id: Mapped[int] = mapped_column(ForeignKey("photo.id"), primary_key=True)
    index_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True, index=True)
    label_id: Mapped[int | None] = mapped_column(BigInteger)
    probability: Mapped[float | None] = mapped_column(Float(53))
    run_id: Mapped[str] = mapped_column(ForeignKey("tag_run.id"), index=True)
    written_by: Mapped[str | None] = mapped_column(String(40), index=True)


class SidecarFileRow(Base):
    """A sidecar that tags were written to.

    ``record`` is a ``SidecarRecord``. ``written`` is the sha256 of the file after it was written,
    which identifies a sidecar that was moved; ``size`` and ``mtime_ns`` are of that moment.
    ``intent`` describes the content that is about to be written: after a kill, a run compares it
    with the file.
    """

    __tablename__ = "sidecar"

    path: Mapped[str] = mapped_column(Text, primary_key=True)
    photo_id: Mapped[int] = mapped_column(ForeignKey("photo.id"), index=True)
    sidecar_for: Mapped[str] = mapped_column(String(16), server_default="")
    tags_digest: Mapped[str] = mapped_column(String(64))
    record: Mapped[str | None] = mapped_column(Text)
    written: Mapped[str | None] = mapped_column(String(64), index=True)
    size: Mapped[int | None] = mapped_column(BigInteger)
    mtime_ns: Mapped[int | None] = mapped_column(BigInteger)
    intent: Mapped[str | None] = mapped_column(Text)


class VerdictRow(Base):
    """A verdict of the user on a label, by image content, so that copies of a photo share it."""

    __tablename__ = "verdict"

    content_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    label_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    verdict: Mapped[str] = mapped_column(String(16))
    source: Mapped[str] = mapped_column(String(16))
    at: Mapped[float] = mapped_column(Float(53))


class LabelThresholdRow(Base):
    """Minimum probability for a label to become a tag, fitted to the user's verdicts."""

    __tablename__ = "label_threshold"

    label_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    index_id: Mapped[int] = mapped_column(BigInteger, index=True)
    threshold: Mapped[float] = mapped_column(Float(53))


def _table_of(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


# Tables for Core statements: the store reads rows and does not map them to objects.
ENCODER = _table_of(EncoderRow)
EMBEDDING = _table_of(EmbeddingRow)
LABEL_INDEX = _table_of(LabelIndexRow)
TAXONOMY = _table_of(TaxonomyRow)
CALIBRATION = _table_of(CalibrationRow)
LABEL = _table_of(LabelRow)
OTHER_NAME = _table_of(OtherNameRow)
PHOTO = _table_of(PhotoRow)
TAG_RUN = _table_of(TagRunRow)
PHOTO_DECISION = _table_of(PhotoDecisionRow)
PHOTO_TAG = _table_of(PhotoTagRow)
SIDECAR = _table_of(SidecarFileRow)
VERDICT = _table_of(VerdictRow)
LABEL_THRESHOLD = _table_of(LabelThresholdRow)
