"""Milliseconds to read and write pictures, against other libraries, and against Pillow as it comes.

    python -m benchmarks.codecs [--side PIXELS] [--rounds N]

What is written is a photograph that animevideov3 enlarged to PIXELS × PIXELS, what is read one of half its
sides. All take turns in every round. Libraries that are not installed are listed as missing; `pip install
'.[bench]'` brings them. What Tilewire reads is upright RGB with its profile and metadata, and checked.
"""

import argparse
import asyncio
import io
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks.photos import photograph
from benchmarks.report import Report, median
from engines import OutputFormat, Picture, Upscaler, decode, encode, find_devices
from engines.codecs import png
from onnx_models import load_catalogue
from server.settings import load_settings

MODEL = "realesr-animevideov3"
SIDE = 2048
ROUNDS = 9

Pixels = NDArray[np.uint8]


class Peer(NamedTuple):
    """A library at one task."""

    name: str
    module: str
    run: Callable[[], Any]
    """Writes, and gives the file; or reads, and gives the pixels."""


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codecs")
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    report = Report("codecs", "".rjust(12), "library".rjust(24), "ms", "ratio", "MB", "PSNR dB")
    with Console(stderr=True).status("a picture is enlarged"):
        pixels = enlarged(options.side)
    files = {
        form: encode(Picture(np.ascontiguousarray(pixels[::2, ::2])), form, quality=90)
        for form in OutputFormat
    }
    for task, peers in {
        "PNG, write": png_writers(pixels),
        "JPEG, write": jpeg_writers(pixels),
        "WebP, write": webp_writers(pixels),
        "JPEG, read": jpeg_readers(files[OutputFormat.JPG]),
        "PNG, read": png_readers(files[OutputFormat.PNG]),
        "WebP, read": webp_readers(files[OutputFormat.WEBP]),
    }.items():
        compare(report, task, peers, pixels, options.rounds)
    report.say(
        f"written: {options.side} × {options.side} pixels, read: half its sides; medians, alternating "
        f"rounds: {options.rounds}; ratio: their time / Tilewire's; MB and PSNR of what is written"
    )
    report.keep()


def enlarged(side: int) -> Pixels:
    """A photograph as it comes out of a network."""
    settings, _ = load_settings()
    upscaler = Upscaler(find_devices("cpu"), settings.model_directory)
    try:
        small = Picture(photograph(side // 4))
        model = load_catalogue().get(MODEL)
        return asyncio.run(upscaler.upscale(small, model, width=side, height=side)).pixels
    finally:
        upscaler.close()


def compare(report: Report, task: str, peers: list[Peer], pixels: Pixels, rounds: int) -> None:
    """One task; the first peer is Tilewire."""
    present = [peer for peer in peers if find_spec(peer.module)]
    results = {peer.name: peer.run() for peer in present}
    times: dict[str, list[float]] = {peer.name: [] for peer in present}
    for _ in range(rounds):
        for peer in present:
            begun = perf_counter()
            peer.run()
            times[peer.name].append(perf_counter() - begun)
    for name, *_ in peers:
        if name not in times:
            report.say(f"{task.rjust(12)}  {name.rjust(24)}  missing")
            continue
        ratio = median([a / b for a, b in zip(times[name], times["Tilewire"], strict=True)])
        result = results[name]
        written = (
            (f"{len(result) / 1e6:.2f}", psnr(result, pixels)) if isinstance(result, bytes) else ("", "")
        )
        report.row(task, name, 1e3 * median(times[name]), ratio, *written)


def psnr(file: bytes, pixels: Pixels) -> str:
    with Image.open(io.BytesIO(file)) as image:
        error = np.mean((np.asarray(image.convert("RGB")).astype(np.float64) - pixels) ** 2)
    return f"{10 * np.log10(255**2 / error):.1f}" if error else "exact"


def by_pillow(pixels: Pixels, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def read_by_pillow(file: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def on_one_thread(pixels: Pixels) -> bytes:
    with mock.patch.object(png, "_THREADS", 1):
        return encode(Picture(pixels), OutputFormat.PNG)


def by_opencv(pixels: Pixels, extension: str, *options: int) -> bytes:
    blue_first = np.ascontiguousarray(pixels[:, :, ::-1])
    file: bytes = import_module("cv2").imencode(extension, blue_first, options)[1].tobytes()
    return file


def read_by_opencv(file: bytes) -> Pixels:
    cv2 = import_module("cv2")
    pixels: Pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB)
    return pixels


def imagecodecs(function: str, given: Pixels | bytes, **options: Any) -> Any:
    result = getattr(import_module("imagecodecs"), function)(given, **options)
    return result if isinstance(result, np.ndarray) else bytes(result)


def png_writers(pixels: Pixels) -> list[Peer]:
    return [
        Peer("Tilewire", "engines", lambda: encode(Picture(pixels), OutputFormat.PNG)),
        Peer("Tilewire, one thread", "engines", lambda: on_one_thread(pixels)),
        Peer("Pillow", "PIL", lambda: by_pillow(pixels, "PNG")),
        Peer("Pillow, level 1", "PIL", lambda: by_pillow(pixels, "PNG", compress_level=1)),
        Peer("OpenCV", "cv2", lambda: by_opencv(pixels, ".png")),
        Peer("imagecodecs, level 1", "imagecodecs", lambda: imagecodecs("png_encode", pixels, level=1)),
    ]


def jpeg_writers(pixels: Pixels) -> list[Peer]:
    def opencv() -> bytes:
        cv2 = import_module("cv2")
        full_colour = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
        return by_opencv(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95, *full_colour)

    def simplejpeg() -> Any:
        return import_module("simplejpeg").encode_jpeg(pixels, 95, "RGB", "444", fastdct=False)

    return [
        Peer("Tilewire", "engines", lambda: encode(Picture(pixels), OutputFormat.JPG)),
        Peer("Pillow", "PIL", lambda: by_pillow(pixels, "JPEG", quality=95, subsampling="4:4:4")),
        Peer("OpenCV", "cv2", opencv),
        Peer("simplejpeg", "simplejpeg", simplejpeg),
    ]


def webp_writers(pixels: Pixels) -> list[Peer]:
    def method_2() -> Any:
        return imagecodecs("webp_encode", pixels, level=95, method=2, lossless=False)

    return [
        Peer("Tilewire", "engines", lambda: encode(Picture(pixels), OutputFormat.WEBP)),
        Peer("Pillow", "PIL", lambda: by_pillow(pixels, "WEBP", quality=95)),
        Peer("imagecodecs, method 2", "imagecodecs", method_2),
    ]


def readers(file: bytes) -> list[Peer]:
    """What reads all formats."""
    return [
        Peer("Tilewire", "engines", lambda: decode(file, max_pixels=10**9).pixels),
        Peer("Pillow", "PIL", lambda: read_by_pillow(file)),
        Peer("OpenCV", "cv2", lambda: read_by_opencv(file)),
    ]


def jpeg_readers(file: bytes) -> list[Peer]:
    def simplejpeg() -> Any:
        return import_module("simplejpeg").decode_jpeg(file, fastdct=False, fastupsample=False)

    return [*readers(file), Peer("simplejpeg", "simplejpeg", simplejpeg)]


def png_readers(file: bytes) -> list[Peer]:
    libspng = Peer("imagecodecs, libspng", "imagecodecs", lambda: imagecodecs("spng_decode", file))
    return [*readers(file), libspng]


def webp_readers(file: bytes) -> list[Peer]:
    return [*readers(file), Peer("imagecodecs", "imagecodecs", lambda: imagecodecs("webp_decode", file))]


if __name__ == "__main__":
    main()
