"""Output megapixels per second through the socket against a bare session of the same runtime.

    python -m benchmarks.end_to_end [MODEL [SIDE]]
    python -m benchmarks.end_to_end providers [MODEL [SIDE]]

Eight clients send photographs of SIDE × SIDE pixels (default 256) over MessagePack and get JPEGs back:
decoding, scheduling, encoding, storing and the database are all paid by the server. The peer runs the same
pixels through the same ONNX file with the same number of threads, and nothing else. Then one client sends one
photograph after the other, which tells how long each takes, and how much of that the devices are busy.
The second form compares the shapes of other services: see `benchmarks.providers`.
"""

import asyncio
import io
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

from benchmarks.providers import compare
from benchmarks.report import KEY, Report, gpu_name, median, peak_memory, percentile, tilewire
from engines import find_devices
from engines.devices.sessions import Network, warmed_up
from onnx_models import load_catalogue
from server.settings import load_settings
from tilewire import Tilewire

PHOTO = Path(__file__).parents[1] / "tests" / "images" / "cat.jpg"
CLIENTS = 8
ROUNDS = 5
ONE_BY_ONE = 20
WARM_UPS = 3
"""Rounds before those that are measured: on a GPU a shape has its graph from its third run on."""


def main(model_name: str = "realesr-animevideov3", side: int = 256) -> None:
    """Measure, print, keep."""
    images = photographs(side, CLIENTS)
    megapixels = CLIENTS * (4 * side) ** 2 / 1e6
    columns = "round", "tilewire MP/s", "bare MP/s", "ratio", "devices busy"
    report = Report(f"end_to_end-{model_name}", *columns, device=gpu_name())
    ours: list[float] = []
    bare: list[float] = []
    shares: list[float] = []
    with tilewire("--models", model_name) as (server, port):
        for _ in range(WARM_UPS):
            asyncio.run(through_the_socket(port, model_name, images))
        for number in range(1, ROUNDS + 1):
            before = busy_seconds(port)
            seconds = asyncio.run(through_the_socket(port, model_name, images))
            shares.append((busy_seconds(port) - before) / seconds)
            ours.append(megapixels / seconds)
            bare.append(megapixels / in_a_process(model_name, side))
            report.row(number, ours[-1], bare[-1], ours[-1] / bare[-1], f"{shares[-1]:.0%}")
        before = busy_seconds(port)
        times = asyncio.run(one_by_one(port, model_name, images))
        share = (busy_seconds(port) - before) / sum(times)
        report.say(
            f"one client, {len(times)} photographs one after the other: p50 {median(times) * 1e3:.0f} ms, "
            f"p95 {percentile(times, 0.95) * 1e3:.0f} ms, devices busy {share:.0%}"
        )
        report.say(f"resident memory of the server at most {peak_memory(server.pid) / 1e6:.0f} MB")
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    report.row("median", median(ours), median(bare), median(ratios), f"{median(shares):.0%}")
    devices = find_devices()
    report.say(
        f"{CLIENTS} clients, {side} × {side} pixels ×4, JPEG out, "
        f"on {', '.join(device.name for device in devices)}; the bare session on the first"
    )
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


async def one_by_one(port: int, model: str, images: list[bytes]) -> list[float]:
    """Seconds for each of some photographs, from sending it until its result is received."""
    times = []
    async with Tilewire(f"ws://127.0.0.1:{port}/v1", KEY) as tilewire:
        for number in range(ONE_BY_ONE):
            begun = time.perf_counter()
            await tilewire.upscale(images[number % len(images)], model=model, factor=4, output_format="JPG")
            times.append(time.perf_counter() - begun)
    return times


def busy_seconds(port: int) -> float:
    """What the devices have spent on runs, on average, by the server's own account."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    name = "tilewire_device_busy_seconds_total{"
    return fmean(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


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
    session = warmed_up(find_devices()[0].open(Network.build(model, weights, settings.model_directory)))
    tiles = [
        np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))[np.newaxis]
        for image in photographs(side, CLIENTS)
    ]
    for _ in range(WARM_UPS):
        session.run(tiles[0])
    begun = time.perf_counter()
    for tile in tiles:
        session.run(tile)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare", name, pixels]:
            run_bare(name, int(pixels))
        case ["providers", *more]:
            name = more[0] if more else "realesr-animevideov3"
            pixels = more[1] if more[1:] else "256"
            compare(name, int(pixels))
        case [name, pixels]:
            main(name, int(pixels))
        case [name]:
            main(name)
        case _:
            main()
