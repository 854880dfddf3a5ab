"""PNG from anyone: what is damaged beside the pixels, bit depths, transparent colours, what gAMA means."""

import itertools
import struct
import zlib

import numpy as np
import pytest

from engines.codecs.image import decode, inspect
from engines.codecs.metadata import photoshop_block
from engines.codecs.picture import Picture
from engines.codecs.png import chunk
from engines.errors import BrokenImageError, UnsupportedImageError
from tests.engines.codecs.test_colour import WIDE_GAMUT, gamma, icc, xyz
from tests.engines.codecs.test_image import exif_with, png

LIMIT = 10**6
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
RED = bytes([0, 255, 0, 0, 254, 0, 0])
BIG = bytes(range(256)) * 8192
"""Two megabytes: twice what Pillow takes of a text."""
BOMB = zlib.compress(bytes(200_000_000), 9)


def read(data: bytes) -> Picture:
    info, picture = inspect(data, max_pixels=LIMIT), decode(data, max_pixels=LIMIT)
    assert (info.width, info.height) == (picture.width, picture.height)
    assert info.has_alpha or picture.alpha is None
    return picture


def red(extra: bytes = b"", late: bytes = b"") -> bytes:
    data = png(2, 1, bits=8, colour_type=RGB, rows=RED, extra=extra)
    return data[:-12] + late + data[-12:]


def broken(kind: bytes, data: bytes) -> bytes:
    """A chunk with a wrong checksum."""
    return chunk(kind, data)[:-1] + b"\0"


DAMAGED = {
    "every kind, checksum": b"".join(
        broken(kind, b"k\0v")
        for kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"pHYs", b"tIME", b"acTL")
    ),
    "every kind, empty": b"".join(
        chunk(kind, b"")
        for kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"tRNS")
    ),
    "short numbers": chunk(b"gAMA", b"\0") + chunk(b"pHYs", b"\0" * 8) + chunk(b"cHRM", b"\0" * 31),
    "senseless numbers": chunk(b"gAMA", bytes(4)) + chunk(b"cHRM", b"\xff" * 32) + chunk(b"pHYs", bytes(9)),
    "flat primaries": chunk(b"cHRM", struct.pack(">8I", *[31270, 32900] * 4)),
    "text of 2 MB": chunk(b"tEXt", b"workflow\0" + BIG.replace(b"\0", b" ")),
    "zTXt of 2 MB": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(BIG)),
    "iTXt of 2 MB": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(BIG)),
    "XMP of 2 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG)),
    "iTXt of 70 MB": chunk(b"iTXt", b"workflow\0\0\0\0\0" + bytes(70 * 2**20)),
    "text bomb": chunk(b"zTXt", b"k\0\0" + BOMB),
    "profile bomb": chunk(b"iCCP", b"k\0\0" + BOMB),
    "not compressed": chunk(b"zTXt", b"a\0\0garbage")
    + chunk(b"iTXt", b"a\0\1\0\0\0x")
    + chunk(b"iCCP", b"a\0\0x"),
    "unknown method": chunk(b"zTXt", b"a\0\1x") + chunk(b"iTXt", b"a\0\1\1\0\0x") + chunk(b"iCCP", b"a\0\1x"),
    "unfinished": chunk(b"zTXt", b"a") + chunk(b"iTXt", b"a\0\1\0") + chunk(b"iCCP", b"ICC"),
    "no EXIF": chunk(b"eXIf", b"garbage")
    + chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"x")),
    "animation": chunk(b"acTL", bytes(8)) + chunk(b"acTL", bytes(3)) + chunk(b"fcTL", bytes(26)),
    "transparency of another length": chunk(b"tRNS", bytes(2)),
    "palette as a hint": chunk(b"PLTE", bytes(5)) + broken(b"PLTE", bytes(6)) + chunk(b"hIST", b"\0"),
    "unknown": chunk(b"prVt", bytes(100)) + chunk(b"caBX", bytes(100)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_chunk_costs_itself_and_never_the_picture(name: str) -> None:
    for data in (red(DAMAGED[name]), red(late=DAMAGED[name])):
        picture = read(data)
        assert picture.pixels.tolist() == [[[255, 0, 0], [254, 0, 0]]]
        assert picture.alpha is None
        assert picture.icc_profile is None


def test_what_a_cut_file_lacks_is_missed_only_if_it_is_pixels() -> None:
    data = red(late=chunk(b"tEXt", b"a\0b"))
    end = data.index(b"IDAT") + 4 + struct.unpack(">I", data[data.index(b"IDAT") - 4 :][:4])[0]
    for length in (end, end + 4, end + 10, len(data) - 1):
        assert read(data[:length]).pixels.shape == (1, 2, 3)
    for length in (end - 9, data.index(b"IDAT") + 4, data.index(b"IDAT")):
        with pytest.raises(BrokenImageError, match="truncated or corrupt"):
            read(data[:length])


def test_damaged_pixels_are_refused() -> None:
    data = red()
    for place in (data.index(b"IDAT") + 8, data.index(b"IHDR") + 6):
        with pytest.raises(BrokenImageError):
            decode(data[:place] + b"\x55" + data[place + 1 :], max_pixels=LIMIT)
    palette = png(1, 1, bits=8, colour_type=PALETTE, rows=bytes(2), extra=broken(b"PLTE", bytes(6)))
    with pytest.raises(BrokenImageError, match="palette"):
        read(palette)


def test_a_critical_chunk_that_is_not_known_is_named() -> None:
    with pytest.raises(UnsupportedImageError, match="CgBI"):
        read(red(chunk(b"CgBI", bytes(4))))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_every_depth_and_its_transparent_level(bits: int) -> None:
    top = 2**bits - 1
    levels = [0, top // 3, top // 2, top]
    row = b"\0" + packed(levels, bits)
    picture = read(png(4, 1, bits=bits, colour_type=GREY, rows=row))
    assert picture.pixels.tolist() == [[round(level * 255 / top) for level in levels]]
    assert picture.alpha is None
    for hidden in levels:
        # High bits that the depth has no room for are to be ignored (11.3.1.1).
        key = hidden if bits == 16 else hidden | 1 << bits
        picture = read(
            png(4, 1, bits=bits, colour_type=GREY, rows=row, extra=chunk(b"tRNS", struct.pack(">H", key)))
        )
        assert picture.alpha is not None
        assert picture.alpha.tolist() == [[0 if level == hidden else 255 for level in levels]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_of_every_depth_and_its_transparency(bits: int) -> None:
    colours = bytes([10, 20, 30, 40, 50, 60, 70, 80, 90])[: 3 * min(3, 2**bits)]
    row = b"\0" + packed([1, 0, 1, 0], bits)
    extra = chunk(b"PLTE", colours) + chunk(b"tRNS", bytes([7]))
    picture = read(png(4, 1, bits=bits, colour_type=PALETTE, rows=row, extra=extra))
    assert picture.pixels.tolist() == [[[40, 50, 60], [10, 20, 30]] * 2]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 7, 255, 7]]


def test_a_transparent_colour_of_16_bits_is_all_of_them() -> None:
    colours = [(0x1234, 0x5678, 0x9ABC), (0x1234, 0x5678, 0x9ABD), (0x1235, 0x5678, 0x9ABC)]
    row = b"\0" + struct.pack(">9H", *itertools.chain(*colours))
    key = chunk(b"tRNS", struct.pack(">3H", *colours[0]))
    picture = read(png(3, 1, bits=16, colour_type=RGB, rows=row, extra=key))
    assert picture.pixels.tolist() == [[[0x12, 0x56, 0x9A]] * 3]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255, 255]]


@pytest.mark.parametrize(("colour_type", "channels"), [(RGB, 3), (RGBA, 4), (GREY_ALPHA, 2)])
def test_16_bits_are_rounded_to_8(colour_type: int, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    picture = read(png(7, 5, bits=16, colour_type=colour_type, rows=rows))
    expected = np.rint(values / 257)
    np.testing.assert_array_equal(picture.pixels, expected[..., 0] if channels == 2 else expected[..., :3])
    if channels != 3:
        np.testing.assert_array_equal(picture.alpha, expected[..., -1])


def srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize("exponent", [1.0, 0.55, 0.7])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_gamma_is_brought_to_that_of_srgb(exponent: float, bits: int, channels: int) -> None:
    top = 2**bits - 1
    values = (
        np.random.default_rng(0).integers(0, top + 1, (9, 9, channels)).astype(">u2" if bits == 16 else "u1")
    )
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    extra = chunk(b"gAMA", struct.pack(">I", round(exponent * 100_000)))
    kind = RGB if channels == 3 else GREY
    picture = read(png(9, 9, bits=bits, colour_type=kind, rows=rows, extra=extra))
    assert np.abs(picture.pixels.reshape(values.shape) - srgb((values / top) ** (1 / exponent))).max() <= 0.51
    # What says more of colours than gAMA does overrules it.
    plain = read(png(9, 9, bits=bits, colour_type=kind, rows=rows)).pixels
    for overruling in (
        chunk(b"sRGB", b"\0"),
        chunk(b"cICP", bytes([1, 13, 0, 1])),
        chunk(b"iCCP", b"p\0\0" + zlib.compress(WIDE_GAMUT)) if channels == 3 else b"",
        chunk(b"gAMA", struct.pack(">I", 45455)),
    ):
        if overruling:
            both = png(9, 9, bits=bits, colour_type=kind, rows=rows, extra=overruling + extra)
            np.testing.assert_array_equal(read(both).pixels, plain)


def test_other_primaries_become_a_profile() -> None:
    adobe = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    picture = read(red(chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in adobe)))))
    assert picture.icc_profile is not None
    for tag, expected in ((b"rXYZ", (0.60974, 0.31111, 0.01947)), (b"gXYZ", (0.20528, 0.62567, 0.06087))):
        place = int.from_bytes(picture.icc_profile[picture.icc_profile.index(tag) + 4 :][:4])
        values = np.frombuffer(picture.icc_profile[place + 8 : place + 20], ">i4") / 65536
        assert np.abs(values - expected).max() < 0.002
    srgb_primaries = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    assert read(red(chunk(b"cHRM", struct.pack(">8I", *srgb_primaries)))).icc_profile is None


@pytest.mark.parametrize("size", [1_500_000, 17 * 2**20])
def test_a_large_profile_is_applied_or_kept(size: int) -> None:
    """Of 17 MB no JPEG can hold one; a few bytes that a writer left behind it are not part of it."""
    tags = {b"rXYZ": xyz(0.60974, 0.31111, 0.01947), b"gXYZ": xyz(0.20528, 0.62567, 0.06087)}
    tags |= {b"bXYZ": xyz(0.14919, 0.06322, 0.74457), b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.2)) | {b"more": b"data" + bytes(size)}
    profile = icc(b"mntr", b"RGB ", b"XYZ ", tags)
    picture = read(red(chunk(b"iCCP", b"p\0\0" + zlib.compress(profile + bytes(99)))))
    if size < 2**24:
        assert picture.icc_profile == profile
    else:
        assert picture.icc_profile is None


def test_texts_resolution_and_raw_profiles_are_read() -> None:
    records = b"\x1c\x02\x78\x00\x07caption"

    def raw(name: str, block: bytes) -> bytes:
        text = f"\n{name}\n{len(block):8}\n{block.hex()}\n".encode()
        return chunk(b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text))

    extra = (
        chunk(b"tEXt", b"parameters\0a caf\xe9")
        + chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"{}"))
        + chunk(b"iTXt", b"Title\0\0\0de\0Titel\0" + "日本".encode())
        + chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, 1))
        + raw("iptc", photoshop_block(records))
        + raw("exif", exif_with(1))
    )
    metadata = read(red(extra)).metadata
    assert metadata.texts == (("parameters", "a café"), ("workflow", "{}"), ("Title", "日本"))
    assert metadata.iptc == records
    assert metadata.resolution == pytest.approx((300, 150), abs=0.02)
    assert metadata.exif is not None
    assert b"Nonymous" in metadata.exif


def packed(values: list[int], bits: int) -> bytes:
    """Big-endian, padded to whole bytes."""
    digits = "".join(f"{value:0{bits}b}" for value in values)
    digits += "0" * (-len(digits) % 8)
    return bytes(int(digits[place : place + 8], 2) for place in range(0, len(digits), 8))
