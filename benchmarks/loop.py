"""How late the event loop of a server is while inference runs on all cores, against the same server idle.

    python -m benchmarks.loop

Then the longest lag that each of the worst frames causes (`benchmarks.worst_frames`): what another client's
ping has to wait. `python -m benchmarks.loop frames` measures these alone.

The server runs in a process of its own and times its loop every 10 ms; uvloop's timers are exact to a
millisecond. What a client sees of it is measured as well: pings over a socket, one after the other.
"""

import asyncio
import base64
import json
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.report import KEY, Report, free_port, percentile, wait_until_ready
from benchmarks.worst_frames import worst_frames
from server.services import Services
from server.serving import serve
from server.settings import load_settings
from server.telemetry.telemetry import sample_lag

MODEL = "realesr-animevideov3"
PHOTOGRAPH = Path(__file__).parents[1] / "tests" / "images" / "astronaut.jpg"
SAMPLE_EVERY = 0.01
SECONDS = 20.0
TASKS_AT_ONCE = 8
AIM = 5.0  # ms, at the 99th percentile
WORST_FRAME_AIM = 100.0  # ms, at most


def main(seconds: float = SECONDS, *, frames_only: bool = False) -> None:
    """Measure, print, keep."""
    report = Report("loop", "server", "what", "p50 ms", "p99 ms", "max ms", "samples")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lags"
        with measured_server(file) as port:
            spans = {} if frames_only else uvloop.run(measure(port, seconds))
            frames = uvloop.run(send_worst_frames(port))
        samples = array("d", file.read_bytes())
    lags = list(zip(samples[::2], samples[1::2], strict=True))
    for name, (began, ended, pings) in spans.items():
        for what, values in (
            ("loop lag", [lag for at, lag in lags if began <= at <= ended]),
            ("ping", pings),
        ):
            shares = (1e3 * percentile(values, share) for share in (0.5, 0.99, 1.0))
            report.row(name, what, *shares, len(values))
    if spans:
        report.say(f"aim: loop lag below {AIM:g} ms at p99 while busy; {TASKS_AT_ONCE} tasks at once")
        report.keep()
    worst = Report("worst_frames", f"{'frame':>36}", "longest lag ms")
    for name, (began, ended) in frames.items():
        worst.row(name, 1e3 * max(lag for at, lag in lags if began <= at <= ended))
    worst.say(f"aim: below {WORST_FRAME_AIM:g} ms whatever the frame")
    worst.keep()


async def measure(port: int, seconds: float) -> dict[str, tuple[float, float, list[float]]]:
    """When each phase began and ended, and the pings in between."""
    async with client(port) as pinging, client(port) as working:
        await keep_busy(working, rounds=1)  # the network is loaded, its kernels chosen
        spans = {"idle": await ping_for(pinging, seconds)}
        work = asyncio.create_task(keep_busy(working))
        try:
            spans["busy"] = await ping_for(pinging, seconds)
            if work.done():
                work.result()
        finally:
            work.cancel()
        return spans


async def ping_for(socket: ClientConnection, seconds: float) -> tuple[float, float, list[float]]:
    began = time.monotonic()
    latencies = []
    while (now := time.monotonic()) < began + seconds:
        await socket.send('[{"taskType":"ping","ping":true}]')
        await socket.recv()
        latencies.append(time.monotonic() - now)
        await asyncio.sleep(SAMPLE_EVERY)
    return began, time.monotonic(), latencies


async def keep_busy(socket: ClientConnection, rounds: int | None = None) -> None:
    """Have as many tasks under way as there may be at once, each answer followed by another task."""
    image = base64.b64encode(PHOTOGRAPH.read_bytes()).decode()
    number = 0

    async def ask() -> None:
        nonlocal number
        number += 1
        task = {
            "taskType": "upscale",
            "taskUUID": f"00000000-0000-4000-8000-{number:012d}",
            "model": MODEL,
            "upscaleFactor": 2,
            "inputImage": image,
        }
        await socket.send(json.dumps([task]))

    for _ in range(rounds or TASKS_AT_ONCE):
        await ask()
    done = 0
    async for frame in socket:
        if "errors" in json.loads(frame):
            raise RuntimeError(f"a task failed: {frame!r}")
        done += 1
        if done == rounds:
            return
        await ask()


async def send_worst_frames(port: int) -> dict[str, tuple[float, float]]:
    """When each was sent, and when all that there is to say of it had come back."""
    spans = {}
    for name, frame in worst_frames():
        async with client(port, binary=isinstance(frame, bytes)) as socket:
            ping = [{"taskType": "ping"}]
            began = time.monotonic()
            await socket.send(frame)
            await socket.send(msgspec.msgpack.encode(ping) if isinstance(frame, bytes) else json.dumps(ping))
            await socket.recv()
            await asyncio.sleep(0.5)  # an image is looked at after a ping is answered
            spans[name] = began, time.monotonic()
    return spans


@asynccontextmanager
async def client(port: int, *, binary: bool = False) -> AsyncIterator[ClientConnection]:
    subprotocols = [Subprotocol("tilewire.msgpack")] if binary else None
    address = f"ws://127.0.0.1:{port}/v1"
    async with connect(address, max_size=None, subprotocols=subprotocols, ping_interval=None) as socket:
        task = [{"taskType": "authentication", "apiKey": KEY}]
        await socket.send(msgspec.msgpack.encode(task) if binary else json.dumps(task))
        await socket.recv()
        yield socket


@contextmanager
def measured_server(file: Path) -> Iterator[int]:
    """A server that writes its samples to a file when it is told to stop; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "benchmarks.loop", "serve", str(port), data, str(file)]
        process = subprocess.Popen(command)
        try:
            wait_until_ready(process, port)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def serve_measured(port: int, data: Path, file: Path) -> None:
    settings, _ = load_settings(flags={"port": port, "data": data, "api_key": KEY, "models": (MODEL,)})
    settings = msgspec.structs.replace(settings, drain_timeout=10.0)
    samples = array("d")
    sampling: list[asyncio.Task[None]] = []

    def keep(lag: float) -> None:
        samples.extend((time.monotonic(), lag))

    def begin(_url: str, _services: Services) -> None:
        sampling.append(asyncio.get_running_loop().create_task(sample_lag(SAMPLE_EVERY, keep)))

    serve(settings, begin)
    file.write_bytes(samples.tobytes())


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_measured(int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
    elif sys.argv[1:2] == ["frames"]:
        main(frames_only=True)
    else:
        main(*map(float, sys.argv[1:2]))
