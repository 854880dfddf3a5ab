"""Output megapixels per second through the socket against a bare session of the same runtime.

    python -m benchmarks.end_to_end [MODEL [SIDE]]

Eight clients send photographs of SIDE × SIDE pixels (default 256) over MessagePack and get JPEGs back:
decoding, scheduling, encoding, storing and the database are all paid by the server. The peer runs the same
pixels through the same ONNX file with the same number of threads, and nothing else.
"""

import asyncio
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import KEY, Report, median, peak_memory, tilewire
from engines import find_devices
from engines.sessions import Network
from onnx_models import ensure_built, load_catalogue
from server.client import Tilewire
from server.settings import load_settings

PHOTO = Path(__file__).parents[1] / "tests" / "images" / "cat.jpg"
CLIENTS = 8
ROUNDS = 5


def main(model_name: str = "realesr-animevideov3", side: int = 256) -> None:
    """Measure, print, keep."""
    images = photographs(side, CLIENTS)
    megapixels = CLIENTS * (4 * side) ** 2 / 1e6
    report = Report(f"end_to_end-{model_name}", "round", "tilewire MP/s", "bare MP/s", "ratio")
    ours: list[float] = []
    bare: list[float] = []
    with tilewire("--models", model_name) as (server, port):
        asyncio.run(through_the_socket(port, model_name, images))
        for number in range(1, ROUNDS + 1):
            ours.append(megapixels / asyncio.run(through_the_socket(port, model_name, images)))
            bare.append(megapixels / in_a_process(model_name, side))
            report.row(number, ours[-1], bare[-1], ours[-1] / bare[-1])
        report.say(f"resident memory of the server at most {peak_memory(server.pid) / 1e6:.0f} MB")
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    report.row("median", median(ours), median(bare), median(ratios))
    report.say(f"{CLIENTS} clients, {side} × {side} pixels ×4, JPEG out, on {find_devices()[0].name}")
    report.keep()


def photographs(side: int, count: int) -> list[bytes]:
    """Different square crops of one photograph, as JPEG."""
    photo = Image.open(PHOTO).convert("RGB")
    crops = []
    for index in range(count):
        left, top = (index * 23) % (photo.width - 64), (index * 17) % (photo.height - 64)
        crop = photo.crop((left, top, photo.width, photo.height)).resize((side, side))
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=92)
        crops.append(buffer.getvalue())
    return crops


async def through_the_socket(port: int, model: str, images: list[bytes]) -> float:
    """Seconds until all clients, each on a connection of its own, have their image."""

    async def one(image: bytes) -> None:
        async with Tilewire(f"ws://127.0.0.1:{port}/v1", KEY) as tilewire:
            await tilewire.upscale(image, model=model, factor=4, output_format="JPG")

    begun = time.perf_counter()
    await asyncio.gather(*(one(image) for image in images))
    return time.perf_counter() - begun


def in_a_process(model: str, side: int) -> float:
    """Seconds for the same pixels in a bare session, in a process of its own as the server is."""
    output = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.end_to_end", "bare", model, str(side)]
    )
    return float(output)


def run_bare(model_name: str, side: int) -> None:
    settings, _ = load_settings()
    model = load_catalogue().get(model_name)
    weights = model.weights_for(4)
    path = ensure_built(model, weights, settings.model_directory)
    session = find_devices()[0].open(Network(path, weights.scale, model.tile, weights))
    tiles = [
        np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))[np.newaxis]
        for image in photographs(side, CLIENTS)
    ]
    session.run(tiles[0])
    begun = time.perf_counter()
    for tile in tiles:
        session.run(tile)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare", name, pixels]:
            run_bare(name, int(pixels))
        case [name, pixels]:
            main(name, int(pixels))
        case [name]:
            main(name)
        case _:
            main()
