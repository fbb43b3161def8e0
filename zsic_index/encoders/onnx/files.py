"""The folder of a vision tower: an ONNX graph, its weights, and a record of what was measured."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from zsic_index.embedding_arrays import Float32
from zsic_index.encoders.checkpoint import (
    IMAGE_FILES,
    existing_files,
    hash_file,
    image_settings_fingerprint,
)
from zsic_index.errors import IndexFileError, StoreError
from zsic_index.formats.atomic_files import (
    put_in_place,
    remove_old_temporaries,
    replace_folder,
    temporary_file,
    temporary_folder,
)
from zsic_index.records import Activation, IndexInfo, Precision

GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
RECORD_FILE = "tower.json"
DIFFERENCES_FILE = "differences.npy"

MAX_CHANGE = 1e-5
"""Largest change of a probability at which embeddings count as the same: the package's contract."""

MIN_AGREEMENT = 0.99
"""Least share of images with the same first label as in float32."""

MIN_IMAGES = 500
"""Least number of images that agreement counts as measured on."""

_FORMAT = 1
_PREFIX = "vision-"
_LOCK = "towers.lock"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of a tower with the float32 one on given images.

    Attributes:
        images: number of images.
        mean_cosine: mean cosine of the two embeddings of an image.
        min_cosine: least cosine.
        top_1: share of images with the same first label.
        low: lower end of the 95 % interval of ``top_1`` (Wilson).
        high: upper end of that interval.
    """

    images: int
    mean_cosine: float
    min_cosine: float
    top_1: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TowerRecord:
    """Description of a vision tower's files, and how near they are to torch.

    Attributes:
        encoder_fingerprint: encoder fingerprint of the indexes that it is for.
        checkpoint_fingerprint: fingerprint of the checkpoint that it is from: the same, except for
            indexes of imported embeddings.
        precision: ``float32``, or ``int8`` for weights of eight bits.
        dim: D, the length of an embedding.
        logit_scale: multiplier of similarities.
        activation: function from logits to probabilities.
        images: number of images that it was measured with.
        measured: checksum of each index whose labels it was measured with, by the index's name.
        change: bound on the difference of a probability from torch's, over images and all subsets
            of the labels; for int8 from that of float32 in ONNX Runtime.
        agreement: agreement with float32 on given images; None if there were none.
        versions: versions of the libraries that made it.
        files: size and sha256 of each file, by name.
    """

    encoder_fingerprint: str
    checkpoint_fingerprint: str
    precision: Precision
    dim: int
    logit_scale: float
    activation: Activation
    images: int
    measured: Mapping[str, str]
    change: float
    agreement: Agreement | None
    versions: Mapping[str, str]
    files: Mapping[str, tuple[int, str]]

    @property
    def is_measured(self) -> bool:
        """True if the agreement with float32 is known: of itself, or on enough images."""
        return self.precision == "float32" or (
            self.agreement is not None and self.agreement.images >= MIN_IMAGES
        )

    @property
    def is_exact(self) -> bool:
        """True if the embeddings count as torch's own: the same within the contract."""
        return self.precision == "float32" and self.change <= MAX_CHANGE

    def is_measured_with(self, info: IndexInfo) -> bool:
        """Tell whether it was measured with the labels of an index as they are now."""
        return self.measured.get(info.name) == info.checksum


@dataclass(frozen=True, slots=True)
class TowerFiles:
    """The files of a vision tower.

    Attributes:
        folder: folder that holds them.
        record: their description.
    """

    folder: Path
    record: TowerRecord

    @property
    def image_fingerprint(self) -> str:
        """Fingerprint of the embeddings: the checkpoint's if they count as the same, else another.

        The folder has copies of the checkpoint's files of image settings.
        """
        record = self.record
        own = [] if record.is_exact else [record.precision, *_hashes(record)]
        return image_settings_fingerprint(record.checkpoint_fingerprint, self.folder, *own)

    @property
    def settings_fingerprint(self) -> str:
        """Fingerprint of image embeddings that torch makes with these image settings."""
        return image_settings_fingerprint(self.record.checkpoint_fingerprint, self.folder)

    def read_differences(self) -> Float32:
        """Return the (B, D) float32 differences from torch's embeddings of the measured images."""
        differences: Float32 = np.load(self.folder / DIFFERENCES_FILE)
        return differences

    def verify(self) -> None:
        """Read all files.

        Raises:
            IndexFileError: when one is damaged; the message names it.
        """
        for name, (_, expected) in self.record.files.items():
            if hash_file(self.folder / name) != expected:
                raise IndexFileError(f"ONNX tower {self.folder / name} is damaged")


def locate_tower(folder: Path, fingerprint: str, precision: Precision) -> Path:
    """Return the folder, below that of the index files, of a vision tower."""
    return folder / f"{_PREFIX}{fingerprint[:16]}-{precision}"


def find_tower(folder: Path, fingerprint: str, precision: Precision) -> TowerFiles | None:
    """Return the vision tower of indexes with an encoder fingerprint; None without one.

    Sizes are compared here; ``TowerFiles.verify`` reads the files.

    Raises:
        IndexFileError: when it is incomplete, damaged, or of another version of this program.
    """
    path = locate_tower(folder, fingerprint, precision)
    if not path.is_dir():
        return None
    try:
        record = _parse(json.loads((path / RECORD_FILE).read_text(encoding="utf-8")))
        sizes = {name: (path / name).stat().st_size for name in record.files}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexFileError(f"ONNX tower {path} is damaged or incomplete ({error})") from error
    damaged = [name for name, (size, _) in record.files.items() if sizes[name] != size]
    if damaged or record.encoder_fingerprint != fingerprint:
        raise IndexFileError(f"ONNX tower {path} is damaged or of another checkpoint")
    return TowerFiles(path, record)


@contextmanager
def create_tower(folder: Path, fingerprint: str, precision: Precision) -> Iterator[Path]:
    """Yield a temporary folder that becomes the tower's own unless the block fails.

    Raises:
        StoreError: when it cannot be written.
    """
    with _explain_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_old_temporaries(folder)
        with temporary_folder(folder) as temporary:
            yield temporary
            replace_folder(temporary, locate_tower(folder, fingerprint, precision))


@contextmanager
def lock_towers(folder: Path) -> Iterator[None]:
    """Let no other process change towers meanwhile; the system ends that when this one dies.

    Raises:
        StoreError: when the folder cannot be written to.
    """
    with ExitStack() as stack:
        with _explain_failures(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / _LOCK))
        yield


def write_record(folder: Path, record: TowerRecord) -> None:
    """Write or replace the record of the files in a folder.

    Raises:
        StoreError: when it cannot be written.
    """
    content = {"format": _FORMAT} | dataclasses.asdict(record)
    with _explain_failures(folder), temporary_file(folder) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
        put_in_place(temporary, folder / RECORD_FILE)


def describe_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the size and the sha256, hexadecimal, of each file in a folder, by name."""
    return {path.name: (path.stat().st_size, hash_file(path)) for path in sorted(folder.iterdir())}


def copy_settings(source: Path, folder: Path) -> None:
    """Copy a checkpoint's files of image settings, and what names its image processor."""
    for path in existing_files(source, "config.json", *IMAGE_FILES):
        shutil.copyfile(path, folder / path.name)


def list_towers(folder: Path) -> list[Path]:
    """Return the folders of all vision towers."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def remove_tower(path: Path) -> None:
    """Remove a tower's folder; another process that has it open keeps what it has."""
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _explain_failures(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"ONNX tower in {folder}: {error.strerror or error}: free some space or make the "
            "folder writable, or use --runtime torch"
        ) from error


def _hashes(record: TowerRecord) -> list[str]:
    return [record.files[name][1] for name in (GRAPH_FILE, WEIGHTS_FILE)]


def _parse(content: dict[str, Any]) -> TowerRecord:
    if content.pop("format") != _FORMAT:
        raise ValueError("of another version")
    agreement = content.pop("agreement")
    files = {name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
    return TowerRecord(
        **content | {"files": files},
        agreement=None if agreement is None else Agreement(**agreement),
    )
