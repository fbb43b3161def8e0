"""A lazily loaded encoder with a known fingerprint."""

from __future__ import annotations

import threading
from collections.abc import Callable

from zsic_index import encoders
from zsic_index.encoders import Checkpoint, Encoder, VisionTower
from zsic_index.records import Dtype, EncoderRecord


class EncoderSource:
    """An encoder that is loaded once, when it is first needed; may be used from several threads.

    With an ONNX tower, images do not need the encoder, only labels that are not in the store do.

    Args:
        fingerprint: hash of everything that a prompt's embedding depends on.
        model_id: name of the checkpoint.
        revision: pinned Hub commit, if any.
        dtype: dtype that the towers compute in.
        load: function that returns the encoder.
        load_tower: function that returns the ONNX tower; None to use the encoder's own.
    """

    def __init__(
        self,
        *,
        fingerprint: str,
        model_id: str,
        revision: str | None,
        dtype: Dtype,
        load: Callable[[], Encoder],
        load_tower: Callable[[], VisionTower] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self._model_id = model_id
        self._revision = revision
        self._dtype = dtype
        self._load = load
        self._load_tower = load_tower
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._tower: VisionTower | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, device: str) -> EncoderSource:
        """Return the source of a checkpoint's encoder."""
        return cls(
            fingerprint=checkpoint.fingerprint,
            model_id=checkpoint.model_id,
            revision=checkpoint.revision,
            dtype=checkpoint.dtype,
            load=lambda: encoders.load(checkpoint, device=device),
        )

    def encoder(self) -> Encoder:
        """Return the encoder, loading it at the first call.

        Raises:
            ModelError: when it cannot be loaded.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    def vision_tower(self) -> VisionTower:
        """Return the ONNX tower, or the encoder without one, loading it at the first call.

        Raises:
            ModelError: when it cannot be loaded.
        """
        if self._load_tower is None:
            return self.encoder()
        with self._lock:
            if self._tower is None:
                self._tower = self._load_tower()
            return self._tower

    def record(self, fingerprint: str) -> EncoderRecord:
        """Load the encoder, and return its record for the store under a fingerprint."""
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
