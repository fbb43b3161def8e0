"""Build an index: plan, missing embeddings, rows, FAISS file, publication."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.embeddings.label_rows import LabelRows
from zsic_index.embeddings.labels import EnsuredEmbeddings, ProgressCallback, ensure_embeddings
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import EmbeddingError, InputError
from zsic_index.index_files import remove_files, write_files
from zsic_index.label_index.arguments import check_name
from zsic_index.label_index.opening import open_index
from zsic_index.records import BuildReport, EncoderRecord, IndexInfo, Kind, NamePooling
from zsic_index.store import Store
from zsic_index.taxonomy import Taxonomy, packing
from zsic_index.taxonomy.structure import Structure

_IMPORTED_PER_COMMIT = 16_384
"""Imported embeddings per commit: losing them costs next to nothing."""


@dataclass(frozen=True, eq=False)
class BuildPlan:
    """Plan of an index generation: everything it is built from.

    Attributes:
        name: the index's name.
        structure: structure of the taxonomy that has its N labels.
        packed: the packed taxonomy; None for a plain list of labels.
        encoder_fingerprint: hash of everything in the encoder that label embeddings depend on.
        templates: prompt templates; empty for imported embeddings.
        kind: kind of the index file.
        name_pooling: how several names make one label.
        digest: hexadecimal sha256 of everything the index is built from.
    """

    name: str
    structure: Structure
    packed: bytes | None
    encoder_fingerprint: str
    templates: tuple[str, ...]
    kind: Kind
    name_pooling: NamePooling
    digest: str

    @classmethod
    def of(
        cls,
        name: str,
        taxonomy: Taxonomy,
        encoder_fingerprint: str,
        templates: tuple[str, ...],
        kind: Kind,
        *,
        name_pooling: NamePooling = "mean",
        embeddings: Float32 | None = None,
    ) -> BuildPlan:
        """Return a plan; the digest covers imported ``embeddings``.

        Raises:
            InputError: for a bad name, or name pooling in a kind that cannot do it.
        """
        check_name(name)
        if name_pooling != "mean" and kind != "flat":
            raise InputError(
                f"name_pooling {name_pooling!r} with kind {kind!r}: only kind 'flat' has a row for "
                "each name; use that, or name_pooling 'mean'"
            )
        packed = None if taxonomy.is_plain else packing.pack(taxonomy)
        # Left out for the default, so that digests from before name pooling stay valid.
        pooled = [] if name_pooling == "mean" else [name_pooling]
        head = json.dumps([encoder_fingerprint, templates, kind, *pooled])
        digest = hashlib.sha256(head.encode())
        # No label contains a NUL.
        digest.update("\0".join(taxonomy.labels).encode())
        digest.update(packed or b"")
        if embeddings is not None:
            digest.update(np.ascontiguousarray(embeddings, "<f4").data)
        return cls(
            name,
            Structure(taxonomy),
            packed,
            encoder_fingerprint,
            templates,
            kind,
            name_pooling,
            digest.hexdigest(),
        )

    @cached_property
    def rows(self) -> LabelRows:
        """The R rows of the labels; not computed by a build with nothing to do."""
        return LabelRows.from_structure(self.structure, self.name_pooling, self.templates)

    @property
    def taxonomy_digest(self) -> str | None:
        """Hexadecimal sha256 of the packed taxonomy; None for a plain list of labels."""
        return None if self.packed is None else hashlib.sha256(self.packed).hexdigest()


def build(
    store: Store,
    name: str,
    taxonomy: Taxonomy,
    source: EncoderSource,
    templates: tuple[str, ...],
    *,
    kind: Kind = "flat",
    name_pooling: NamePooling = "mean",
    progress: ProgressCallback | None = None,
) -> BuildReport:
    """Encode the labels that the store does not have yet, and publish the index.

    The encoder is loaded only when an embedding is missing. Embeddings are committed
    in chunks, so an interrupted build continues where it stopped.

    Raises:
        InputError: for a bad name, a label that the model cannot encode, or name pooling that the
            model or kind cannot do.
        ModelError: when the checkpoint cannot be loaded.
        StoreError: when the store or the index file cannot be written.
    """
    started = time.perf_counter()
    plan = BuildPlan.of(
        name, taxonomy, source.fingerprint, templates, kind, name_pooling=name_pooling
    )
    present = store.indexes.find(name)
    if present is not None and present.plan == plan.digest:
        return _report(open_index(store, name)[0], taxonomy, started)
    present_ids = None
    is_plain = plan.packed is None
    if is_plain and present and present.taxonomy is None and _has_same_encoding(present, plan):
        by_label = store.indexes.find_embedding_ids(present.index_id)
        present_ids = {
            at: by_label[key] for at, key in enumerate(taxonomy.labels) if key in by_label
        }
    if name_pooling == "mass":
        _check_softmax(store, source)
    rows = plan.rows
    ensured = ensure_embeddings(
        store, source, rows.names, rows.prompts_of, existing=present_ids, progress=progress
    )
    info, removed = publish(store, plan, ensured.embedding_ids)
    encoded = len(rows.find_labels(np.array(ensured.encoded, dtype=np.int64)))
    return _report(info, taxonomy, started, ensured=ensured, encoded=encoded, removed=removed)


def import_embeddings(
    store: Store,
    name: str,
    taxonomy: Taxonomy,
    embeddings: Float32,
    encoder: EncoderRecord,
    *,
    kind: Kind = "flat",
) -> BuildReport:
    """Publish an index of imported (N, D) float32 unit-norm embeddings.

    Raises:
        EmbeddingError: unless there is one embedding for each label.
    """
    started = time.perf_counter()
    if len(embeddings) != len(taxonomy.labels):
        raise EmbeddingError(
            f"{len(embeddings)} embeddings for {len(taxonomy.labels)} labels: give one for each, "
            "in the same order"
        )
    plan = BuildPlan.of(name, taxonomy, encoder.fingerprint, (), kind, embeddings=embeddings)
    present = store.indexes.find(name)
    if present is not None and present.plan == plan.digest:
        return _report(open_index(store, name)[0], taxonomy, started)
    prefix = bytes.fromhex(encoder.fingerprint)
    keys = [
        hashlib.sha256(prefix + np.ascontiguousarray(row, "<f4").tobytes()).digest()
        for row in embeddings
    ]
    id_of_key = store.embeddings.find_ids(keys)
    # Labels with equal embeddings share a row of the store.
    missing = list({key: row for row, key in enumerate(keys) if key not in id_of_key}.values())
    store.encoders.add(encoder)
    for at in range(0, len(missing), _IMPORTED_PER_COMMIT):
        rows = missing[at : at + _IMPORTED_PER_COMMIT]
        store.embeddings.add(encoder.fingerprint, [keys[row] for row in rows], embeddings[rows])
    id_of_key |= store.embeddings.find_ids([keys[row] for row in missing])
    ids = np.fromiter((id_of_key[key] for key in keys), np.int64, len(keys))
    info, removed = publish(store, plan, ids)
    return _report(info, taxonomy, started, removed=removed)


def publish(store: Store, plan: BuildPlan, embedding_ids: Int64) -> tuple[IndexInfo, int]:
    """Make ``plan`` the index's current generation, unless it is already.

    The file is written before the one transaction that makes it current. When another process
    publishes the same index in between, the file is written again for the generation after that.

    Args:
        store: the store.
        plan: the index.
        embedding_ids: (R,) int64 embedding ids of ``plan.rows``.

    Returns:
        The index, and the number of labels of its previous generation that were removed.
    """
    encoder = store.encoders.find(plan.encoder_fingerprint)
    assert encoder is not None, "the encoder is added before its embeddings"
    files = store.location.files
    # Labels below a node are adjacent, so that a scan can sum them as it goes.
    order = plan.structure.row_order
    taxonomy = plan.structure.taxonomy
    labels = list(map(taxonomy.label_keys.__getitem__, order.tolist()))
    names = list(map(taxonomy.labels.__getitem__, order.tolist()))
    embedding_ids = embedding_ids[plan.rows.reorder(order)]
    index_id, label_ids = store.indexes.claim_labels(plan.name, labels, names)
    label_ids = np.repeat(label_ids, plan.rows.counts[order])
    while True:
        old = store.indexes.read_snapshot(plan.name)
        if (
            old is not None
            and _has_same_encoding(old.info, plan)
            and (old.info.kind, old.info.taxonomy) == (plan.kind, plan.taxonomy_digest)
            and old.info.name_pooling == plan.name_pooling
            and np.array_equal(old.label_ids, label_ids)
            and np.array_equal(old.embedding_ids, embedding_ids)
        ):
            store.indexes.save_plan(replace(old.info, plan=plan.digest))
            return open_index(store, plan.name)[0], 0
        now = time.time()
        info = IndexInfo(
            index_id=index_id,
            name=plan.name,
            model_id=encoder.model_id,
            revision=encoder.revision,
            dtype=encoder.dtype,
            encoder_fingerprint=plan.encoder_fingerprint,
            templates=plan.templates,
            kind=plan.kind,
            name_pooling=plan.name_pooling,
            labels=len(labels),
            rows=len(label_ids),
            dim=encoder.dim,
            logit_scale=encoder.logit_scale,
            logit_bias=encoder.logit_bias,
            activation=encoder.activation,
            generation=(old.info.generation if old else 0) + 1,
            checksum="",
            taxonomy=plan.taxonomy_digest,
            plan=plan.digest,
            created_at=old.info.created_at if old else now,
            updated_at=now,
        )
        blocks = store.embeddings.read(embedding_ids, encoder.dim)
        info = write_files(files, info, label_ids, blocks)
        rows = (label_ids, embedding_ids, labels, names)
        if store.indexes.publish(info, *rows, taxonomy=plan.packed):
            remove_files(files, info, before=info.generation)
            return info, len(np.setdiff1d(old.label_ids, label_ids)) if old else 0


def _has_same_encoding(info: IndexInfo, plan: BuildPlan) -> bool:
    """Tell whether an index has the encoder and templates of a plan."""
    return (info.encoder_fingerprint, info.templates) == (plan.encoder_fingerprint, plan.templates)


def _check_softmax(store: Store, source: EncoderSource) -> None:
    """Raise an InputError unless the encoder has softmax probabilities."""
    encoder = store.encoders.find(source.fingerprint) or source.record(source.fingerprint)
    if encoder.activation != "softmax":
        raise InputError(
            f"name_pooling 'mass' adds up softmax probabilities, and {encoder.model_id} has "
            f"{encoder.activation}: use name_pooling 'max', by which the best name counts"
        )


def _report(
    info: IndexInfo,
    taxonomy: Taxonomy,
    started: float,
    *,
    ensured: EnsuredEmbeddings | None = None,
    encoded: int = 0,
    removed: int = 0,
) -> BuildReport:
    return BuildReport(
        name=info.name,
        labels=info.labels,
        encoded_labels=encoded,
        encoded_prompts=ensured.prompts if ensured else 0,
        reused_labels=info.labels - encoded,
        removed_labels=removed,
        truncated=ensured.truncated if ensured else (),
        duplicates=taxonomy.duplicates,
        model_loaded=ensured is not None and ensured.model_loaded,
        generation=info.generation,
        seconds=time.perf_counter() - started,
    )
