"""HEIC photos: upright exactly once, guarded, and named where their extra is missing.

The files were written with pillow-heif (x265), laid as each EXIF orientation has it, like this:

    e = Image.Exif(); e[0x0112] = 6
    upright().transpose(LAID[6]).save("orientation-6.heic", exif=e.tobytes(), quality=80)

It turns the orientation into the container's own rotation and mirroring and writes the EXIF tag as
well, as phones do. `alpha`, `gray` and `10-bit` are the same picture in other modes; the second
image of `two`, its primary one, is gray.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import DATA
from zsic_index.errors import ImageError, MissingExtraError
from zsic_index.images import heif
from zsic_index.images.opening import open_image
from zsic_index.images.prefetch import prepare_all

FILES = DATA / "heif"
UPRIGHT = FILES / "orientation-1.heic"


def upright() -> Image.Image:
    """A picture no two of whose eight orientations are alike."""
    y, x = np.mgrid[0:64, 0:96]
    corner = np.where((x < 32) & (y < 24), 255, 40)
    return Image.fromarray(np.stack([x * 255 // 95, y * 255 // 63, corner], -1).astype(np.uint8))


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures' values, 0 to 255; infinite where sizes differ."""
    if one.size != other.size:
        return float("inf")
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


def with_exif_orientation(orientation: int) -> bytes:
    """A file whose container turns nothing, whatever its EXIF says."""
    data = UPRIGHT.read_bytes()
    tag = b"\x12\x01\x03\x00\x01\x00\x00\x00"
    big = b"\x01\x12\x00\x03\x00\x00\x00\x01"
    assert data.count(tag) + data.count(big) == 1
    if tag in data:
        return data.replace(tag + b"\1\0", tag + bytes([orientation, 0]))
    return data.replace(big + b"\0\1", big + bytes([0, orientation]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_exactly_once(orientation: int) -> None:
    pi_heif = pytest.importorskip("pi_heif")
    path = FILES / f"orientation-{orientation}.heic"
    for source in (path, path.read_bytes(), pi_heif.HeifImageFile(io.BytesIO(path.read_bytes()))):
        opened = open_image(source)
        assert opened.mode == "RGB"
        assert difference(opened, upright()) < 2
    turned = [upright().transpose(one) for one in Image.Transpose]
    assert min(difference(opened, one) for one in turned) > 20


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_alone_turns_nothing(orientation: int) -> None:
    pytest.importorskip("pi_heif")
    data = with_exif_orientation(orientation)
    assert data != UPRIGHT.read_bytes()
    assert difference(open_image(data), upright()) < 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alpha.heic", upright()),
        ("10-bit.hif", upright()),
        ("gray.heic", upright().convert("L").convert("RGB")),
        ("two.heic", upright().convert("L").convert("RGB")),
    ],
)
def test_other_modes_and_the_primary_image(name: str, expected: Image.Image) -> None:
    pytest.importorskip("pi_heif")
    assert difference(open_image(FILES / name), expected) < 3


def ftyp(*brands: bytes) -> bytes:
    """A file's first box: its major brand, and those that it is compatible with."""
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (4 + len(body)).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (ftyp(b"heic", b"mif1"), True),
        (ftyp(b"heix"), True),
        (ftyp(b"mif1", b"mif1", b"heic"), True),
        (ftyp(b"mif1"), True),
        (ftyp(b"miaf", b"heic"), True),
        (ftyp(b"mif1", b"avif", b"miaf"), False),
        (ftyp(b"avif", b"mif1", b"heic"), False),
        (ftyp(b"isom", b"mp42"), False),
        (ftyp(b"crx ", b"isom"), False),
        (b"\xff\xff\xff\xffftypisom" + b"\0" * 99, False),
        (b"\0\0\0\x18ftyp", False),
        (b"", False),
        (b"\xff\xd8\xff\xe0" * 9, False),
    ],
)
def test_told_by_its_brands(content: bytes, expected: bool) -> None:
    assert heif.is_heif(content) == expected


def test_avif_is_pillow_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_pi_heif", None)
    written = io.BytesIO()
    upright().save(written, "AVIF")
    assert difference(open_image(written.getvalue()), upright()) < 6


@pytest.mark.parametrize("name", ["IMG_1.heic", "renamed.jpg"])
def test_without_the_extra_it_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "_pi_heif", None)
    path = tmp_path / name
    path.write_bytes(UPRIGHT.read_bytes())
    with pytest.raises(MissingExtraError) as raised:
        open_image(path)
    assert str(raised.value) == (
        f"{path}: HEIC needs the extra heic: pip install 'zsic-index[heic]'"
    )
    assert raised.value.extra == "heic"


@pytest.mark.parametrize("size", [(20_000, 20_000), (90, 20_000)])
def test_guarded_before_decoding(size: tuple[int, int]) -> None:
    pytest.importorskip("pi_heif")
    data = UPRIGHT.read_bytes()
    at = data.index(b"ispe") + 8
    written = b"".join(side.to_bytes(4, "big") for side in size)
    with pytest.raises(ImageError, match=r"the limit is 178,956,970|too thin"):
        open_image(data[:at] + written + data[at + 8 :])


def test_a_size_that_is_not_true_is_refused() -> None:
    """libheif decodes nothing larger than what was checked."""
    pytest.importorskip("pi_heif")
    data = UPRIGHT.read_bytes()
    at = data.index(b"ispe") + 8
    small = data[:at] + (16).to_bytes(4, "big") * 2 + data[at + 8 :]
    with pytest.raises(ImageError, match="broken image"):
        open_image(small)


@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_truncated(part: float) -> None:
    pytest.importorskip("pi_heif")
    data = UPRIGHT.read_bytes()
    with pytest.raises(ImageError) as raised:
        open_image(data[: int(len(data) * part)])
    assert "\n" not in str(raised.value)


def test_damaged_metadata_does_no_harm() -> None:
    """pi_heif's own classes end the process at an item type that is not UTF-8."""
    pytest.importorskip("pi_heif")
    data = UPRIGHT.read_bytes()
    at = data.index(b"Exif")
    assert b"infe" in data[at - 12 : at]
    assert difference(open_image(data[:at] + b"\xff" + data[at + 1 :]), upright()) < 2


def test_gray_of_more_than_8_bits_is_refused() -> None:
    """Not decoded, because pi_heif does not check that the picture has as many."""
    pytest.importorskip("pi_heif")
    data = bytearray((FILES / "gray.heic").read_bytes())
    depth = data.index(b"hvcC") + 4 + 17
    assert data[depth] & 7 == 0
    data[depth] |= 2
    with pytest.raises(ImageError, match="not 8-bit gray or colour"):
        open_image(bytes(data))


def test_eight_threads() -> None:
    pytest.importorskip("pi_heif")
    paths = sorted(FILES.glob("*.h*")) * 8
    expected = {path: np.asarray(open_image(path)) for path in set(paths)}
    batches = prepare_all(paths, open_image, batch_size=len(paths), threads=8)
    for path, opened in zip(paths, next(batches), strict=True):
        np.testing.assert_array_equal(np.asarray(opened), expected[path])


def test_nothing_is_loaded_for_other_images_and_pillow_is_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    upright().save(tmp_path / "image.jpg")
    code = (
        "import sys\n"
        "from PIL import Image\n"
        "from zsic_index.images import opening\n"
        "opening.open_image(sys.argv[1])\n"
        "loaded = {'_pi_heif', 'pi_heif', 'rawpy'} & set(sys.modules)\n"
        "opening.open_image(sys.argv[2])\n"
        "print(loaded, 'HEIF' in Image.OPEN)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "image.jpg"), str(UPRIGHT)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout.split() == ["set()", "False"]
