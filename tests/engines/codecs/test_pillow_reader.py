"""TIFF, AVIF and what else Pillow reads: planes of all depths, brands, and what is not read."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from engines.codecs.encode import OutputFormat, encode
from engines.codecs.image import decode, inspect
from engines.codecs.picture import Picture
from engines.errors import NotAnImageError, UnsupportedImageError
from tests.engines.codecs.test_image import exif_with, photograph, saved

LIMIT = 10**6
RANDOM = np.random.default_rng(0)


def tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "adobe_deflate"])
@pytest.mark.parametrize("extra", [None, "unassalpha", "unspecified"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_planes_of_a_tiff_are_read_right(
    dtype: type, extra: str | None, compression: str | None, order: str, planar: str
) -> None:
    white = np.iinfo(dtype).max
    values = RANDOM.integers(0, white + 1, (20, 24, 3 if extra is None else 4)).astype(dtype)
    stored = np.ascontiguousarray(values.transpose(2, 0, 1)) if planar == "separate" else values
    options = {} if extra is None else {"extrasamples": [extra]}
    data = tiff(
        stored, photometric="rgb", planarconfig=planar, compression=compression, byteorder=order, **options
    )
    expected = values / white * 255
    picture = decode(data, max_pixels=LIMIT)
    assert np.abs(picture.pixels - expected[..., :3]).max() <= 1
    if extra == "unassalpha":
        assert picture.alpha is not None
        assert np.abs(picture.alpha - expected[..., 3]).max() <= 1
    else:
        assert picture.alpha is None


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_samples_that_are_not_read_are_said_to_be_so(dtype: type) -> None:
    data = tiff(np.ones((4, 4), dtype), photometric="minisblack")
    for read in (inspect, decode):
        with pytest.raises(
            UnsupportedImageError,
            match=r"The TIFF image (is stored in a way that is not read|stores 32-bit, signed)",
        ):
            read(data, max_pixels=LIMIT)


def test_a_bmp_of_an_unknown_kind_is_said_to_be_so() -> None:
    data = bytearray(saved(photograph(), "BMP"))
    data[28] = 7  # bits per pixel
    with pytest.raises(UnsupportedImageError, match="BMP"):
        decode(bytes(data), max_pixels=LIMIT)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without it")
def test_an_avif_is_known_by_any_of_its_brands() -> None:
    data = saved(photograph(), "AVIF")
    for major in (b"mif1", b"miaf", b"abcd"):
        other = data[:8] + major + data[12:]
        assert inspect(other, max_pixels=LIMIT).format == "AVIF"
        assert decode(other, max_pixels=LIMIT).pixels.shape == (48, 64, 3)
    for foreign in (data[:8] + data[8:32].replace(b"avif", b"heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"):
        with pytest.raises(NotAnImageError, match="AVIF"):
            inspect(foreign, max_pixels=LIMIT)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without it")
def test_a_broken_exif_block_does_not_spoil_an_avif() -> None:
    data = saved(photograph(), "AVIF", exif=exif_with(6))
    tiff_header = data.rindex(b"MM\0*")
    for damage in (b"XX", b"MM\0*\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"):
        damaged = data[:tiff_header] + damage + data[tiff_header + len(damage) :]
        assert decode(damaged, max_pixels=LIMIT).pixels.size == 48 * 64 * 3


def test_grey_is_written_as_one_channel_and_read_back_as_grey() -> None:
    grey = RANDOM.integers(0, 256, (40, 50), np.uint8)
    for alpha in (None, grey[::-1].copy()):
        picture = decode(encode(Picture(grey, alpha), OutputFormat.WEBP, quality=80), max_pixels=LIMIT)
        assert picture.is_grey
        for output_format in (OutputFormat.PNG, OutputFormat.JPG):
            with Image.open(io.BytesIO(encode(Picture(grey, alpha), output_format))) as image:
                assert image.mode == (
                    "LA" if output_format is OutputFormat.PNG and alpha is not None else "L"
                )
