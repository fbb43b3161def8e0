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
