"""An encoder by what its embeddings depend on: known before, and often without, its weights."""

from __future__ import annotations

import threading
from collections.abc import Callable

from zsic_index import encoders
from zsic_index.encoders import Checkpoint, Encoder
from zsic_index.records import Dtype, EncoderRecord


class EncoderSource:
    """An encoder that is loaded when it must be, once; may be used from several threads.

    Args:
        fingerprint: what every label embedding of it depends on, hashed.
        model_id: which checkpoint, for people.
        revision: its pinned commit, if it has one.
        dtype: what its towers compute in.
        load: gives the encoder.
    """

    def __init__(
        self,
        *,
        fingerprint: str,
        model_id: str,
        revision: str | None,
        dtype: Dtype,
        load: Callable[[], Encoder],
    ) -> None:
        self.fingerprint = fingerprint
        self._model_id = model_id
        self._revision = revision
        self._dtype = dtype
        self._load = load
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, device: str) -> EncoderSource:
        """Return the source that a checkpoint is."""
        return cls(
            fingerprint=checkpoint.fingerprint,
            model_id=checkpoint.model_id,
            revision=checkpoint.revision,
            dtype=checkpoint.dtype,
            load=lambda: encoders.load(checkpoint, device=device),
        )

    def encoder(self) -> Encoder:
        """Return the encoder.

        Raises:
            ModelError: when it cannot be loaded.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    def record(self, fingerprint: str) -> EncoderRecord:
        """Return what the store keeps of the encoder, under a fingerprint; loads it."""
        encoder = self.encoder()
        info = encoder.info
        return EncoderRecord(
            fingerprint=fingerprint,
            model_id=self._model_id,
            revision=self._revision,
            dtype=self._dtype,
            dim=info.dim,
            logit_scale=info.logit_scale,
            logit_bias=info.logit_bias,
            activation=info.activation,
            loaded_fingerprint=encoder.loaded_fingerprint(),
        )
