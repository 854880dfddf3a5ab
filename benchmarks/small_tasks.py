"""What a small task costs beside its pixels, against a bare loop and against a model server over HTTP.

    python -m benchmarks.small_tasks [--seconds 3] [--rounds 3] [--database URL]

Pictures of 16², 64² and 128² pixels go through animevideov3 at ×4, JPEG in and JPEG out, in closed loops of
1, 8 and 32 clients. The peers do the same work with the same session of the same runtime:

- the bare loop decodes, infers and encodes in one process, one picture after the other;
- mosec does so behind HTTP, without keeping anything; its worker is the bare loop's;
- Tilewire keeps each task and its result, charges it, and answers over one WebSocket for each client, in JSON
  with base64 and in MessagePack.

All of them are there from the start and take turns, so that whatever else the machine does meets all alike.
"""

import argparse
import asyncio
import base64
import importlib.util
import io
import os
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

from benchmarks.photos import jpeg, photograph
from benchmarks.report import KEY, Report, free_port, median, percentile, tilewire, wait_until_ready
from benchmarks.workers import AbsentError, Worker
from engines import find_devices
from engines.devices.sessions import Network, warmed_up
from onnx_models import load_catalogue
from server.settings import load_settings

MODEL = "realesr-animevideov3"
SIDES = (16, 64, 128)
CLIENTS = (1, 8, 32)
PEERS = ("Tilewire", "MessagePack", "bare", "mosec")
Task = Callable[[bytes], Awaitable[None]]
Open = Callable[[], Awaitable[Task]]


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
        pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
        (upscaled,) = self._session.run(pixels[np.newaxis])
        buffer = io.BytesIO()
        Image.fromarray(upscaled).save(buffer, "JPEG", quality=95, subsampling=0)
        return base64.b64encode(buffer.getvalue())


def main(seconds: float, rounds: int, database: str | None) -> None:
    """Measure, print, keep."""
    columns = "side", "clients", "peer", "tasks/s", "p50 ms", "p95 ms", "÷ bare tasks/s", "p50 - bare, ms"
    report = Report("small_tasks", *columns)
    images = {side: jpeg(photograph(side)) for side in SIDES}
    if database is not None:
        os.environ["TILEWIRE_DATABASE_URL"] = database
    with ExitStack() as stack:
        bare = stack.enter_context(Worker(Bare, images[16]))
        _, port = stack.enter_context(tilewire("--models", MODEL))
        opens: dict[str, Open] = {
            "Tilewire": lambda: over_json(port),
            "MessagePack": lambda: over_messagepack(port),
        }
        try:
            opens["mosec"] = over_http(stack.enter_context(mosec()))
        except AbsentError as error:
            report.say(f"mosec: {error}")
        for side in SIDES:
            alone: list[Seen] = []
            for clients in CLIENTS:
                seen: dict[str, list[Seen]] = defaultdict(list)
                for _ in range(rounds):
                    alone.append(in_a_loop(bare, images[side], seconds))
                    for peer, open_task in opens.items():
                        seen[peer].append(asyncio.run(in_turn(open_task, images[side], clients, seconds)))
                for peer in (name for name in PEERS if name in seen or (name == "bare" and clients == 1)):
                    report.row(*row(side, clients, peer, alone if peer == "bare" else seen[peer], alone))
    devices = ", ".join(device.name for device in find_devices())
    report.say(f"{rounds} rounds of {seconds:g} s each, medians of rounds; {MODEL} ×4 on {devices}")
    report.say(f"state in {'SQLite' if database is None else database.partition(':')[0]}")
    report.keep()


def row(side: int, clients: int, peer: str, seen: list[Seen], bare: list[Seen]) -> tuple[object, ...]:
    rate, alone = (median([one.rate for one in turns]) for turns in (seen, bare))
    p50, p95, own = (
        1e3 * median([percentile(one.times, share) for one in turns])
        for turns, share in ((seen, 0.5), (seen, 0.95), (bare, 0.5))
    )
    return side, clients, peer, rate, p50, p95, rate / alone, p50 - own


def in_a_loop(bare: Worker, image: bytes, seconds: float) -> Seen:
    times = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        times.append(bare.run(image))
    return Seen(len(times) / sum(times), times)


async def in_turn(open_task: Open, image: bytes, clients: int, seconds: float) -> Seen:
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
    return await _over_socket(socket, msgspec.json.encode, msgspec.json.decode, base64.b64encode)


async def over_messagepack(port: int) -> Task:
    socket = await connect(
        f"ws://127.0.0.1:{port}/v1", subprotocols=["tilewire.msgpack"], max_size=None, compression=None
    )
    return await _over_socket(socket, msgspec.msgpack.encode, msgspec.msgpack.decode, bytes)


async def _over_socket(
    socket: ClientConnection,
    encode: Callable[[Any], bytes],
    decode: Callable[[Any], Any],
    as_image: Callable[[bytes], bytes],
) -> Task:
    text = socket.subprotocol is None

    async def ask(task: dict[str, Any]) -> dict[str, Any]:
        await socket.send(encode([task]), text=text)
        reply: dict[str, Any] = decode(await socket.recv())
        return reply

    await ask({"taskType": "authentication", "apiKey": KEY})

    async def upscale(image: bytes) -> None:
        given = as_image(image)
        reply = await ask(
            {
                "taskType": "upscale",
                "taskUUID": str(uuid.uuid4()),
                "model": MODEL,
                "upscaleFactor": 4,
                "inputs": {"image": given.decode() if text else given},
                "outputType": "base64Data",
            }
        )
        assert reply["data"][0]["imageBase64Data"], reply

    return upscale


def over_http(port: int) -> Open:
    async def open_task() -> Task:
        pool = httpcore.AsyncConnectionPool(max_connections=1)

        async def upscale(image: bytes) -> None:
            response = await pool.request("POST", f"http://127.0.0.1:{port}/inference", content=image)
            assert response.status == 200, response.content

        return upscale

    return open_task


_MOSEC = """
from mosec import Server, Worker
from benchmarks.small_tasks import Bare

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
            wait_until_ready(port, "metrics")
            yield port
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", help="such as postgresql://…; default: SQLite")
    arguments = parser.parse_args()
    main(arguments.seconds, arguments.rounds, arguments.database)
