"""What a task costs beside its pixels, against a bare loop and against a model server over HTTP.

    python -m benchmarks.latency [--sides 16 64 256] [--clients 1 8] [--seconds 3] [--rounds 3]

Pictures go through animevideov3 at ×4, in closed loops of so many clients. The peers do the same work with
the same session of the same runtime, JPEG in and JPEG out or raw pixels in and out:

- the bare loop decodes, infers and encodes in one process, one picture after the other;
- mosec does so behind HTTP, without keeping anything; its worker is the bare loop's;
- Tilewire keeps each task, charges it, and answers over one WebSocket for each client: JPEG in JSON with
  base64 and in MessagePack, whose results it keeps; raw pixels over TCP and a Unix socket, which it does not.

Each is compared with the bare loop of its own kind. The aim: raw pixels over a Unix socket at most 1.5 ms
above it at p50, and 3 ms at p99.

All of them are there from the start and take turns, so that whatever else the machine does meets all alike.
"""

import argparse
import asyncio
import base64
import importlib.util
import io
import os
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpcore
import msgspec
import numpy as np
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.photos import jpeg, photograph
from benchmarks.report import KEY, Report, free_port, median, percentile, tilewire, wait_until_ready
from benchmarks.workers import AbsentError, Worker
from engines import find_devices
from engines.devices.sessions import Network, warmed_up
from onnx_models import load_catalogue
from server.settings import load_settings

MODEL = "realesr-animevideov3"
SIDES = (16, 64, 256)
CLIENTS = (1, 8)
RAW = "raw "
"""What the names of those begin with that take and give pixels."""
Task = Callable[["Picture"], Awaitable[None]]
Open = Callable[[], Awaitable[Task]]


class Picture(NamedTuple):
    """What is sent: a photograph as JPEG, and its pixels with two sides of two bytes before them."""

    jpeg: bytes
    raw: bytes

    def of(self, peer: str) -> bytes:
        """What a peer takes."""
        return self.raw if peer.startswith(RAW) else self.jpeg


class Seen(NamedTuple):
    """What one turn of one peer showed: tasks per second, and the seconds of each."""

    rate: float
    times: list[float]


class Bare:
    """Decode, infer, encode: what any server has to do for a picture."""

    def __init__(self) -> None:
        settings, _ = load_settings()
        model = load_catalogue().get(MODEL)
        network = Network.build(model, model.weights_for(4), settings.model_directory)
        self._session = warmed_up(find_devices()[0].open(network))

    def __call__(self, image: bytes) -> bytes:
        """JPEG in base64 of JPEG; of raw pixels the pixels."""
        if not image.startswith(b"\xff\xd8"):
            height, width = _SIZE.unpack_from(image)
            pixels = np.frombuffer(image, np.uint8, offset=_SIZE.size).reshape(1, height, width, 3)
            return self._session.run(pixels)[0].tobytes()
        pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
        (upscaled,) = self._session.run(pixels[np.newaxis])
        buffer = io.BytesIO()
        Image.fromarray(upscaled).save(buffer, "JPEG", quality=95, subsampling=0)
        return base64.b64encode(buffer.getvalue())


_SIZE = struct.Struct("HH")


def picture(side: int) -> Picture:
    pixels = photograph(side)
    return Picture(jpeg(pixels), _SIZE.pack(side, side) + np.asarray(pixels).tobytes())


def main(options: argparse.Namespace) -> None:
    """Measure, print, keep."""
    report = Report(
        "latency", "side", "clients", "peer", "tasks/s", "p50 ms", "p99 ms", "÷ bare tasks/s",
        "p50 - bare, ms", "p99 - bare, ms",
    )  # fmt: skip
    if options.database is not None:
        os.environ["TILEWIRE_DATABASE_URL"] = options.database
    with ExitStack() as stack:
        bare = stack.enter_context(Worker(Bare, picture(16).jpeg))
        uds = Path(stack.enter_context(tempfile.TemporaryDirectory()), "s.sock")
        _, port = stack.enter_context(tilewire("--models", MODEL, "--uds", str(uds)))
        opens: dict[str, Open] = {
            "JSON": lambda: over_json(port),
            "MessagePack": lambda: over_messagepack(port),
            f"{RAW}TCP": lambda: over_messagepack(port, raw=True),
            f"{RAW}Unix": lambda: over_messagepack(port, uds, raw=True),
        }
        try:
            mosecs = stack.enter_context(mosec())
            opens |= {"mosec": over_http(mosecs, "mosec"), f"{RAW}mosec": over_http(mosecs, f"{RAW}mosec")}
        except (AbsentError, TimeoutError) as error:
            report.say(f"mosec: {error}")
        for side in options.sides:
            measure(report, side, bare, opens, options)
    devices = ", ".join(device.name for device in find_devices())
    report.say(
        f"{options.rounds} rounds of {options.seconds:g} s each, medians of rounds; {MODEL} ×4 on {devices}"
    )
    report.say(f"state in {'SQLite' if options.database is None else options.database.partition(':')[0]}")
    report.keep()


def measure(
    report: Report, side: int, bare: Worker, opens: dict[str, Open], options: argparse.Namespace
) -> None:
    """All peers with pictures of one size, in turns."""
    image = picture(side)
    alone: dict[str, list[Seen]] = defaultdict(list)
    seen: dict[tuple[int, str], list[Seen]] = defaultdict(list)
    for number in range(options.rounds):
        for clients in options.clients:
            for own in ("bare", f"{RAW}bare"):
                alone[own].append(in_a_loop(bare, image.of(own), options.seconds))
            turns = list(opens.items())
            for peer, open_task in turns if number % 2 else reversed(turns):
                seen[clients, peer].append(asyncio.run(in_turn(open_task, image, clients, options.seconds)))
    for own, turns_of_it in alone.items():
        report.row(*row(side, 1, own, turns_of_it, turns_of_it))
    for clients in options.clients:
        for peer in opens:
            own = f"{RAW}bare" if peer.startswith(RAW) else "bare"
            report.row(*row(side, clients, peer, seen[clients, peer], alone[own]))


def row(side: int, clients: int, peer: str, seen: list[Seen], bare: list[Seen]) -> tuple[object, ...]:
    rate, alone = (median([one.rate for one in turns]) for turns in (seen, bare))
    (p50, p99), (own50, own99) = (
        [1e3 * median([percentile(one.times, share) for one in turns]) for share in (0.5, 0.99)]
        for turns in (seen, bare)
    )
    return side, clients, peer, rate, p50, p99, rate / alone, p50 - own50, p99 - own99


def in_a_loop(bare: Worker, image: bytes, seconds: float) -> Seen:
    times = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        times.append(bare.run(image))
    return Seen(len(times) / sum(times), times)


async def in_turn(open_task: Open, image: Picture, clients: int, seconds: float) -> Seen:
    """Each client sends the next picture as soon as it has the last."""
    tasks = [await open_task() for _ in range(clients)]
    for _ in range(3):
        await asyncio.gather(*(task(image) for task in tasks))
    times: list[float] = []
    begun = time.perf_counter()

    async def client(task: Task) -> None:
        while (sent := time.perf_counter()) - begun < seconds:
            await task(image)
            times.append(time.perf_counter() - sent)

    await asyncio.gather(*map(client, tasks))
    return Seen(len(times) / (time.perf_counter() - begun), times)


async def over_json(port: int) -> Task:
    socket = await connect(f"ws://127.0.0.1:{port}/v1", max_size=None, compression=None)
    ask = await _authenticated(socket, msgspec.json.encode, msgspec.json.decode)

    async def upscale(image: Picture) -> None:
        reply = await ask(_task(base64.b64encode(image.jpeg).decode(), outputType="base64Data"))
        assert reply["data"][0]["imageBase64Data"], reply

    return upscale


async def over_messagepack(port: int, uds: Path | None = None, *, raw: bool = False) -> Task:
    where: dict[str, Any] = {} if uds is None else {"unix": True, "path": str(uds)}
    socket = await connect(
        f"ws://127.0.0.1:{port}/v1",
        subprotocols=[Subprotocol("tilewire.msgpack")],
        max_size=None,
        compression=None,
        **where,
    )
    ask = await _authenticated(socket, msgspec.msgpack.encode, msgspec.msgpack.decode)

    async def upscale(image: Picture) -> None:
        reply = await ask(_task(image.jpeg, outputType="base64Data"))
        assert reply["data"][0]["imageBase64Data"], reply

    async def upscale_raw(image: Picture) -> None:
        height, width = _SIZE.unpack_from(image.raw)
        pixels = memoryview(image.raw)[_SIZE.size :]
        given = {"width": width, "height": height, "channels": 3, "pixels": pixels}
        reply = await ask(_task(given, outputFormat="RAW"))
        assert reply["data"][0]["image"]["pixels"], reply

    return upscale_raw if raw else upscale


async def _authenticated(
    socket: ClientConnection, encode: Callable[[Any], bytes], decode: Callable[[Any], Any]
) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    text = socket.subprotocol is None

    async def ask(task: dict[str, Any]) -> dict[str, Any]:
        await socket.send(encode([task]), text=text)
        reply: dict[str, Any] = decode(await socket.recv())
        return reply

    await ask({"taskType": "authentication", "apiKey": KEY})
    return ask


def _task(image: object, **more: str) -> dict[str, Any]:
    return {
        "taskType": "upscale",
        "taskUUID": str(uuid.uuid4()),
        "model": MODEL,
        "upscaleFactor": 4,
        "inputs": {"image": image},
        **more,
    }


def over_http(port: int, peer: str) -> Open:
    async def open_task() -> Task:
        pool = httpcore.AsyncConnectionPool(max_connections=1)

        async def upscale(image: Picture) -> None:
            url = f"http://127.0.0.1:{port}/inference"
            response = await pool.request("POST", url, content=image.of(peer))
            assert response.status == 200, response.content

        return upscale

    return open_task


_MOSEC = """
from mosec import Server, Worker
from benchmarks.latency import Bare

class Upscale(Worker):
    def __init__(self):
        self.bare = Bare()

    def deserialize(self, data):
        return data

    def serialize(self, data):
        return data

    def forward(self, data):
        return self.bare(data)

if __name__ == "__main__":
    server = Server()
    server.append_worker(Upscale, num=1)
    server.run()
"""


@contextmanager
def mosec() -> Iterator[int]:
    """mosec's port, with one worker.

    Raises:
        AbsentError: if it is not installed.
    """
    if importlib.util.find_spec("mosec") is None:
        raise AbsentError("it is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "serve.py")
        script.write_text(_MOSEC)
        process = subprocess.Popen(
            [sys.executable, str(script), "--port", str(port), "--timeout", "60000", "--log-level", "error"],
            env=os.environ | {"PYTHONPATH": os.getcwd()},  # noqa: PTH109 - where this package is
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(process, port, "metrics")
            yield port
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the pictures")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="at once")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", help="such as postgresql://…; default: SQLite")
    main(parser.parse_args())
