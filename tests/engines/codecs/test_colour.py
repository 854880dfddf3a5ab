"""Colour: every mode, bit depth and profile ends as RGB that shows the same colours."""

import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from engines.codecs.image import decode, inspect
from engines.codecs.picture import Picture
from engines.errors import UnsupportedImageError

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = (
    np.array([[[250, 10, 20], [30, 240, 40], [50, 60, 230], [128, 128, 128]]], np.uint8)
    .repeat(16, 1)
    .repeat(32, 0)
)


def read(data: bytes) -> Picture:
    return decode(data, max_pixels=10**6)


def saved(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def icc(device_class: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of ICC.1:2001-04 (version 2): header, tag table, tags."""
    d50 = fixed(0.9642, 1.0, 0.8249)
    table, body, offset = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        padded = tag + bytes(-len(tag) % 4)
        table += struct.pack(">4sII", name, offset + len(body), len(tag))
        body += padded
    size = offset + len(body)
    header = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"lcms", 0x02400000, device_class, space, pcs, bytes(12), b"acsp"
    )
    return header.ljust(68, b"\0") + d50 + bytes(48) + table + body


def fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def xyz(*numbers: float) -> bytes:
    return b"XYZ \0\0\0\0" + fixed(*numbers)


def gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


WHITE = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}

# The primaries of Adobe RGB (1998), adapted to D50: greens far outside sRGB.
WIDE_GAMUT = icc(
    b"mntr",
    b"RGB ",
    b"XYZ ",
    WHITE
    | {b"rXYZ": xyz(0.60974, 0.31111, 0.01947), b"gXYZ": xyz(0.20528, 0.62567, 0.06087)}
    | {b"bXYZ": xyz(0.14919, 0.06322, 0.74457)}
    | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.2)),
)
LINEAR_RGB = icc(
    b"mntr",
    b"RGB ",
    b"XYZ ",
    WHITE
    | {b"rXYZ": xyz(0.4361, 0.2225, 0.0139), b"gXYZ": xyz(0.3851, 0.7169, 0.0971)}
    | {b"bXYZ": xyz(0.1431, 0.0606, 0.7141)}
    | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(1.0)),
)
LINEAR_GREY = icc(b"mntr", b"GRAY", b"XYZ ", WHITE | {b"kTRC": gamma(1.0)})


def cmyk_profile() -> bytes:
    """A press whose cyan ink is orange: Lab 60, 40, 60."""
    nodes = bytearray()
    for node in range(16):  # cyan varies slowest
        cyan, other = node & 8, node & 7
        nodes += bytes((0, 128, 128) if other else (153, 168, 188) if cyan else (255, 128, 128))
    identity = bytes(range(256))
    matrix = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + identity * 4 + bytes(nodes) + identity * 3
    return icc(b"prtr", b"CMYK", b"Lab ", WHITE | {b"A2B0": table})


def tiff(
    values: npt.NDArray[np.uint16] | bytes, shape: tuple[int, int], bits: int, photometric: int
) -> bytes:
    """A little-endian grey TIFF of one strip."""
    strip = values if isinstance(values, bytes) else values.astype("<u2").tobytes()
    height, width = shape
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 122,
        277: 1,
        278: height,
        279: len(strip),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + strip


def test_a_wide_gamut_profile_is_carried_along_with_the_values_unchanged() -> None:
    for name in ("PNG", "TIFF"):
        picture = read(saved(Image.fromarray(COLOURS), name, icc_profile=WIDE_GAMUT))
        assert picture.icc_profile == WIDE_GAMUT, name
        np.testing.assert_array_equal(picture.pixels, COLOURS)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_an_rgb_profile_stays_with_every_kind_of_rgb(mode: str) -> None:
    data = saved(Image.fromarray(COLOURS).convert(mode), "PNG", icc_profile=WIDE_GAMUT)
    assert read(data).icc_profile == WIDE_GAMUT


@pytest.mark.parametrize(
    "profile", [b"not a profile", WIDE_GAMUT[:200], icc(b"mntr", b"RGB ", b"XYZ ", WHITE), cmyk_profile()]
)
def test_a_profile_that_cannot_be_used_is_dropped(profile: bytes) -> None:
    picture = read(saved(Image.fromarray(COLOURS), "PNG", icc_profile=profile))
    assert picture.icc_profile is None
    np.testing.assert_array_equal(picture.pixels, COLOURS)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA", "YCbCr"])
@pytest.mark.parametrize("name", ["PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG"])
def test_grey_is_one_channel_however_it_is_stored(mode: str, name: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(name, {})
    if (name, mode) == ("GIF", "RGBA"):
        pytest.skip("Pillow finds a palette for it that is not quite grey")
    try:
        data = saved(Image.fromarray(RAMP).convert(mode), name, **options)
    except (OSError, ValueError):
        pytest.skip("the format has no such mode")
    picture = read(data)
    assert picture.is_grey
    assert picture.alpha is None
    assert np.abs(picture.pixels.astype(int) - RAMP).max() <= (1 if name == "JPEG" else 0)


def test_a_single_coloured_pixel_makes_a_picture_one_in_colour() -> None:
    pixels = np.dstack([np.tile(RAMP, (9, 9))] * 3)
    pixels[77, 55] = 1, 2, 3
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels), "PNG")).pixels, pixels)


@pytest.mark.parametrize(("mode", "profile"), [("L", LINEAR_GREY), ("RGB", LINEAR_RGB), ("L", LINEAR_RGB)])
def test_a_profile_of_grey_is_applied(mode: str, profile: bytes) -> None:
    picture = read(saved(Image.fromarray(RAMP).convert(mode), "PNG", icc_profile=profile))
    linear = np.arange(256) / 255
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert picture.icc_profile is None
    assert np.abs(picture.pixels.ravel() - srgb).max() < 2


def test_grey_with_alpha_keeps_both() -> None:
    alpha = RAMP[::-1]
    data = saved(Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(alpha)]), "PNG")
    picture = read(data)
    np.testing.assert_array_equal(picture.pixels, RAMP)
    np.testing.assert_array_equal(picture.alpha, alpha)


def test_one_bit_is_black_and_white() -> None:
    picture = read(saved(Image.fromarray(RAMP).point(lambda value: 255 * (value > 99), "1"), "PNG"))
    np.testing.assert_array_equal(picture.pixels, (RAMP > 99) * np.uint8(255))


def test_palette_colours_are_looked_up() -> None:
    image = Image.fromarray(COLOURS).quantize(4)
    for name in ("PNG", "GIF", "BMP", "TIFF"):
        np.testing.assert_array_equal(read(saved(image, name)).pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128, 255])])
def test_palette_transparency_is_an_alpha_plane(transparency: int | bytes) -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    image.putdata([0, 1, 2, 3])
    data = saved(image, "PNG", transparency=transparency)
    picture = read(data)
    assert inspect(data, max_pixels=4).has_alpha
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0, 255 if transparency == 1 else 128, 255]]
    assert picture.pixels[0, 3].tolist() == [100, 110, 120]


def test_a_transparent_index_of_gif_is_an_alpha_plane() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    picture = read(saved(image, "GIF", transparency=1))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0]]


@pytest.mark.parametrize(("mode", "key"), [("L", 77), ("RGB", (77, 77, 77)), ("I;16", 77 * 257), ("1", 0)])
def test_a_png_colour_key_is_an_alpha_plane(mode: str, key: int | tuple[int, ...]) -> None:
    if mode == "I;16":
        image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(RAMP).convert(mode, dither=Image.Dither.NONE)
    picture = read(saved(image, "PNG", transparency=key))
    transparent = np.asarray(image) == 0 if mode == "1" else RAMP == 77
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, np.where(transparent, 0, 255))


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(name: str) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    picture = read(saved(Image.fromarray(values), name))
    assert np.abs(picture.pixels - values / 257).max() <= 0.5


def test_big_endian_16_bit_grey_is_scaled() -> None:
    values = np.array([[0, 32768, 65535]], np.uint16)
    image = Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes())
    assert read(saved(image, "TIFF")).pixels[0].tolist() == [0, 128, 255]


def test_tiff_grey_follows_its_own_white() -> None:
    values = np.array([[0, 32768, 65535, 65535]], np.uint16)
    assert read(tiff(values, (1, 4), 16, photometric=0)).pixels[0].tolist() == [255, 127, 0, 0]
    twelve = bytes.fromhex("000800fff800")  # 0, 0x800, 0xFFF, 0x800
    assert read(tiff(twelve, (1, 4), 12, photometric=1)).pixels[0].tolist() == [0, 128, 255, 128]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_samples_are_refused(dtype: type) -> None:
    data = saved(Image.fromarray(np.ones((4, 4), dtype)), "TIFF")
    with pytest.raises(UnsupportedImageError, match="8 or 16 bits per channel"):
        read(data)


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_without_profile_looks_as_it_did(name: str) -> None:
    image = Image.fromarray(COLOURS).convert("CMYK")
    picture = read(saved(image, name, **({"quality": 100, "subsampling": 0} if name == "JPEG" else {})))
    assert np.abs(picture.pixels.astype(int) - COLOURS).max() < 8


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(name: str) -> None:
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)]
    image = Image.new("CMYK", (24, 8))
    for index, ink in enumerate(inks):
        image.paste(ink, (8 * index, 0, 8 * index + 8, 8))
    picture = read(saved(image, name, icc_profile=cmyk_profile()))
    paper, orange, black = picture.pixels[4, 4::8].astype(int)
    assert picture.icc_profile is None
    assert paper.min() > 250
    assert black.max() < 8
    # Lab 60, 40, 60 in sRGB is about 221, 109, 32.
    assert np.abs(orange - (221, 109, 32)).max() < 12


def test_lab_is_converted_to_srgb() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(Image.fromarray(COLOURS), to_lab)
    assert lab is not None
    picture = read(saved(lab, "TIFF"))
    assert picture.icc_profile is None
    assert np.abs(picture.pixels.astype(int) - COLOURS).max() < 10  # Lab has 8 bits too
