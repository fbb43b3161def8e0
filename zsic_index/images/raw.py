"""Reader of RAW files with LibRaw (the extra ``raw``): the preview, or the developed picture.

Cameras store a finished JPEG in their RAW files, the preview. It is the camera's own rendering and
what file browsers show, and reading it takes milliseconds where developing takes seconds. A file
without a preview, or with a mere thumbnail, is developed at half its size. Only the oldest cameras
have previews that are not JPEGs; rawpy reads past the end of damaged ones, so they are not used.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, TiffImagePlugin

from zsic_index.errors import ImageError, ImageTooLargeError, MissingExtraError

if TYPE_CHECKING:
    import rawpy

# fmt: off
RAW_SUFFIXES = frozenset({
    ".3fr", ".arq", ".arw", ".bay", ".cap", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf",
    ".fff", ".gpr", ".iiq", ".k25", ".kdc", ".mdc", ".mef", ".mos", ".mrw", ".nef", ".nrw",
    ".orf", ".ori", ".pef", ".ptx", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw",
    ".x3f",
})

_MAGICS = (
    b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"IIRO", b"IIRS", b"MMOR", b"IIU\0",
    b"II\x1a\0\0\0HEAPCCDR",
)
# fmt: on
"""First bytes of RAW files that are neither TIFF nor CR3: Fujifilm, Sigma, Minolta, Olympus, ..."""

MIN_PREVIEW_SIDE = 384
"""Minimum shorter side in pixels of a usable preview: about the input size of vision towers."""

_ORIENTATION = 0x0112
_SUBFILE_TYPE = 254
_SUB_IFDS = 330
_DNG_VERSION = 50706


def is_raw(content: bytes) -> bool:
    """Return whether the bytes of a file are RAW, regardless of its name.

    Most RAW files are also TIFF files whose first image is a thumbnail, which a TIFF reader would
    take for the photo.
    """
    if content.startswith(_MAGICS) or content[4:12] == b"ftypcrx ":
        return True
    if not content.startswith((b"II*\0", b"MM\0*")):
        return False
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        reduced = tags.get(_SUBFILE_TYPE) == 1
    except Exception:
        # Pillow will report the broken TIFF.
        return False
    return content[8:10] == b"CR" or _DNG_VERSION in tags or (reduced and _SUB_IFDS in tags)


def read(source: Path | bytes, name: str, *, max_pixels: int) -> bytes | Image.Image:
    """Return the picture in a RAW file: JPEG bytes with an EXIF orientation, or a PIL image.

    Args:
        source: a path, of which only the needed parts are read, or the bytes of a file.
        name: name of the image in messages.
        max_pixels: maximum of width x height that is developed.

    Raises:
        MissingExtraError: without the extra ``raw``.
        ImageError: for a file that LibRaw does not know, or a broken one, or one with neither a
            preview nor sensor data that can be developed.
    """
    try:
        import rawpy
    except ImportError as error:
        raise MissingExtraError(name, "RAW", "raw") from error
    try:
        with rawpy.imread(_for_libraw(source)) as raw:
            preview = _preview(raw)
            if preview is not None and preview[1] >= MIN_PREVIEW_SIDE:
                return preview[0]
            try:
                return _develop(raw, name, max_pixels)
            except (rawpy.LibRawError, ImageError):
                if preview is None:
                    raise
                return preview[0]
    except ImageError:
        raise
    except rawpy.LibRawFileUnsupportedError:
        raise ImageError(
            f"{name}: not a RAW file that LibRaw {'.'.join(map(str, rawpy.libraw_version))} knows: "
            "convert it to DNG or JPEG, or, where it is no RAW file at all, rename it"
        ) from None
    except Exception as error:
        raise ImageError(f"{name}: cannot be read as RAW: {_reason(error)}") from error


def _for_libraw(source: Path | bytes) -> str | io.BytesIO:
    """Return a source as rawpy takes it: a path in UTF-8 or a stream."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        str(source).encode()
    except UnicodeEncodeError:
        # rawpy encodes paths as UTF-8; on an old disk they may have any encoding.
        return io.BytesIO(source.read_bytes())
    return str(source)


def _preview(raw: rawpy.RawPy) -> tuple[bytes, int] | None:
    """Return the largest JPEG preview and the pixels of its shorter side, or None."""
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
    except (rawpy.LibRawError, NotImplementedError):
        # No preview, or one of an unsupported kind such as HEVC in a CR3.
        return None
    if not isinstance(thumbnail.data, bytes):
        return None
    data = _without_added_exif(thumbnail.data)
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as jpeg:
            size, own_orientation = jpeg.size, jpeg.getexif().get(_ORIENTATION)
    except Exception:
        return None
    if own_orientation is None and (orientation := _orientation(raw, size)) != 1:
        data = _with_orientation(data, orientation)
    return data, min(size)


def _without_added_exif(data: bytes) -> bytes:
    """Return a preview without the EXIF block that LibRaw has added, as it is in the file.

    The added block hides the preview's own one and depends on the time zone, so that the same photo
    would have another content hash on another machine.
    """
    end = 4 + int.from_bytes(data[4:6], "big")
    block = data[2:end]
    added = block[:2] == b"\xff\xe1" and block[4:8] == b"Exif" and b"dcraw v" in block
    return data[:2] + data[end:] if added else data


def _with_orientation(data: bytes, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    block = exif.tobytes()
    return data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]


def _orientation(raw: rawpy.RawPy, size: tuple[int, int]) -> int:
    """Return the EXIF orientation for a preview of a given size without its own orientation."""
    sizes = raw.sizes
    orientation = (1, 2, 4, 3, 5, 8, 6, 7)[sizes.flip & 7]
    turned = (size[0] - size[1]) * (sizes.width - sizes.height) < 0
    # A preview that is upright while the sensor data lies on its side was turned by the camera.
    return 1 if orientation > 4 and turned else orientation


def _develop(raw: rawpy.RawPy, name: str, max_pixels: int) -> Image.Image:
    width, height = raw.sizes.raw_width, raw.sizes.raw_height
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{name}: has no preview, and {width * height:,} pixels to develop; the limit is "
            f"{max_pixels:,}: export it as JPEG"
        )
    return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))


def _reason(error: Exception) -> str:
    first = error.args[0] if error.args else ""
    message = first.decode(errors="replace") if isinstance(first, bytes) else str(error)
    return message.strip() or type(error).__name__
