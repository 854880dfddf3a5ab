"""What files say of their pictures, from every format that says it to every format that can be written."""

import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from engines.codecs.encode import OutputFormat, encode
from engines.codecs.image import decode
from engines.codecs.metadata import photoshop_block
from engines.codecs.picture import Metadata, Picture, Text
from tests.engines.codecs.test_image import photograph, read_back, saved

LIMIT = 10**6
RECORDS = b"\x1c\x02\x78\x00\x07caption"
every_format = pytest.mark.parametrize("output_format", OutputFormat)


def with_resolution(name: str, dots: int) -> bytes:
    """A file of a format that says how many pixels an inch has, each in its own way."""
    image, exif = photograph(), Image.Exif()
    if name in {"JPEG", "PNG", "BMP", "TIFF"}:
        return saved(image, name, dpi=(dots, dots))
    if name == "TIFF, cm":
        return saved(image, "TIFF", tiffinfo={282: dots / 2.54, 283: dots / 2.54, 296: 3})
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = float(dots)
    exif[ExifTags.Base.ResolutionUnit] = 2
    if name == "EXIF, cm":
        exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = dots / 2.54
        exif[ExifTags.Base.ResolutionUnit] = 3
        return saved(image, "JPEG", exif=exif)
    return saved(image, name, exif=exif)


@every_format
@pytest.mark.parametrize("source", ["JPEG", "PNG", "BMP", "TIFF", "TIFF, cm", "WEBP", "EXIF, cm"])
def test_resolution_survives_between_all_formats(source: str, output_format: OutputFormat) -> None:
    picture = decode(with_resolution(source, 300), max_pixels=LIMIT)
    assert picture.metadata.resolution == pytest.approx((300, 300), abs=0.05)
    data = encode(picture, output_format, keep_metadata=True)
    with Image.open(io.BytesIO(data)) as image:
        if output_format is OutputFormat.JPG:
            assert (image.info["jfif_unit"], image.info["jfif_density"]) == (1, (300, 300))
        if output_format is OutputFormat.PNG:
            assert struct.pack(">IIB", 11811, 11811, 1) in data
        exif = image.getexif()
    if output_format is not OutputFormat.PNG or picture.metadata.exif:
        assert float(exif[ExifTags.Base.XResolution]) == pytest.approx(300, abs=0.05)
        assert exif[ExifTags.Base.ResolutionUnit] == 2
    assert decode(data, max_pixels=LIMIT).metadata.resolution == pytest.approx((300, 300), abs=0.1)


def test_what_is_a_shape_and_no_resolution_is_not_taken_for_one() -> None:
    jfif = saved(photograph(), "JPEG").replace(b"JFIF\0\1\1\0\0\1\0\1", b"JFIF\0\1\1\0\0\4\0\3")
    assert b"JFIF\0\1\1\0\0\4\0\3" in jfif
    assert decode(jfif, max_pixels=LIMIT).metadata.resolution is None


@every_format
def test_texts_are_kept_where_the_format_has_a_place_for_them(output_format: OutputFormat) -> None:
    info = PngImagePlugin.PngInfo()
    prompt = "a cat, 日本\nSteps: 20"
    info.add_itxt("parameters", prompt)
    info.add_text("workflow", '{"nodes": []}', zip=True)
    info.add_text("Author", "A. Nonymous")
    info.add_text("Comment", "taken on a Monday")
    picture = decode(saved(photograph(), "PNG", pnginfo=info), max_pixels=LIMIT)
    data = encode(picture, output_format, keep_metadata=True)
    again = decode(data, max_pixels=LIMIT).metadata
    if output_format is OutputFormat.PNG:
        assert again.texts == picture.metadata.texts
        with Image.open(io.BytesIO(data)) as image:
            assert image.info["parameters"] == prompt
        return
    exif = read_back(again.exif)
    comment = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment == b"UNICODE\0" + prompt.encode("utf-16-be")
    assert exif[ExifTags.Base.Artist] == "A. Nonymous"
    if output_format is OutputFormat.JPG:
        assert set(again.texts) == {
            Text("Comment", 'workflow: {"nodes": []}'),
            Text("Comment", "taken on a Monday"),
        }


@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("output_format", [OutputFormat.JPG, OutputFormat.PNG])
def test_iptc_survives_between_all_formats_that_hold_it(source: str, output_format: OutputFormat) -> None:
    if source == "TIFF":
        data = saved(photograph(), "TIFF", tiffinfo={33723: RECORDS, 34377: photoshop_block(b"\x1cother")})
    else:
        written = Picture(np.asarray(photograph()), metadata=Metadata(iptc=RECORDS))
        data = encode(written, OutputFormat.JPG if source == "JPEG" else OutputFormat.PNG, keep_metadata=True)
    picture = decode(data, max_pixels=LIMIT)
    assert picture.metadata.iptc == RECORDS
    again = encode(picture, output_format, keep_metadata=True)
    assert decode(again, max_pixels=LIMIT).metadata.iptc == RECORDS
    with Image.open(io.BytesIO(again)) as image:
        if output_format is OutputFormat.JPG:
            assert image.info["photoshop"][0x0404] == RECORDS


@every_format
def test_texts_of_any_kind_never_spoil_the_file(output_format: OutputFormat) -> None:
    texts = (
        *(
            Text("", "no keyword"),
            Text("k" * 300, "long keyword"),
            Text("日本", "not Latin"),
            Text("a\0b", "c\0d"),
        ),
        *(Text("Comment", "x" * 200_000), Text("parameters", "\ud800"), Text("parameters", "y" * 100_000)),
    )
    for resolution in ((1e9, 1e-9), (float("nan"), 1), (float("inf"), 1), (-1, 0)):
        metadata = Metadata(texts=texts, resolution=resolution, iptc=bytes(200_000), exif=b"Exif\0\0nonsense")
        picture = Picture(np.asarray(photograph()), metadata=metadata)
        with Image.open(io.BytesIO(encode(picture, output_format, keep_metadata=True))) as image:
            image.load()


def test_what_is_hidden_in_metadata_costs_itself() -> None:
    data = saved(photograph(), "JPEG")
    hidden = b"".join(struct.pack(">BBH", 255, 254, 65535) + bytes(65533) for _ in range(200))
    picture = decode(data[:2] + hidden + data[2:], max_pixels=LIMIT)
    assert picture.pixels.shape == (48, 64, 3)
    assert sum(len(text.text) for text in picture.metadata.texts) <= 2**23


def test_nothing_is_kept_unless_asked_for() -> None:
    metadata = Metadata(
        iptc=b"\x1cNonymous", texts=(Text("Author", "Nonymous"),), resolution=(300, 300), xmp=b"Nonymous"
    )
    for output_format in OutputFormat:
        data = encode(Picture(np.asarray(photograph()), metadata=metadata), output_format)
        assert decode(data, max_pixels=LIMIT).metadata == Metadata()
        assert b"Nonymous" not in data
