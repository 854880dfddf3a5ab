"""Images made to harm whoever decodes them."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image, features

from tests.engines.codecs.test_image import FORMATS, chunk, exif_with, png
from tests.server.support.harness import make_image

HUGE = 2**31 - 1


def hostile_images() -> Iterator[tuple[str, bytes]]:
    """Each with a name of its own; few are larger than some hundred kilobytes."""
    yield from _truncated()
    yield from _bombs()
    yield from _pngs()
    yield from _jpegs()
    yield from _tiffs()
    yield from _animations()
    yield "bmp of runs without end", _bmp(16, 16, bits=8, compression=1, body=b"\x00\x02\xff\x00" * 50_000)
    yield "bmp with a palette of 4 billion", _bmp(16, 16, bits=8, colours=2**32 - 1)
    yield "bmp of minus its height", _bmp(16, -(2**31), bits=24)
    yield "bmp with its pixels before itself", _bmp(16, 16, bits=24, offset=2**32 - 1)
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n"
    yield "photoshop", b"8BPS\0\1" + bytes(20)


def _truncated() -> Iterator[tuple[str, bytes]]:
    for name in FORMATS:
        data = make_image(32, 24, name)
        for length in (4, 12, 16, 30, len(data) // 2, len(data) - 3):
            yield f"{name} of {length} bytes", data[:length]


def _bombs() -> Iterator[tuple[str, bytes]]:
    """More pixels than anyone should decode, in few bytes."""
    yield "png bomb", png(50_000, 50_000, bits=1, colour_type=0, rows=bytes(6251 * 1000))
    yield "png of the largest size", png(HUGE, HUGE, bits=8, colour_type=6, rows=b"")
    yield "png of no size", png(0, 0, bits=8, colour_type=2, rows=b"")
    yield "gif bomb", b"GIF89a" + struct.pack("<HH", 65535, 65535) + make_image(16, 16, "GIF")[10:]
    yield "bmp bomb", _bmp(HUGE, HUGE, bits=1)
    yield "tiff bomb", _tiff({256: HUGE, 257: HUGE, 258: 1, 259: 1, 262: 1, 273: 8, 278: HUGE, 279: 8})
    jpeg = make_image(32, 32, "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    yield "jpeg bomb", jpeg[: frame + 5] + struct.pack(">HH", 65500, 65500) + jpeg[frame + 9 :]
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff" * 6
    yield "webp bomb", b"RIFF" + struct.pack("<I", 22) + b"WEBP" + extended
    if features.check("avif"):
        avif = make_image(32, 32, "AVIF")
        size = avif.index(b"ispe") + 8
        yield "avif bomb", avif[:size] + struct.pack(">II", HUGE, HUGE) + avif[size + 8 :]


def _pngs() -> Iterator[tuple[str, bytes]]:
    def small(*, colour_type: int = 2, rows: bytes = bytes(16 * 49), **more: Any) -> bytes:
        return png(16, 16, bits=8, colour_type=colour_type, rows=rows, **more)

    zeros = zlib.compress(bytes(100_000_000), 9)
    yield "png with a profile that expands", small(extra=chunk(b"iCCP", b"icc\0\0" + zeros))
    yield "png with a text that expands", small(extra=chunk(b"zTXt", b"key\0\0" + zeros))
    yield "png with ten thousand texts", small(extra=chunk(b"tEXt", b"k\0" + b"v" * 100) * 10_000)
    yield "png with pixels that expand", small(rows=bytes(200_000_000))
    yield (
        "png with a profile of nonsense",
        small(extra=chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"x" * 5000))),
    )
    yield "png with a profile of vast tables", small(extra=chunk(b"iCCP", b"icc\0\0" + zlib.compress(_icc())))
    for length in (0, 1, 5, 6, 300):
        yield f"png with {length} bytes of tRNS", small(extra=chunk(b"tRNS", bytes(length)))
        indexed = small(
            colour_type=3, rows=bytes(16 * 17), extra=chunk(b"PLTE", bytes(3)) + chunk(b"tRNS", bytes(length))
        )
        yield f"png of indices with {length} bytes of tRNS", indexed
    yield (
        "png of indices beyond its palette",
        small(colour_type=3, rows=b"\0" + b"\xff" * 16 + bytes(15 * 17), extra=chunk(b"PLTE", bytes(3))),
    )
    yield "png without a palette", small(colour_type=3, rows=bytes(16 * 17))
    yield "png with a chunk of 2 GB", small(extra=struct.pack(">I", HUGE) + b"tEXt")
    yield "png with a block of EXIF in circles", small(extra=chunk(b"eXIf", _circular_tiff()))
    frames = struct.pack(">II", 2**31 - 1, 0)
    yield "apng of 2 billion frames", small(extra=chunk(b"acTL", frames) + _frame_control(16, 16))
    yield (
        "apng with a frame beyond the edge",
        small(extra=chunk(b"acTL", bytes(8)) + _frame_control(HUGE, HUGE)),
    )


def _jpegs() -> Iterator[tuple[str, bytes]]:
    plain = make_image(32, 32, "JPEG")
    progressive = make_image(32, 32, "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield "jpeg of ten thousand scans", progressive[:-2] + last_scan * 10_000 + progressive[-2:]
    yield "jpeg of ten thousand segments", plain[:2] + b"\xff\xfe\0\x04ab" * 10_000 + plain[2:]
    yield "jpeg of fill bytes", plain[:2] + b"\xff" * 1_000_000 + plain[2:]
    profile = b"".join(
        _segment(0xE2, b"ICC_PROFILE\0" + bytes([number, 255]) + bytes(65_000)) for number in range(1, 256)
    )
    yield "jpeg with a profile of 16 MB", plain[:2] + profile + plain[2:]
    yield "jpeg with a profile of vast tables", make_image(32, 32, "JPEG", icc_profile=_icc())
    yield "jpeg with EXIF in circles", make_image(32, 32, "JPEG", exif=b"Exif\0\0" + _circular_tiff())
    entries = b"".join(struct.pack(">HHII", tag, 2, 2**31, 8) for tag in range(5000))
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 5000) + entries + bytes(4)
    yield "jpeg with EXIF of 5000 lies", make_image(32, 32, "JPEG", exif=exif)
    yield "jpeg with EXIF many times", plain[:2] + _segment(0xE1, exif_with(6)) * 500 + plain[2:]
    yield "jpeg with XMP of spaces", make_image(32, 32, "JPEG", xmp=b"tiff:Orientation" + b" " * 60_000)
    yield "jpeg without tables", b"".join((plain[:2], plain[plain.index(b"\xff\xc0") :]))
    yield "jpeg of 255 components", plain.replace(b"\x08\0\x20\0\x20\x03", b"\x08\0\x20\0\x20\xff")


def _tiffs() -> Iterator[tuple[str, bytes]]:
    plain = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 16, 279: 256}
    yield "tiff in circles", _circular_tiff()
    yield "tiff of which the next page is itself", _tiff(plain, following=8)
    yield "tiff with strips of 4 GB", _tiff(plain | {279: 2**32 - 1})
    yield "tiff with strips at the end of the world", _tiff(plain | {273: 2**32 - 1})
    yield "tiff with tiles of 4 billion", _tiff(plain | {322: 2**32 - 16, 323: 2**32 - 16, 324: 8, 325: 8})
    yield "tiff of 65535 samples", _tiff(plain | {277: 65535})
    yield "tiff of 64 bits", _tiff(plain | {258: 64})
    for compression in (2, 3, 4, 5, 6, 7, 8, 32773, 34712, 34925, 50000, 50001, 65000):
        yield f"tiff of compression {compression}", _tiff(plain | {259: compression})
    expands = zlib.compress(bytes(100_000_000), 9)
    yield "tiff that expands", _tiff(plain | {259: 8, 279: len(expands)}, body=expands)
    yield "tiff of 2^63 entries", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63)


def _animations() -> Iterator[tuple[str, bytes]]:
    frames = [Image.new("P", (16, 16), number % 256) for number in range(3000)]
    for name in ("GIF", "WEBP"):
        buffer = io.BytesIO()
        pictures = frames if name == "GIF" else [frame.convert("RGB") for frame in frames[:300]]
        pictures[0].save(buffer, name, save_all=True, append_images=pictures[1:])
        yield f"{name} of many frames", buffer.getvalue()
    head = b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 60_000, 60_000, 65_535, 65_535, 0)
    yield "gif with a frame beyond the edge", head + frame + b"\x02\x02\x4c\x01\0;"
    yield "gif of comments", head + b"!\xfe" + b"\xff" * 1_000_000
    yield (
        "gif of codes without end",
        head + b"," + struct.pack("<HHHHB", 0, 0, 16, 16, 0) + b"\x0c\xff" * 100_000,
    )


def _bmp(width: int, height: int, *, bits: int, compression: int = 0, **more: Any) -> bytes:
    body: bytes = more.get("body", bytes(1000))
    colours, offset = more.get("colours", 0), more.get("offset", 54)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, offset) + head + body


def _tiff(tags: dict[int, int], *, following: int = 0, body: bytes = bytes(256)) -> bytes:
    """One directory of 32-bit numbers, then at byte 200 the body."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return (b"II*\0\x08\0\0\0" + directory).ljust(200, b"\0") + body


def _circular_tiff() -> bytes:
    """Directories of EXIF, GPS, interoperability and sub-images, each of which is the first one."""
    return _tiff({256: 16, 257: 16, 330: 8, 34665: 8, 34853: 8, 40965: 8}, following=8)


def _icc() -> bytes:
    """A profile whose table says that it has 15 dimensions of 255 points."""
    table = b"mft1" + bytes(4) + bytes([15, 3, 255, 0]) + bytes(3000)
    head = struct.pack(">II4s4s4s4s", 128 + 16 + len(table), 0, b"\x04\x30\0\0", b"scnr", b"RGB ", b"Lab ")
    head += bytes(12) + b"acsp"
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


def _segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def _frame_control(width: int, height: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 1, 0, 0))
