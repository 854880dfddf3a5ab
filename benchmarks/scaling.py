"""How speed and memory of the server grow with the size of an image, and speed with the number of clients.

    python -m benchmarks.scaling [--model NAME] [--largest MEGAPIXELS] [--side PIXELS] [--images N]
        [--rounds N]

First one image, from 0.25 to MEGAPIXELS output megapixels, each size in a server that was just started. The
memory is what the server's process held at most, less what it held when it was ready; a result is one byte
for each of three colours, so the ratio says how often it is held in some form. Then N images of
PIXELS × PIXELS, shared between 1, 8 and 64 clients, each with a connection of its own, in alternating rounds.
"""

import argparse
import asyncio
import time

from rich.console import Console

from benchmarks.photos import jpeg, photograph
from benchmarks.report import KEY, Report, median, peak_memory, percentile, resident_memory, tilewire
from tilewire import Tilewire

SCALE = 4
SIDES = (512, 1024, 2048, 4096, 8192)
"""Of the output: 0.25 to 64 × 2²⁰ pixels."""
CLIENTS = (1, 8, 64)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--model", default="realesr-animevideov3")
    parser.add_argument("--largest", type=float, default=64, help="largest output in megapixels (2²⁰ pixels)")
    parser.add_argument("--side", type=int, default=128, help="side of the clients' images, in pixels")
    parser.add_argument("--images", type=int, default=64, help="how many the clients send in all")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    columns = ("output megapixels", "seconds", "MP/s", "idle MB", "peak MB", "more MB", "output MB", "ratio")
    report = Report("scaling", *columns)
    with Console(stderr=True).status("") as status:
        grown: list[tuple[int, int]] = []
        for side in SIDES:
            if side**2 / 2**20 <= options.largest:
                status.update(f"one image of {side} × {side} output pixels")
                grown.append(one_image(report, options.model, side))
        if len(grown) > 1:
            (size_before, more_before), (size, more) = grown[-2:]
            share = (more - more_before) / (size - size_before)
            report.say(f"between the two largest: {share:.2g} bytes more for each byte of output more")
        status.update("clients")
        report.row("clients", "seconds", "MP/s", "to one client", "p50 s", "p95 s", "peak MB", "")
        with tilewire("--models", options.model) as (server, port):
            many_clients(report, options, port, server.pid)
    report.say(
        f"{options.model} ×{SCALE}, JPEG in and out; one image per new server; "
        f"clients: {options.images} images of {options.side} × {options.side} pixels in all, "
        f"alternating rounds: {options.rounds}"
    )
    report.keep()


def one_image(report: Report, model: str, side: int) -> tuple[int, int]:
    """A row; the bytes of the output, and how many more than when it was idle the server held at most."""
    image = jpeg(photograph(side // SCALE))
    with tilewire("--models", model) as (server, port):
        idle = resident_memory(server.pid)
        seconds, _ = asyncio.run(upscale(port, model, [image], clients=1))
        peak = peak_memory(server.pid)
    size, more = 3 * side**2, peak - idle
    megabytes = (f"{value / 1e6:.0f}" for value in (idle, peak, more))
    report.row(f"{side**2 / 2**20:g}", seconds, side**2 / 1e6 / seconds, *megabytes, size / 1e6, more / size)
    return size, more


def many_clients(report: Report, options: argparse.Namespace, port: int, pid: int) -> None:
    """A row for each number of clients."""
    images = [jpeg(photograph(options.side, index)) for index in range(options.images)]
    megapixels = options.images * (SCALE * options.side) ** 2 / 1e6
    seconds: dict[int, list[float]] = {count: [] for count in CLIENTS}
    latencies: dict[int, list[float]] = {count: [] for count in CLIENTS}
    peaks: dict[int, int] = {}
    asyncio.run(upscale(port, options.model, images[:1], clients=1))
    for _ in range(options.rounds):
        for count in CLIENTS:
            took, each = asyncio.run(upscale(port, options.model, images, clients=count))
            seconds[count].append(took)
            latencies[count] += each
            peaks.setdefault(count, peak_memory(pid))  # in the first round the numbers of clients rise
    for count in CLIENTS:
        report.row(
            count,
            median(seconds[count]),
            megapixels / median(seconds[count]),
            median([one / many for one, many in zip(seconds[1], seconds[count], strict=True)]),
            median(latencies[count]),
            percentile(latencies[count], 0.95),
            f"{peaks[count] / 1e6:.0f}",
            "",
        )


async def upscale(port: int, model: str, images: list[bytes], clients: int) -> tuple[float, list[float]]:
    """Seconds until all images are back, and for each of them."""
    left = iter(images)
    latencies: list[float] = []

    async def work() -> None:
        async with Tilewire(f"ws://127.0.0.1:{port}/v1", KEY) as tilewire:
            for image in left:
                begun = time.perf_counter()
                await tilewire.upscale(image, model=model, factor=SCALE, output_format="JPG")
                latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(work())
    return time.perf_counter() - begun, latencies


if __name__ == "__main__":
    main()
