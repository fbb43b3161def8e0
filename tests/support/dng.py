"""DNG files that LibRaw opens: a small sensor image, and a preview or none."""

from __future__ import annotations

import struct

import numpy as np

BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL = 1, 2, 3, 4, 5, 10
CODES = {BYTE: "B", SHORT: "H", LONG: "I", RATIONAL: "I", SRATIONAL: "i"}

Tags = dict[int, tuple[int, bytes | list[int]]]
"""Kind and values by tag; bytes of a kind other than ASCII are data, to be pointed at."""

SENSOR = (96, 64)


def dng(
    preview: bytes | np.ndarray | None = None,
    size: tuple[int, int] = (0, 0),
    orientation: int = 1,
    sensor: tuple[int, int] = SENSOR,
) -> bytes:
    """Return a DNG whose sensor saw light above and half-dark below.

    Args:
        preview: a JPEG's bytes, or (h, w, 3) pixels; by default there is none.
        size: width and height of a JPEG preview.
        orientation: EXIF orientation of the whole file.
        sensor: width and height that the file says; no more pixels than SENSOR's are written.
    """
    seen = np.full(SENSOR[::-1], 2000, np.uint16)
    seen[: SENSOR[1] // 2] = 9000
    unit = [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]
    shared: Tags = {
        271: (ASCII, b"Maker\0"),
        272: (ASCII, b"One\0"),
        274: (SHORT, [orientation]),
        50706: (BYTE, [1, 4, 0, 0]),  # DNG version
        50708: (ASCII, b"Maker One\0"),
        50721: (SRATIONAL, unit),  # colour matrix
        50728: (RATIONAL, [1] * 6),  # neutral
        50778: (SHORT, [21]),  # illuminant
    }
    raw: Tags = {
        **_image(sensor, seen.tobytes(), photometric=32803, compression=1, bits=[16]),
        254: (LONG, [0]),
        33421: (SHORT, [2, 2]),  # the filter over the sensor: RGGB
        33422: (BYTE, [0, 1, 1, 2]),
        50717: (LONG, [16383]),  # white
    }
    if preview is None:
        return tiff([shared | raw])
    if isinstance(preview, bytes):
        first = _image(size, preview, photometric=6, compression=7, bits=[8] * 3)
    else:
        size = (preview.shape[1], preview.shape[0])
        first = _image(size, preview.tobytes(), photometric=2, compression=1, bits=[8] * 3)
    return tiff([shared | first | {254: (LONG, [1])}, raw])


def _image(
    size: tuple[int, int], data: bytes, *, photometric: int, compression: int, bits: list[int]
) -> Tags:
    return {
        256: (LONG, [size[0]]),
        257: (LONG, [size[1]]),
        258: (SHORT, bits),
        259: (SHORT, [compression]),
        262: (SHORT, [photometric]),
        273: (LONG, data),
        277: (SHORT, [len(bits)]),
        278: (LONG, [size[1]]),
        279: (LONG, [len(data)]),
    }


def tiff(directories: list[Tags]) -> bytes:
    """Return a TIFF; where there are two directories the second is the first one's sub-image."""
    if len(directories) == 2:
        directories[0][330] = (LONG, [0])
    sizes = [2 + 12 * len(tags) + 4 for tags in directories]
    starts = [8 + sum(sizes[:number]) for number in range(len(sizes))]
    if len(directories) == 2:
        directories[0][330] = (LONG, [starts[1]])
    after = 8 + sum(sizes)
    written, data = b"II*\0" + struct.pack("<I", 8), b""
    for tags in directories:
        written += struct.pack("<H", len(tags))
        for tag, (kind, values) in sorted(tags.items()):
            if isinstance(values, bytes) and kind != ASCII:
                count, body = 1, struct.pack("<I", after + len(data))
                data += values + b"\0" * (len(values) % 2)
            elif isinstance(values, bytes):
                count, body = len(values), values
            else:
                count = len(values) // (2 if kind in (RATIONAL, SRATIONAL) else 1)
                body = struct.pack(f"<{len(values)}{CODES[kind]}", *values)
            if len(body) > 4:
                at = after + len(data)
                data += body + b"\0" * (len(body) % 2)
                body = struct.pack("<I", at)
            written += struct.pack("<HHI", tag, kind, count) + body.ljust(4, b"\0")
        written += struct.pack("<I", 0)
    return written + data
