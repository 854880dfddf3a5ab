"""Bytes to pixels: formats, orientation, metadata, limits and hostile input."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile, features

from engines.codecs.image import ImageInfo, decode, inspect
from engines.codecs.picture import Picture, resize
from engines.errors import BrokenImageError, ImageError, ImageTooLargeError, NotAnImageError

LIMIT = 1_000_000
PHOTOGRAPHS = Path(__file__).parents[2] / "images"
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"] + (["AVIF"] if features.check("avif") else [])
GPS = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (52.0, 31.0, 12.0)}
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:creator="A. Nonymous"/></x:xmpmeta>'


def photograph(width: int = 64, height: int = 48) -> Image.Image:
    with Image.open(PHOTOGRAPHS / "astronaut.jpg") as image:
        return image.resize((width, height))


def saved(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def exif_with(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "A. Nonymous"
    exif[ExifTags.Base.MaxSampleValue] = 9999
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExifImageWidth: 9999, ExifTags.Base.ISOSpeedRatings: 200}
    exif[ExifTags.IFD.GPSInfo] = GPS
    return exif.tobytes()


def read_back(exif: bytes | None) -> Image.Exif:
    assert exif is not None
    block = Image.Exif()
    block.load(exif)
    return block


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_its_pixels(name: str) -> None:
    image = photograph()
    picture = decode(saved(image, name), max_pixels=LIMIT)
    assert (picture.width, picture.height) == (64, 48)
    assert picture.pixels.shape == (48, 64, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert picture.alpha is None
    assert np.abs(picture.pixels.astype(int) - np.asarray(image)).mean() < 8


@pytest.mark.parametrize("name", FORMATS)
def test_inspect_tells_format_and_size(name: str) -> None:
    assert inspect(saved(photograph(), name), max_pixels=LIMIT) == ImageInfo(name, 64, 48, has_alpha=False)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_a_plane_of_its_own(name: str) -> None:
    alpha = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    image = photograph()
    image.putalpha(Image.fromarray(alpha))
    data = saved(image, name)
    picture = decode(data, max_pixels=LIMIT)
    assert inspect(data, max_pixels=LIMIT).has_alpha
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, alpha)


def test_opaque_alpha_is_no_alpha() -> None:
    data = saved(photograph().convert("RGBA"), "PNG")
    assert inspect(data, max_pixels=LIMIT).has_alpha
    assert decode(data, max_pixels=LIMIT).alpha is None


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("GIF", "WEBP", "TIFF", "PNG"):
        data = saved(frames[0], name, save_all=True, append_images=frames[1:])
        red, _, blue = decode(data, max_pixels=LIMIT).pixels[4, 4]
        assert red > 200, name
        assert blue < 50, name


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(name: str, orientation: int) -> None:
    # "F" as displayed; EXIF tells which edge the stored row 0 and column 0 are.
    upright = np.zeros((32, 24), np.uint8)
    upright[2:30, 2:10] = 255
    upright[2:8, 2:22] = 255
    upright[14:20, 2:16] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],  # row 0 is the right edge, column 0 the top
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],  # row 0 is the left edge, column 0 the bottom
    }[orientation]
    image = Image.fromarray(np.stack([255 - stored, stored, stored], axis=2))
    if name != "JPEG":
        image.putalpha(image.getchannel("G"))
    lossless: dict[str, dict[str, int]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True},
    }
    data = saved(image, name, exif=exif_with(orientation), **lossless.get(name, {}))
    info, picture = inspect(data, max_pixels=LIMIT), decode(data, max_pixels=LIMIT)
    assert (info.width, info.height) == (picture.width, picture.height) == (24, 32)
    assert np.abs(picture.pixels[..., 1].astype(int) - upright).max() < 3
    if name != "JPEG":
        np.testing.assert_array_equal(picture.alpha, upright)
    assert read_back(picture.metadata.exif)[ExifTags.Base.Orientation] == 1


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_keeps_who_and_where_but_nothing_about_storage(name: str) -> None:
    exif = read_back(decode(saved(photograph(), name, exif=exif_with(6)), max_pixels=LIMIT).metadata.exif)
    assert exif[ExifTags.Base.Artist] == "A. Nonymous"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert exif.get_ifd(ExifTags.IFD.Exif) == {ExifTags.Base.ISOSpeedRatings: 200}
    assert set(exif) == {
        ExifTags.Base.Orientation,
        ExifTags.Base.Artist,
        ExifTags.IFD.Exif,
        ExifTags.IFD.GPSInfo,
    }


def test_an_image_that_says_nothing_of_itself_has_no_metadata() -> None:
    for name in FORMATS:
        picture = decode(saved(photograph(), name), max_pixels=LIMIT)
        assert (picture.metadata.exif, picture.metadata.xmp, picture.icc_profile) == (None, None, None), name


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_what_exif_says_and_xmp_follows(name: str) -> None:
    if name not in FORMATS:
        pytest.skip("Pillow was built without it")
    options = {"tiffinfo": {700: XMP}} if name == "TIFF" else {"xmp": XMP}
    for exif, size in ((None, (64, 48)), (exif_with(6), (48, 64))):
        data = saved(photograph(), name, **options, **({"exif": exif} if exif and name != "TIFF" else {}))
        picture, info = decode(data, max_pixels=LIMIT), inspect(data, max_pixels=LIMIT)
        if name != "TIFF" or exif is None:
            assert (picture.width, picture.height) == (info.width, info.height) == size
        assert picture.metadata.xmp == XMP.replace(b'"6"', b'"1"')


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x05", b"Exif\0\0"])
def test_a_broken_exif_block_does_not_spoil_the_image(exif: bytes) -> None:
    for name in ("JPEG", "PNG", "WEBP"):
        data = saved(photograph(), name, exif=exif)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert inspect(data, max_pixels=LIMIT).width == 64
            assert decode(data, max_pixels=LIMIT).metadata.exif is None


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0", b"8BPS\0\x01"])
def test_other_bytes_are_not_an_image(data: bytes) -> None:
    with pytest.raises(NotAnImageError, match="JPEG, PNG, WEBP"):
        decode(data, max_pixels=LIMIT)
    with pytest.raises(NotAnImageError):
        inspect(data, max_pixels=LIMIT)


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_broken(name: str) -> None:
    data = saved(photograph(), name)
    with pytest.raises(BrokenImageError, match=f"The {name} image is truncated or corrupt"):
        decode(data[: len(data) * 2 // 3], max_pixels=LIMIT)


@pytest.mark.parametrize("name", FORMATS)
def test_too_many_pixels_are_refused_with_size_and_limit(name: str) -> None:
    data = saved(photograph(), name)
    for reader in (inspect, decode):
        with pytest.raises(ImageTooLargeError, match=r"64 x 48 = 3,072 pixels; the limit is 3,071\."):
            reader(data, max_pixels=3071)
        reader(data, max_pixels=3072)


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header_without_a_warning(width: int, height: int) -> None:
    data = png(width, height, bits=8, colour_type=2, rows=b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for reader in (inspect, decode):
            with pytest.raises(ImageTooLargeError, match=f"{width} x {height}"):
                reader(data, max_pixels=LIMIT)


@pytest.mark.parametrize("name", FORMATS)
def test_inspect_reads_the_header_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(photograph(), name)

    def load(image: ImageFile.ImageFile) -> None:
        raise AssertionError(f"{image.format} was decoded")

    for kind in (ImageFile.ImageFile, *ImageFile.ImageFile.__subclasses__()):
        monkeypatch.setattr(kind, "load", load)
    assert inspect(data, max_pixels=LIMIT).width == 64


def test_an_exif_block_behind_the_pixels_of_a_png_is_applied() -> None:
    data = saved(photograph(), "PNG")
    late = data[:-12] + chunk(b"eXIf", exif_with(6).removeprefix(b"Exif\0\0")) + data[-12:]
    assert decode(late, max_pixels=LIMIT).pixels.shape == (64, 48, 3)
    assert inspect(late, max_pixels=LIMIT).width == 48


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = saved(photograph(), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode(data[:-2] + last_scan * 20 + data[-2:], max_pixels=LIMIT).width == 64
    with pytest.raises(BrokenImageError, match="more than 100 scans"):
        decode(data[:-2] + last_scan * 200 + data[-2:], max_pixels=LIMIT)


def test_what_follows_the_end_of_a_jpeg_is_not_read() -> None:
    assert decode(saved(photograph(), "JPEG") + b"\xff\xda\0\x02" * 1000, max_pixels=LIMIT).width == 64


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=200), magic=st.sampled_from([*FORMATS, ""]))
def test_any_bytes_give_a_picture_or_an_image_error(data: bytes, magic: str) -> None:
    give_picture_or_image_error((saved(photograph(8, 8), magic)[:16] if magic else b"") + data)


@settings(deadline=None, max_examples=600)
@given(source=st.data(), name=st.sampled_from(FORMATS), rich=st.booleans())
def test_any_damage_gives_a_picture_or_an_image_error(source: st.DataObject, name: str, rich: bool) -> None:
    options = {"exif": exif_with(6), "xmp": XMP} if rich and name in {"JPEG", "WEBP", "AVIF"} else {}
    data = bytearray(saved(photograph(16, 12), name, **options))
    for _ in range(source.draw(st.integers(1, 6))):
        start = source.draw(st.integers(0, len(data)))
        length = source.draw(st.integers(0, 8))
        data[start : start + length] = source.draw(st.binary(max_size=8))
    give_picture_or_image_error(bytes(data))


def give_picture_or_image_error(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for reader, kind in ((inspect, ImageInfo), (decode, Picture)):
            try:
                assert isinstance(reader(data, max_pixels=LIMIT), kind)
            except ImageError as error:
                assert str(error)  # noqa: PT017  # one of two allowed outcomes


@pytest.mark.parametrize("shape", [(40, 60, 3), (40, 60)])
def test_resize_keeps_the_kind_of_array_and_the_mean(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    smaller = resize(pixels, 30, 20)
    assert smaller.shape == (20, 30, *shape[2:])
    assert smaller.dtype == np.uint8
    assert abs(smaller.mean() - pixels.mean()) < 1


def png(width: int, height: int, *, bits: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
