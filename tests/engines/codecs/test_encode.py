"""Pixels to bytes: formats, quality, alpha, profile and metadata."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from engines.codecs.encode import OutputFormat, encode
from engines.codecs.image import decode
from engines.codecs.picture import Metadata, Picture
from engines.errors import ImageTooLargeError

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">caf\xc3\xa9</x:xmpmeta>'
SMOOTH = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 4, np.arange(48)[None] * 5, 90), -1).astype(
    np.uint8
)

every_format = pytest.mark.parametrize("output_format", OutputFormat)


def read(data: bytes) -> Picture:
    return decode(data, max_pixels=10**6)


def exif_with_gps() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    exif[ExifTags.Base.Artist] = "A. Nonymous"
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif.tobytes()


@pytest.mark.parametrize(
    ("output_format", "pillow_name", "media_type", "extension"),
    [
        (OutputFormat.JPG, "JPEG", "image/jpeg", "jpg"),
        (OutputFormat.PNG, "PNG", "image/png", "png"),
        (OutputFormat.WEBP, "WEBP", "image/webp", "webp"),
    ],
)
def test_the_bytes_are_what_the_format_says(
    output_format: OutputFormat, pillow_name: str, media_type: str, extension: str
) -> None:
    data = encode(Picture(SMOOTH), output_format)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.get_format_mimetype()) == (pillow_name, media_type)
    assert (output_format.media_type, output_format.extension) == (media_type, extension)
    assert np.abs(read(data).pixels.astype(int) - SMOOTH).mean() < 3


def test_png_is_lossless_with_alpha() -> None:
    rng = np.random.default_rng(0)
    picture = Picture(rng.integers(0, 256, (9, 7, 3), np.uint8), rng.integers(0, 256, (9, 7), np.uint8))
    again = read(encode(picture, OutputFormat.PNG))
    np.testing.assert_array_equal(again.pixels, picture.pixels)
    np.testing.assert_array_equal(again.alpha, picture.alpha)


def test_webp_keeps_alpha_exactly() -> None:
    alpha = np.tile(np.arange(48, dtype=np.uint8) * 5, (64, 1))
    np.testing.assert_array_equal(read(encode(Picture(SMOOTH, alpha), OutputFormat.WEBP)).alpha, alpha)


def test_jpg_lays_transparency_over_white() -> None:
    black = np.zeros((16, 48, 3), np.uint8)
    alpha = np.repeat(np.array([0, 128, 255], np.uint8), 16)[None].repeat(16, 0)
    picture = read(encode(Picture(black, alpha), OutputFormat.JPG))
    assert picture.alpha is None
    for column, expected in ((8, 255), (24, 127), (40, 0)):
        assert np.abs(picture.pixels[8, column].astype(int) - expected).max() < 4


@pytest.mark.parametrize("output_format", [OutputFormat.JPG, OutputFormat.WEBP])
def test_lower_quality_is_smaller(output_format: OutputFormat) -> None:
    noise = Picture(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    sizes = [len(encode(noise, output_format, quality=quality)) for quality in (20, 60, 99)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("quality", [19, 100, -1])
def test_quality_out_of_range_is_a_value_error(quality: int) -> None:
    with pytest.raises(ValueError, match="must be 20 to 99"):
        encode(Picture(SMOOTH), OutputFormat.JPG, quality=quality)


@pytest.mark.parametrize(("quality", "luma_samples"), [(90, (1, 1)), (89, (2, 2))])
def test_jpg_stores_full_colour_resolution_from_quality_90(
    quality: int, luma_samples: tuple[int, int]
) -> None:
    with Image.open(io.BytesIO(encode(Picture(SMOOTH), OutputFormat.JPG, quality=quality))) as image:
        assert image.layer[0][1:3] == luma_samples  # type: ignore[attr-defined]


@every_format
def test_the_colour_profile_is_always_written(output_format: OutputFormat) -> None:
    assert read(encode(Picture(SMOOTH, icc_profile=SRGB), output_format)).icc_profile == SRGB


@every_format
def test_metadata_is_left_out_by_default(output_format: OutputFormat) -> None:
    data = encode(Picture(SMOOTH, metadata=Metadata(exif=exif_with_gps(), xmp=XMP)), output_format)
    picture = read(data)
    assert (picture.metadata.exif, picture.metadata.xmp) == (None, None)
    assert b"Nonymous" not in data


@every_format
def test_metadata_is_kept_on_request(output_format: OutputFormat) -> None:
    picture = read(
        encode(
            Picture(SMOOTH, metadata=Metadata(exif=exif_with_gps(), xmp=XMP)),
            output_format,
            keep_metadata=True,
        )
    )
    assert picture.metadata.xmp == XMP
    exif = Image.Exif()
    exif.load(picture.metadata.exif or b"")
    assert exif[ExifTags.Base.Orientation] == 1
    assert exif[ExifTags.Base.Artist] == "A. Nonymous"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}


def test_metadata_too_long_for_a_jpg_is_left_out() -> None:
    picture = Picture(SMOOTH, metadata=Metadata(exif=exif_with_gps(), xmp=XMP + b" " * 70_000))
    again = read(encode(picture, OutputFormat.JPG, keep_metadata=True))
    assert again.metadata.xmp is None
    assert again.metadata.exif is not None


def test_metadata_of_the_longest_length_fits_a_jpg() -> None:
    picture = Picture(
        SMOOTH, metadata=Metadata(exif=exif_with_gps().ljust(65504, b"\0"), xmp=XMP.ljust(65504))
    )
    again = read(encode(picture, OutputFormat.JPG, keep_metadata=True))
    assert again.metadata.xmp == picture.metadata.xmp
    assert again.metadata.exif is not None


@pytest.mark.parametrize(("output_format", "limit"), [(OutputFormat.JPG, 65500), (OutputFormat.WEBP, 16383)])
def test_a_side_too_long_for_the_format_names_format_and_limit(
    output_format: OutputFormat, limit: int
) -> None:
    for height, width in ((1, limit), (limit, 1)):
        assert encode(Picture(np.zeros((height, width, 3), np.uint8)), output_format)
    with pytest.raises(
        ImageTooLargeError, match=f"{output_format.value} stores at most {limit} pixels a side"
    ):
        encode(Picture(np.zeros((1, limit + 1, 3), np.uint8)), output_format)
