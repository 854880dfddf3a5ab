"""PNG of our own: other programs must read from it what was written."""

import io
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageCms

from engines.codecs import png
from engines.codecs.picture import Metadata, Picture
from engines.codecs.png import write_png

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (97, 61, 3), np.uint8)
SMOOTH = (np.arange(97)[:, None, None] * 2 + np.arange(61)[None, :, None] + [0, 40, 90]).astype(np.uint8)


def chunks(file: bytes) -> list[tuple[bytes, bytes]]:
    """Type and data of each, whose checksum is right."""
    assert file.startswith(b"\x89PNG\r\n\x1a\n")
    found, place = [], 8
    while place < len(file):
        (length,) = struct.unpack(">I", file[place : place + 4])
        kind, data = file[place + 4 : place + 8], file[place + 8 : place + 8 + length]
        assert file[place + 8 + length : place + 12 + length] == struct.pack(">I", zlib.crc32(kind + data))
        found.append((kind, data))
        place += 12 + length
    return found


def stream(file: bytes) -> bytes:
    """What is compressed in it; zlib checks its checksum."""
    return zlib.decompress(b"".join(data for kind, data in chunks(file) if kind == b"IDAT"))


@pytest.mark.parametrize("band", [1, 61 * 3, 61 * 3 * 10, 1 << 18])
@pytest.mark.parametrize("pixels", [NOISE, SMOOTH], ids=["noise", "smooth"])
@pytest.mark.parametrize("has_alpha", [False, True], ids=["rgb", "rgba"])
def test_pixels_come_back_whatever_the_bands(
    band: int, pixels: np.ndarray, has_alpha: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png, "_BAND", band)
    alpha = RANDOM.integers(0, 256, pixels.shape[:2], np.uint8) if has_alpha else None
    file = write_png(Picture(pixels, alpha))
    assert len(stream(file)) == len(pixels) * (1 + 61 * (4 if has_alpha else 3))
    with Image.open(io.BytesIO(file)) as image:
        assert image.mode == ("RGBA" if has_alpha else "RGB")
        read = np.asarray(image)
    assert np.array_equal(read[:, :, :3], pixels)
    assert alpha is None or np.array_equal(read[:, :, 3], alpha)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 3000), (3000, 1), (5, 100_000)])
def test_pictures_of_any_shape_come_back(size: tuple[int, int]) -> None:
    pixels = RANDOM.integers(0, 256, (*size, 3), np.uint8)
    with Image.open(io.BytesIO(write_png(Picture(pixels)))) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_checksums_of_long_bands_are_joined_as_if_they_were_one() -> None:
    """Differences of 255 everywhere make both halves of the checksum overflow many times."""
    pixels = np.zeros((900, 900, 3), np.uint8)
    pixels[::2] = 255
    assert len(stream(write_png(Picture(pixels)))) == 900 * 2701


def test_the_filter_that_suits_a_row_best_is_chosen() -> None:
    noise = np.random.default_rng(0).integers(0, 64, (64, 64, 3), np.uint8)
    equal_rows = np.broadcast_to(noise[:1], noise.shape)
    for pixels, expected in ((equal_rows.transpose(1, 0, 2), 1), (equal_rows, 2), (noise, 3)):
        filtered = stream(write_png(Picture(np.ascontiguousarray(pixels))))
        ((number, _),) = Counter(filtered[:: 1 + 64 * 3]).most_common(1)
        assert number == expected


def test_chunks_are_in_the_order_that_the_format_asks_for() -> None:
    file = write_png(Picture(SMOOTH, icc_profile=SRGB), Metadata(exif=b"Exif\0\0MM", xmp=b"<x/>"))
    kinds = [kind for kind, _ in chunks(file)]
    assert kinds == [b"IHDR", b"iCCP", b"eXIf", b"iTXt", b"IDAT", b"IDAT", b"IDAT", b"IEND"]


def test_metadata_that_is_no_utf_8_does_not_spoil_the_file() -> None:
    with Image.open(io.BytesIO(write_png(Picture(SMOOTH), Metadata(xmp=b"<x>\xff</x>")))) as image:
        image.load()
        assert image.info["xmp"] == "<x>\ufffd</x>".encode()
