from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from tests.support.pictures import picture
from zsic_index.errors import ImageError, ImageFormatError, ImageTooLargeError
from zsic_index.images import opening, prefetch


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.arange(0, 60_000, 10, dtype=np.uint16).reshape(60, 100))


CASES: dict[str, bytes] = {
    "jpeg": encoded(picture(1), "JPEG"),
    "gray jpeg": encoded(picture(1).convert("L"), "JPEG"),
    "cmyk jpeg": encoded(picture(1).convert("CMYK"), "JPEG"),
    "png with alpha": encoded(
        Image.merge("RGBA", (*picture(1).split(), picture(2).getchannel(0))), "PNG"
    ),
    "palette png": encoded(picture(1).quantize(16), "PNG"),
    "palette png with transparency": encoded(picture(1).quantize(16), "PNG", transparency=3),
    "gray png with alpha": encoded(picture(1).convert("LA"), "PNG"),
    "1-bit png": encoded(picture(1).convert("1"), "PNG"),
    "16-bit png": encoded(sixteen_bit(), "PNG"),
    "webp": encoded(picture(1), "WEBP"),
    "avif": encoded(picture(1), "AVIF"),
    "tiff": encoded(picture(1), "TIFF"),
    "multi-page tiff": encoded(picture(1), "TIFF", save_all=True, append_images=[picture(2)]),
    "animated gif": encoded(picture(1), "GIF", save_all=True, append_images=[picture(2)]),
    "bmp": encoded(picture(1), "BMP"),
    "1 x 1": encoded(picture(1, (1, 1)), "PNG"),
}
for turn in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = turn
    CASES[f"orientation {turn}"] = encoded(picture(1), "JPEG", exif=exif)


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_the_pipelines(case: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CASES[case])
    expected = np.asarray(load_image(Image.open(io.BytesIO(CASES[case]))))
    for source in (path, str(path), CASES[case], Image.open(io.BytesIO(CASES[case]))):
        opened = opening.open_image(source)
        assert opened.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(opened), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_is_ignored() -> None:
    data = encoded(picture(1), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff")
    assert opening.open_image(data).size == (90, 60)


def bomb() -> bytes:
    """A PNG whose header promises 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jpg", "No such file"),
        (".", "folder"),
        ("https://example.org/a.jpg", "not fetched"),
        (b"", "not an image"),
        (b"not an image", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"%PDF-1.4\n", "not an image"),
        (b"SIMPLE  =                    T" + b" " * 3000, "not an image"),
        (CASES["jpeg"][: len(CASES["jpeg"]) // 2], "truncated"),
        (CASES["png with alpha"][:200], "bytes>"),
        (bomb(), "178,956,970"),
        (encoded(Image.new("RGB", (1, 900)), "PNG"), "too thin"),
    ],
)
def test_refused_with_a_reason(source: str | bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        opening.open_image(source)


def test_every_allowed_format_has_a_decoder() -> None:
    Image.init()
    assert set(opening.FORMATS) <= set(Image.OPEN)


def test_prepare_all_keeps_order_and_reads_ahead_one_batch() -> None:
    taken: list[int] = []

    def sources():
        for number in range(20):
            taken.append(number)
            yield b"" if number == 3 else encoded(picture(number), "PNG")

    batches = prefetch.prepare_all(
        sources(), lambda source: opening.open_image(source).size, batch_size=4, threads=2
    )
    first = next(batches)
    assert [isinstance(entry, ImageError) for entry in first] == [False, False, False, True]
    assert len(taken) == 8
    batches.close()
    assert len(taken) == 8


def photo(size: tuple[int, int], **options: object) -> bytes:
    return encoded(picture(1, size), "JPEG", **options)


@pytest.mark.parametrize(
    ("min_side", "expected"),
    [
        (None, (1600, 1200)),
        (1200, (1600, 1200)),
        (500, (800, 600)),
        (300, (400, 300)),
        (9, (200, 150)),
    ],
)
def test_scaled_decoding_keeps_what_is_asked_for(
    min_side: int | None, expected: tuple[int, int]
) -> None:
    assert opening.decode(photo((1600, 1200)), "x", min_side=min_side).size == expected


def test_scaled_decoding_turns_upright_and_leaves_other_formats_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opening.decode(photo((1600, 1200), exif=exif), "x", min_side=300).size == (300, 400)
    png = encoded(picture(1, (1600, 1200)), "PNG")
    assert opening.decode(png, "x", min_side=300).size == (1600, 1200)
    cmyk = encoded(picture(1, (1600, 1200)).convert("CMYK"), "JPEG")
    assert opening.decode(cmyk, "x", min_side=300).mode == "RGB"


def test_a_scaled_image_that_is_too_large_is_refused_all_the_same() -> None:
    limits = opening.ImageLimits(max_pixels=1_000)
    with pytest.raises(ImageTooLargeError, match="1,920,000 pixels; the limit is 1,000"):
        opening.decode(photo((1600, 1200)), "x", min_side=9, limits=limits)


def test_only_the_formats_that_are_allowed_are_opened() -> None:
    limits = opening.ImageLimits(formats=("PNG",))
    assert opening.decode(encoded(picture(1), "PNG"), "x", limits=limits).mode == "RGB"
    with pytest.raises(ImageFormatError, match=r"known format \(PNG\)"):
        opening.decode(encoded(picture(1), "JPEG"), "x", limits=limits)


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(CASES["jpeg"])
    monkeypatch.setattr(opening, "MAX_FILE_SIZE", 100)
    with pytest.raises(ImageError, match=r"image\.jpg: is larger than the limit of 100 bytes"):
        opening.open_image(path)


def test_content_hashes() -> None:
    image = picture(1)
    same = Image.open(io.BytesIO(encoded(image, "PNG")))
    assert opening.content_hash(image, "x") == opening.content_hash(same, "x")
    assert opening.content_hash(image, "x") != opening.content_hash(picture(2), "x")
    assert opening.content_hash(image, "x") != opening.content_hash(picture(1, (60, 90)), "x")
    assert opening.content_hash(b"a", "x") != opening.content_hash(b"b", "x")


@pytest.mark.parametrize("source", ["a" * 300, "a\0b.png", "a\ud800", "/dev/zero", "."])
def test_paths_that_are_none(source: str) -> None:
    with pytest.raises(ImageError):
        opening.open_image(source)


@pytest.mark.parametrize("source", [None, 7, bytearray(b"x"), np.zeros((4, 4, 3), np.uint8)])
def test_sources_that_are_none(source: object) -> None:
    with pytest.raises(ImageError, match="give a path, a file's bytes or a PIL image"):
        opening.open_image(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_one_picture_that_is_still_to_be_read_several_times(format: str) -> None:
    for _ in range(10):
        image = Image.open(io.BytesIO(encoded(picture(1, (400, 300)), format)))
        (batch,) = prefetch.prepare_all([image] * 8, opening.open_image, batch_size=8, threads=8)
        assert all(isinstance(opened, Image.Image) for opened in batch)
