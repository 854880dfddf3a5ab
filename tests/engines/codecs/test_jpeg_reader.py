"""JPEG from anyone: decoded when all of its picture is there, refused when some is missing."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from engines.codecs import jpeg_reader
from engines.codecs.image import decode
from engines.codecs.metadata import photoshop_block
from engines.errors import BrokenImageError, UnsupportedImageError
from tests.engines.codecs.test_colour import WIDE_GAMUT
from tests.engines.codecs.test_image import photograph, saved

LIMIT = 10**6
END = b"\xff\xd9"
KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "4:4:4": {"subsampling": 0},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}

pytestmark = pytest.mark.parametrize("has_simplejpeg", [True, False])


@pytest.fixture(autouse=True)
def _decoder(has_simplejpeg: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_simplejpeg:
        monkeypatch.setattr(jpeg_reader, "simplejpeg", None)
    elif jpeg_reader.simplejpeg is None:
        pytest.skip("it is not installed")


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    return saved(photograph(96, 80).convert(mode), "JPEG", quality=90, **options)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(*segments: bytes) -> bytes:
    data = jpeg()
    return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_that_pillow_reads(kind: str) -> None:
    data = jpeg(**KINDS[kind])
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    np.testing.assert_array_equal(decode(data, max_pixels=LIMIT).pixels, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_marker_is_not_missed_if_all_pixels_are_there(kind: str) -> None:
    data = jpeg(**KINDS[kind])
    expected = decode(data, max_pixels=LIMIT).pixels
    whole = data.removesuffix(END)
    for end in (b"", b"\xff", bytes(50), b"ab" + END, END + b"trailing" + data):
        np.testing.assert_array_equal(decode(whole + end, max_pixels=LIMIT).pixels, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_pixels_are_refused_with_an_end_marker_and_without(kind: str, has_simplejpeg: bool) -> None:
    if kind == "restarts" and not has_simplejpeg:
        pytest.skip("each row is begun anew: only libjpeg itself says that one is missing")
    data = jpeg(**KINDS[kind])
    first_scan = data.index(b"\xff\xda")
    cuts = [len(data) - 12, len(data) * 9 // 10, len(data) * 2 // 3, first_scan + 40]
    for cut in cuts:
        for end in (b"", END):
            if kind == "progressive" and data[cut - 2 : cut] == END:
                continue
            with pytest.raises(BrokenImageError, match="truncated"):
                decode(data[:cut] + end, max_pixels=LIMIT)


def test_a_progressive_file_that_ends_between_scans_is_refused() -> None:
    data = jpeg(progressive=True)
    with pytest.raises(BrokenImageError, match="before its last scan"):
        decode(data[: data.rindex(b"\xff\xda")], max_pixels=LIMIT)


@pytest.mark.parametrize("cut", [2, 3, 10, 100, 300])
def test_a_header_that_is_cut_is_refused(cut: int) -> None:
    with pytest.raises(BrokenImageError):
        decode((jpeg()[:cut] + b"\xff")[: max(3, cut)], max_pixels=LIMIT)


@pytest.mark.parametrize(
    "damaged",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE1, b"Exif\0\0"),
        segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"\xff" * 9),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\2" + WIDE_GAMUT),
        segment(0xE2, b"MPF\0" + bytes(7)),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\xff"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\xff\xff\xff\xff"),
        segment(0xEE, b"Adobe\0"),
        segment(0xFE, b""),
    ],
)
def test_damaged_metadata_costs_itself_and_never_the_picture(damaged: bytes) -> None:
    picture = decode(with_segments(damaged), max_pixels=LIMIT)
    np.testing.assert_array_equal(picture.pixels, decode(jpeg(), max_pixels=LIMIT).pixels)
    assert picture.icc_profile is None
    assert picture.metadata.exif is None


def test_a_profile_in_parts_is_joined_in_their_order() -> None:
    parts = [b"ICC_PROFILE\0" + bytes([n, 3]) + WIDE_GAMUT[(n - 1) * 150 : n * 150] for n in (1, 2)]
    parts.append(b"ICC_PROFILE\0\3\3" + WIDE_GAMUT[300:])
    data = with_segments(*(segment(0xE2, parts[index]) for index in (2, 0, 1)))
    assert decode(data, max_pixels=LIMIT).icc_profile == WIDE_GAMUT


def test_iptc_comments_and_resolution_are_read() -> None:
    records = b"\x1c\x02\x78\x00\x07caption"
    other = b"8BIM\x03\xed\x03odd\0\0\0\3abc\0"
    data = with_segments(
        segment(0xE0, b"JFIF\0\1\2\2" + struct.pack(">HHBB", 118, 59, 0, 0)),
        segment(0xED, b"Photoshop 3.0\0" + other + photoshop_block(records)),
        segment(0xFE, "café".encode() + b"\0"),
        segment(0xFE, b"caf\xe9"),
    )
    metadata = decode(data, max_pixels=LIMIT).metadata
    assert metadata.iptc == records
    assert metadata.texts == (("Comment", "café"), ("Comment", "café"))
    assert metadata.resolution == pytest.approx((299.7, 149.9), abs=0.1)


@pytest.mark.parametrize(("marker", "bits"), [(0xC3, 8), (0xC1, 12), (0xC5, 8)])
def test_what_no_decoder_here_reads_is_said_to_be_so(marker: int, bits: int) -> None:
    data = bytearray(jpeg())
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = marker, bits
    with pytest.raises(UnsupportedImageError, match="not read here"):
        decode(bytes(data), max_pixels=LIMIT)
