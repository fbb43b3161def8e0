"""The tables. ``migrations/`` creates them; a test holds the two equal."""

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

# SQLite numbers rows by itself only in a column that is declared INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Base of all tables."""


class Encoder(Base):
    """A checkpoint as the text tower sees it; also where imported embeddings say their scale."""

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


class Embedding(Base):
    """One label embedding: D little-endian float32 numbers of norm 1, 4*D bytes."""

    __tablename__ = "embedding"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoder.id"))
    vector: Mapped[bytes] = mapped_column(LargeBinary)


class LabelIndex(Base):
    """A named set of labels on one encoder; ``rows`` is NULL where each label has one."""

    __tablename__ = "label_index"
    # Ids are never used twice: a FAISS file left behind must not fit a later index.
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


class Taxonomy(Base):
    """A taxonomy, packed; ``digest`` is the sha256 of ``content``."""

    __tablename__ = "taxonomy"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class Calibration(Base):
    """What was fitted for an index, as JSON, and the plan of the index that it was fitted for."""

    __tablename__ = "calibration"

    index_id: Mapped[int] = mapped_column(
        _Id, ForeignKey("label_index.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    plan: Mapped[str] = mapped_column(String(64))
    content: Mapped[str] = mapped_column(Text)


class Label(Base):
    """A label of an index. Id and name belong together for ever: a row is never renamed or reused.

    The name is what the label is known by, a taxonomy's key; ``shown`` is its name for people,
    where that is another. Several labels may be shown by one name, and a new taxonomy may change
    it.

    A label that was taken out keeps its row without ``position``, so that readers of an older FAISS
    file still find its name, and so that it gets its old id when it comes back.
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


class OtherName(Base):
    """A further row of a label: the embedding of another of its names; ``place`` counts from 1."""

    __tablename__ = "other_name"

    label_id: Mapped[int] = mapped_column(
        _Id, ForeignKey("label.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    place: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    embedding_id: Mapped[int] = mapped_column(ForeignKey("embedding.id"))


class Photo(Base):
    """A file of a photo library, as it was when it was last looked at.

    ``folder`` is absolute. ``content_hash`` is sha256 of what is embedded of it; ``problem`` says
    why there is none. A photo that a whole walk has not found is ``missing_since`` then: rows are
    never deleted for it. ``tags_digest`` stands for all its tags, and is empty for none.
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


class TagRun(Base):
    """One run of ``tag``: what it was asked, and what became of it.

    ``settings`` is all that it was asked, as JSON, and ``digest`` stands for it: a run that was
    killed is taken up by the next one that is asked the same.
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


class PhotoDecision(Base):
    """What a photo's tags of one index were decided from: with the same again nothing is to do.

    Indexes are named by id without a reference: tags outlive the index that gave them.
    """

    __tablename__ = "photo_decision"

    photo_id: Mapped[int] = mapped_column(ForeignKey("photo.id"), primary_key=True)
    index_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))


class PhotoTag(Base):
    """A tag of ours on a photo.

    ``path`` is a JSON list from the root of automatic tags down. A node above a label that is
    written as a tag of its own has no label and no probability. ``run_id`` is the run that gave it,
    ``written_by`` the one that first wrote it to a sidecar.
    """

    __tablename__ = "photo_tag"

    photo_id: Mapped[int] = mapped_column(ForeignKey("photo.id"), primary_key=True)
    index_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True, index=True)
    label_id: Mapped[int | None] = mapped_column(BigInteger)
    probability: Mapped[float | None] = mapped_column(Float(53))
    run_id: Mapped[str] = mapped_column(ForeignKey("tag_run.id"), index=True)
    written_by: Mapped[str | None] = mapped_column(String(40), index=True)


class SidecarFile(Base):
    """A sidecar that tags were written to.

    ``record`` is a ``SidecarRecord``; ``written`` is the sha256 of the file as it was left, by
    which one that was moved is known again; ``size`` and ``mtime_ns`` are the file's then.
    ``intent`` is what is about to be written: after a kill it says whether it was.
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


class Verdict(Base):
    """What the user said of a label on a picture, by its content: copies of a photo share it."""

    __tablename__ = "verdict"

    content_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    label_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    verdict: Mapped[str] = mapped_column(String(16))
    source: Mapped[str] = mapped_column(String(16))
    at: Mapped[float] = mapped_column(Float(53))


class LabelThreshold(Base):
    """The probability from which on a label becomes a tag, as the user's verdicts have it."""

    __tablename__ = "label_threshold"

    label_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    index_id: Mapped[int] = mapped_column(BigInteger, index=True)
    threshold: Mapped[float] = mapped_column(Float(53))


def _table_of(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


# The same tables for statements: the store reads rows, not objects.
ENCODER = _table_of(Encoder)
EMBEDDING = _table_of(Embedding)
LABEL_INDEX = _table_of(LabelIndex)
TAXONOMY = _table_of(Taxonomy)
CALIBRATION = _table_of(Calibration)
LABEL = _table_of(Label)
OTHER_NAME = _table_of(OtherName)
PHOTO = _table_of(Photo)
TAG_RUN = _table_of(TagRun)
PHOTO_DECISION = _table_of(PhotoDecision)
PHOTO_TAG = _table_of(PhotoTag)
SIDECAR = _table_of(SidecarFile)
VERDICT = _table_of(Verdict)
LABEL_THRESHOLD = _table_of(LabelThreshold)
