"""What a task costs beside its pixels, against a bare loop and against a model server over HTTP.

    python -m benchmarks.latency [--sides 16 64 128] [--clients 1 8 32] [--seconds 3] [--rounds 3]

Pictures go through animevideov3 at ×4, in closed loops of so many clients; no two JPEGs have the same bytes.
The peers do the same work with the same session of the same runtime, JPEG in and JPEG out or raw pixels in
and out:

- the bare loop decodes, infers and encodes in one process, one picture after the other;
- mosec does so behind HTTP, without keeping anything; its worker is the bare loop's;
- Tilewire keeps each task, charges it, and answers over one WebSocket for each client: JPEG in JSON with
  base64, in MessagePack, and asynchronously by Runware's SDK for Python, whose results it keeps; raw pixels
  over TCP and a Unix socket, which it does not.

Each is compared with the bare loop of its own kind. The aims: raw pixels over a Unix socket at most 1.5 ms
above it at p50, and 3 ms at p99; JPEGs of 16 and 64 pixels at most 2.5 ms above it at p50, 0.85 of its rate
with eight clients and 64 pixels, 400 tasks a second with eight clients and 16 pixels.

"CPU ms" is the processor time of the server and its children for a task, which other work disturbs least.

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
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpcore
import msgspec
import numpy as np
from PIL import Image
from sqlalchemy import make_url
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.photos import jpeg, photograph
from benchmarks.report import (
    KEY,
    Report,
    cpu_seconds,
    free_port,
    median,
    percentile,
    tilewire,
    wait_until_ready,
)
from benchmarks.workers import AbsentError, Worker
from engines import find_devices
from engines.devices.sessions import Network, warmed_up
from onnx_models import load_catalogue
from server.settings import load_settings

MODEL = "realesr-animevideov3"
SIDES = (16, 64, 128)
CLIENTS = (1, 8, 32)
RAW = "raw "
"""What the names of those begin with that take and give pixels."""
Task = Callable[["Picture"], Awaitable[None]]
Open = Callable[[AsyncExitStack], Awaitable[Task]]


class Picture(NamedTuple):
    """What is sent: a photograph as JPEG, and its pixels with two sides of two bytes before them."""

    jpeg: bytes
    raw: bytes

    def of(self, peer: str) -> bytes:
        """What a peer takes."""
        return self.raw if peer.startswith(RAW) else self.unlike_others

    @property
    def unlike_others(self) -> bytes:
        """The JPEG with a comment of its own (T.81, B.2.4.5): a server may know an image again."""
        comment = uuid.uuid4().bytes
        return self.jpeg[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2) + comment + self.jpeg[2:]


class Peer(NamedTuple):
    """How a client of a peer begins, and the process that serves it."""

    open: Open
    pid: int


class Seen(NamedTuple):
    """What one turn of one peer showed: tasks per second, the seconds of each, and of processors for each."""

    rate: float
    times: list[float]
    busy: float


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
    state = "SQLite" if options.database is None else make_url(options.database).get_backend_name()
    name = "latency" if options.database is None else f"latency-{state}"
    report = Report(
        name, "side", "clients", "peer", "tasks/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms",
        "÷ bare tasks/s", "p50 - bare, ms", "p99 - bare, ms",
    )  # fmt: skip
    if options.database is not None:
        os.environ["TILEWIRE_DATABASE_URL"] = options.database
    with ExitStack() as stack:
        bare = stack.enter_context(Worker(Bare, picture(16).jpeg))
        uds = Path(stack.enter_context(tempfile.TemporaryDirectory()), "s.sock")
        server, port = stack.enter_context(tilewire("--models", MODEL, "--uds", str(uds)))
        opens: dict[str, Open] = {
            "JSON": lambda stack: over_json(stack, port),
            "MessagePack": lambda stack: over_messagepack(stack, port),
            f"{RAW}TCP": lambda stack: over_messagepack(stack, port, raw=True),
            f"{RAW}Unix": lambda stack: over_messagepack(stack, port, uds, raw=True),
        }
        if importlib.util.find_spec("runware") is None:
            report.say("Runware's SDK: it is not installed")
        else:
            opens["SDK, async"] = lambda stack: by_sdk(stack, port)
        peers = {name: Peer(open_task, server.pid) for name, open_task in opens.items()}
        try:
            pid, mosecs = stack.enter_context(mosec())
            peers |= {name: Peer(over_http(mosecs, name), pid) for name in ("mosec", f"{RAW}mosec")}
        except (AbsentError, TimeoutError) as error:
            report.say(f"mosec: {error}")
        for side in options.sides:
            measure(report, side, bare, peers, options)
    devices = ", ".join(device.name for device in find_devices())
    report.say(
        f"{options.rounds} rounds of {options.seconds:g} s each, medians of rounds; {MODEL} ×4 on {devices}"
    )
    report.say(f"state in {state}")
    report.keep()


def measure(
    report: Report, side: int, bare: Worker, peers: dict[str, Peer], options: argparse.Namespace
) -> None:
    """All peers with pictures of one size, in turns."""
    image = picture(side)
    alone: dict[str, list[Seen]] = defaultdict(list)
    seen: dict[tuple[int, str], list[Seen]] = defaultdict(list)
    for number in range(options.rounds):
        for clients in options.clients:
            for own in ("bare", f"{RAW}bare"):
                alone[own].append(in_a_loop(bare, lambda own=own: image.of(own), options.seconds))
            turns = list(peers.items())
            for name, peer in turns if number % 2 else reversed(turns):
                seen[clients, name].append(asyncio.run(in_turn(peer, image, clients, options.seconds)))
    for own, turns_of_it in alone.items():
        report.row(*row(side, 1, own, turns_of_it, turns_of_it))
    for clients in options.clients:
        for name in peers:
            own = f"{RAW}bare" if name.startswith(RAW) else "bare"
            report.row(*row(side, clients, name, seen[clients, name], alone[own]))


def row(side: int, clients: int, peer: str, seen: list[Seen], bare: list[Seen]) -> tuple[object, ...]:
    rate, alone = (median([one.rate for one in turns]) for turns in (seen, bare))
    (p50, p95, p99), (own50, _, own99) = (
        [1e3 * median([percentile(one.times, share) for one in turns]) for share in (0.5, 0.95, 0.99)]
        for turns in (seen, bare)
    )
    busy = 1e3 * median([one.busy for one in seen])
    return side, clients, peer, rate, p50, p95, p99, busy, rate / alone, p50 - own50, p99 - own99


def in_a_loop(bare: Worker, image: Callable[[], bytes], seconds: float) -> Seen:
    times = []
    busy, begun = cpu_seconds(bare.pid), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        times.append(bare.run(image()))
    return Seen(len(times) / sum(times), times, (cpu_seconds(bare.pid) - busy) / len(times))


async def in_turn(peer: Peer, image: Picture, clients: int, seconds: float) -> Seen:
    """Each client sends the next picture as soon as it has the last."""
    async with AsyncExitStack() as stack:
        tasks = [await peer.open(stack) for _ in range(clients)]
        for _ in range(3):
            await asyncio.gather(*(task(image) for task in tasks))
        times: list[float] = []
        busy, begun = cpu_seconds(peer.pid), time.perf_counter()

        async def client(task: Task) -> None:
            while (sent := time.perf_counter()) - begun < seconds:
                await task(image)
                times.append(time.perf_counter() - sent)

        await asyncio.gather(*map(client, tasks))
        took = time.perf_counter() - begun
        return Seen(len(times) / took, times, (cpu_seconds(peer.pid) - busy) / len(times))


async def over_json(stack: AsyncExitStack, port: int) -> Task:
    opening = connect(f"ws://127.0.0.1:{port}/v1", max_size=None, compression=None)
    socket = await stack.enter_async_context(opening)
    ask = await _authenticated(socket, msgspec.json.encode, msgspec.json.decode)

    async def upscale(image: Picture) -> None:
        reply = await ask(_task(base64.b64encode(image.unlike_others).decode(), outputType="base64Data"))
        assert reply["data"][0]["imageBase64Data"], reply

    return upscale


async def over_messagepack(
    stack: AsyncExitStack, port: int, uds: Path | None = None, *, raw: bool = False
) -> Task:
    where: dict[str, Any] = {} if uds is None else {"unix": True, "path": str(uds)}
    opening = connect(
        f"ws://127.0.0.1:{port}/v1",
        subprotocols=[Subprotocol("tilewire.msgpack")],
        max_size=None,
        compression=None,
        **where,
    )
    socket = await stack.enter_async_context(opening)
    ask = await _authenticated(socket, msgspec.msgpack.encode, msgspec.msgpack.decode)

    async def upscale(image: Picture) -> None:
        reply = await ask(_task(image.unlike_others, outputType="base64Data"))
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


async def by_sdk(stack: AsyncExitStack, port: int) -> Task:
    """Runware's SDK, asynchronously: the server acknowledges a task that takes a while."""
    import aiohttp  # noqa: PLC0415 - the SDK's own dependency
    from aiohttp.abc import AbstractResolver, ResolveResult  # noqa: PLC0415
    from runware import Runware  # noqa: PLC0415
    from runware.types.sdk import RuntimeDependencies  # noqa: PLC0415

    class NoNames(AbstractResolver):
        """Resolves nothing: the SDK looks models up on the internet, or else in its own list."""

        async def resolve(self, host: str, *_: Any, **__: Any) -> list[ResolveResult]:
            raise OSError(f"{host} is not looked up")

        async def close(self) -> None:
            pass

    session = await stack.enter_async_context(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoNames()))
    )
    client = Runware(
        api_key=KEY,
        transport="websocket",
        ws_base_url=f"ws://127.0.0.1:{port}/v1",
        dependencies=RuntimeDependencies(
            session=session, ws_connect=lambda url: connect(url, max_size=None, compression=None)
        ),
    )
    await stack.enter_async_context(client)

    async def upscale(image: Picture) -> None:
        given = f"data:image/jpeg;base64,{base64.b64encode(image.unlike_others).decode()}"
        task = _task(given, outputType="base64Data", deliveryMethod="async")
        (result,) = await client.run(task | {"model": f"tilewire:{MODEL}@1"})
        assert result["imageBase64Data"], result

    return upscale


def over_http(port: int, peer: str) -> Open:
    async def open_task(stack: AsyncExitStack) -> Task:
        pool = await stack.enter_async_context(httpcore.AsyncConnectionPool(max_connections=1))

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
def mosec() -> Iterator[tuple[int, int]]:
    """mosec's process and its port, with one worker.

    Raises:
        AbsentError: if it is not installed.
    """
    if importlib.util.find_spec("mosec") is None:
        raise AbsentError("it is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "serve.py")
        script.write_text(_MOSEC, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, str(script), "--port", str(port), "--timeout", "60000", "--log-level", "error"],
            env=os.environ | {"PYTHONPATH": os.getcwd()},  # noqa: PTH109 - where this package is
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(process, port, "metrics")
            yield process.pid, port
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
