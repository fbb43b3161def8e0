"""RAW photos by the picture in them.

The files are DNGs, written tag by tag and opened by LibRaw itself. Of other makers' files only what
they start with is tested: theirs hold whole sensor images and cannot be made by hand.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.images.test_heif import difference, ftyp, upright
from tests.support.dng import SENSOR, dng
from tests.support.pictures import picture
from zsic_index.errors import ImageError, MissingExtraError
from zsic_index.images import opening, prefetch
from zsic_index.images.raw import is_raw

T = Image.Transpose
LAID = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM,
        5: T.TRANSPOSE, 6: T.ROTATE_90, 7: T.TRANSVERSE, 8: T.ROTATE_270}  # fmt: skip
"""How an upright picture is laid so that an EXIF orientation turns it upright again."""

LARGE = (600, 400)
"""Width and height of previews, lying as the sensor does."""


def up(orientation: int) -> Image.Image:
    """A photo that was taken upright (5 to 8) or not, as it is meant to be seen."""
    size = LARGE[::-1] if orientation >= 5 else LARGE
    return upright().resize(size, Image.Resampling.NEAREST)


def laid(orientation: int) -> Image.Image:
    """The same as it lies in the file."""
    image = up(orientation)
    return image.transpose(LAID[orientation]) if orientation in LAID else image


def jpeg(image: Image.Image, *, orientation: int | None = None, **options: Any) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        options["exif"] = exif
    written = io.BytesIO()
    image.save(written, "JPEG", quality=90, **options)
    return written.getvalue()


def raw(
    tmp_path: Path, image: Image.Image, *, orientation: int = 1, own: int | None = None
) -> Path:
    path = tmp_path / "IMG_1.dng"
    path.write_bytes(dng(jpeg(image, orientation=own), image.size, orientation))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_preview_without_orientation_takes_the_file_s(orientation: int, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    path = raw(tmp_path, laid(orientation), orientation=orientation)
    for source in (path, str(path), path.read_bytes()):
        assert difference(opening.open_image(source), up(orientation)) < 3


@pytest.mark.parametrize("own", [1, 3, 6])
def test_a_preview_s_own_orientation_counts(own: int, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    for whole in (1, 8):
        path = raw(tmp_path, laid(own), orientation=whole, own=own)
        assert difference(opening.open_image(path), up(own)) < 3


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_preview_that_the_camera_has_turned_stays(orientation: int, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    path = raw(tmp_path, up(orientation), orientation=orientation)
    assert difference(opening.open_image(path), up(orientation)) < 3


def test_a_preview_is_the_jpeg_in_the_file_to_the_byte(tmp_path: Path) -> None:
    """So that it is decoded at its own scales and found again by its content, wherever it is."""
    pytest.importorskip("rawpy")
    for own in (None, 1, 6):
        path = raw(tmp_path, laid(1), own=own)
        assert opening.read(path) == jpeg(laid(1), orientation=own)
    content = opening.read(raw(tmp_path, laid(6), orientation=6))
    assert isinstance(content, bytes)
    assert content.endswith(jpeg(laid(6))[2:])
    assert opening.decode(content, "x", min_side=100).size == (100, 150)
    assert opening.content_hash(content, "x") != opening.content_hash(jpeg(laid(6)), "x")


def half(orientation: int = 1) -> np.ndarray:
    """What is developed of the sensor's image, 0 dark and 1 light, laid as it was."""
    seen = np.zeros((SENSOR[1] // 2, SENSOR[0] // 2))
    seen[: seen.shape[0] // 2] = 1
    return np.rot90(seen, {1: 0, 6: -1}[orientation])


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    "preview",
    [None, jpeg(picture(1, (160, 120))), b"\xff\xd8 no JPEG", np.zeros((400, 600, 3), np.uint8)],
    ids=["none", "tiny", "bad", "bitmap"],
)
def test_without_a_preview_it_is_developed(
    preview: bytes | np.ndarray | None, orientation: int, tmp_path: Path
) -> None:
    pytest.importorskip("rawpy")
    path = tmp_path / "a.dng"
    path.write_bytes(dng(preview, (160, 120), orientation))
    opened = np.asarray(opening.open_image(path)).mean(2)
    expected = half(orientation)
    assert opened.shape == expected.shape
    assert opened[expected == 1].mean() > opened[expected == 0].mean() + 100
    once = opening.content_hash(opening.read(path), "x")
    assert once == opening.content_hash(opening.read(path), "x")


def test_a_tiny_preview_is_better_than_nothing(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    tiny = jpeg(picture(1, (160, 120)))
    whole = dng(tiny, (160, 120))
    at = whole.index(np.full(SENSOR[0], 9000, np.uint16).tobytes())
    path = tmp_path / "a.dng"
    # The sensor's image follows the preview here, so that it can be cut off.
    path.write_bytes(whole[: at + 100])
    assert at > whole.index(tiny)
    assert opening.read(path) == tiny


def test_too_large_to_develop(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    limits = opening.ImageLimits(max_pixels=6_000)
    path = tmp_path / "a.dng"
    path.write_bytes(dng())
    with pytest.raises(ImageError, match=r"a\.dng: has no preview, and 6,144 pixels .* 6,000"):
        opening.open_image(path, limits)
    path.write_bytes(dng(jpeg(laid(1)), LARGE))
    with pytest.raises(ImageError, match=r"a\.dng: has 240,000 pixels; the limit is 6,000"):
        opening.open_image(path, limits)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (jpeg(upright()), "not a RAW file that LibRaw"),
        (b"", "cannot be read as RAW: Input/output error"),
        (b"II*\0nothing", "RAW"),
        (dng()[:3000], "cannot be read as RAW"),
        (dng(jpeg(laid(1))[:2000], LARGE), "truncated|cannot be read"),
    ],
)
def test_refused_with_a_reason(content: bytes, message: str, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    path = tmp_path / "IMG_1.nef"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as raised:
        opening.open_image(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_other_refusals_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.nef").mkdir()
    for name, message in (("a.nef", "is a folder"), ("none.nef", "No such file")):
        with pytest.raises(ImageError, match=message):
            opening.open_image(tmp_path / name)
    (tmp_path / "b.nef").write_bytes(dng())
    monkeypatch.setattr(opening, "MAX_FILE_SIZE", 100)
    with pytest.raises(ImageError, match="is larger than the limit of 100 bytes"):
        opening.open_image(tmp_path / "b.nef")


@pytest.mark.parametrize("name", ["IMG_1.NEF", "renamed.tif", None])
def test_without_the_extra_it_is_named_and_never_opened_as_tiff(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    content = dng(jpeg(laid(1)), LARGE)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "TIFF"  # Pillow would
    source: Path | bytes = content
    if name is not None:
        source = tmp_path / name
        source.write_bytes(content)
    with pytest.raises(MissingExtraError) as raised:
        opening.open_image(source)
    assert str(raised.value) == (
        f"{opening.describe(source)}: RAW needs the extra raw: pip install 'zsic-index[raw]'"
    )


def plain_tiff(**options: Any) -> bytes:
    written = io.BytesIO()
    upright().save(written, "TIFF", **options)
    return written.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (dng(), True),
        (dng(jpeg(laid(1)), LARGE), True),
        (dng(jpeg(laid(1)), LARGE).replace(b"\x12\xc6\1\0", b"\x13\xc6\1\0"), True),  # like a NEF
        (b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 32, True),
        (b"FUJIFILMCCD-RAW 0201", True),
        (b"IIRS\x08\0\0\0", True),
        (b"IIU\0\x08\0\0\0", True),
        (ftyp(b"crx ", b"isom"), True),
        (plain_tiff(), False),
        (plain_tiff(tiffinfo={254: 1}), False),
        (plain_tiff()[:12], False),
        (b"II*\0\xff\xff\xff\xff", False),
        (b"MM\0*", False),
        (b"", False),
        (jpeg(upright()), False),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_told_by_what_it_starts_with(content: bytes, expected: bool) -> None:
    assert is_raw(content) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_name_in_another_encoding(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Stra\xdfe.dng"))
    path.write_bytes(dng(jpeg(laid(1)), LARGE))
    assert opening.open_image(path).size == LARGE


def test_eight_threads(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    paths = []
    for number in range(12):
        path = tmp_path / f"{number}.dng"
        content = jpeg(picture(number, LARGE)) if number % 3 else None
        path.write_bytes(dng(content, LARGE, (1, 3, 6, 8)[number % 4]))
        paths.append(path)
    expected = {path: np.asarray(opening.open_image(path)) for path in paths}
    paths *= 8
    batches = prefetch.prepare_all(paths, opening.open_image, batch_size=len(paths), threads=8)
    for path, opened in zip(paths, next(batches), strict=True):
        np.testing.assert_array_equal(np.asarray(opened), expected[path])


def test_the_same_bytes_in_every_time_zone(tmp_path: Path) -> None:
    """LibRaw writes the local time into an EXIF block that it adds."""
    pytest.importorskip("rawpy")
    path = raw(tmp_path, laid(6), orientation=6)
    code = (
        "import sys, hashlib\n"
        "from zsic_index.images import opening\n"
        "print(opening.content_hash(opening.read(sys.argv[1]), '').hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=os.environ | {"TZ": zone},
        ).stdout
        for zone in ("UTC", "JST-9")
    }
    assert len(found) == 1
