"""Read and parse each sidecar once."""

from __future__ import annotations

from pathlib import Path

from zsic_index.errors import SidecarError
from zsic_index.library.sidecars import files
from zsic_index.library.sidecars.files import SidecarSnapshot
from zsic_index.library.sidecars.packet import Packet
from zsic_index.library.sidecars.xmp import parse


class SidecarReader:
    """Reads and parses each sidecar at most once, from choosing it to merging tags into it.

    A sidecar may change after it was read: ``files.replace`` reads it again before it writes.
    """

    def __init__(self) -> None:
        self._snapshots: dict[Path, SidecarSnapshot] = {}
        self._packets: dict[Path, Packet] = {}

    def read(self, path: Path) -> SidecarSnapshot:
        """Return a sidecar's snapshot; see ``files.read`` for its errors."""
        if path not in self._snapshots:
            self._snapshots[path] = files.read(path)
        return self._snapshots[path]

    def parse(self, path: Path) -> Packet:
        """Return a sidecar's packet; see ``files.read`` and ``xmp.parse`` for further errors.

        Raises:
            SidecarError: when there is no such file.
        """
        if path not in self._packets:
            content = self.read(path).content
            if content is None:
                raise SidecarError(f"{path}: is gone; run again")
            self._packets[path] = parse(content, str(path))
        return self._packets[path]

    def find_packet(self, path: Path) -> Packet | None:
        """Return a sidecar's packet if it was parsed already, else None."""
        return self._packets.get(path)
