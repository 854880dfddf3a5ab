"""How long an icon takes while large images keep the queue full, against how long it takes alone.

    python -m benchmarks.fairness [--model NAME] [--large SIDE] [--icon SIDE] [--backlog N] [--icons N]
        [--rounds N] [--patience SECONDS]

Every round measures a large image alone, then icons alone, icons beside a backlog of large images of another
account, and icons beside one of their own account. A backlog is N tasks that are under way at once, each
replaced when it is done; the default is more than the server works on at once (`active_megapixels`). Icons
come one at a time, after a random pause of up to a batch, so that they meet the device at any moment.

The aim: 95 % of the icons take at most twice what they take alone, plus one batch that has already begun.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from itertools import pairwise
from typing import Any

import msgspec
from rich.console import Console
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.photos import jpeg, photograph
from benchmarks.report import KEY, Report, median, peak_memory, percentile, tilewire
from server.protocol.codec import SUBPROTOCOL
from tilewire import Progress, Tilewire

SCALE = 4


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness")
    parser.add_argument("--model", default="realesr-animevideov3")
    parser.add_argument("--large", type=int, default=1024, help="side of the large images, in pixels")
    parser.add_argument("--icon", type=int, default=128, help="side of the icons, in pixels")
    parser.add_argument("--backlog", type=int, default=20, help="how many large images at once")
    parser.add_argument("--icons", type=int, default=8, help="how many are measured in each part of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=60, help="seconds after which an icon is given up")
    options = parser.parse_args()
    columns = ("icons".rjust(26), "measured", "p50 s", "p95 s", "worst s", "p95 / alone", "aim s", "met")
    report = Report("fairness", *columns)
    with tempfile.TemporaryDirectory() as data:
        other_key = make_key("another account", data)
        with tilewire("--models", options.model, data=data) as (server, port):
            trial = Trial(port, options)
            with Console(stderr=True).status("") as status:
                asyncio.run(trial.run(other_key, status.update))
            peak = peak_memory(server.pid)
    report_icons(report, trial)
    report.say(
        f"icons of {options.icon} × {options.icon} pixels, "
        f"{options.backlog} tasks of {options.large} × {options.large}, {options.model} ×{SCALE}, "
        f"alternating rounds: {options.rounds}"
    )
    report.say(
        f"a large image alone: {median(trial.large):.3g} s, its longest batch: {trial.batch:.3g} s; "
        "aim: p95 at most 2 × alone + one batch"
    )
    report.say(f"resident memory of the server at most {peak / 1e6:.0f} MB")
    report.keep()


def report_icons(report: Report, trial: "Trial") -> None:
    """One row for each kind of company."""
    alone = percentile(trial.alone, 0.95)
    aim = 2 * alone + trial.batch
    rows = {
        "alone": trial.alone,
        "beside another account's": trial.beside_others,
        "beside their own account's": trial.beside_own,
    }
    for name, seconds in rows.items():
        shown = [
            f"> {value:.0f}" if value >= trial.patience else value
            for value in (percentile(seconds, 0.5), percentile(seconds, 0.95), max(seconds))
        ]
        p95 = percentile(seconds, 0.95)
        verdict = ["", ""] if seconds is trial.alone else [aim, "yes" if p95 <= aim else "NO"]
        report.row(name, len(seconds), *shown, p95 / alone, *verdict)


class Trial:
    """The rounds, and what they measured; all in seconds."""

    def __init__(self, port: int, options: argparse.Namespace) -> None:
        self.alone: list[float] = []
        self.beside_others: list[float] = []
        self.beside_own: list[float] = []
        self.large: list[float] = []
        self.patience: float = options.patience
        self._batches: list[float] = []
        self._url = f"ws://127.0.0.1:{port}/v1"
        self._options = options
        self._large = jpeg(photograph(options.large))
        self._random = random.Random(1)  # noqa: S311 - the same pauses in every run

    @property
    def batch(self) -> float:
        """The longest time between two signs of progress of a large image alone."""
        return median(self._batches)

    async def run(self, other_key: str, say: Callable[[str], None]) -> None:
        """All rounds."""
        for number in range(1, self._options.rounds + 1):
            say(f"round {number}: a large image alone")
            await self._measure_large()
            for name, key, latencies in (
                ("alone", None, self.alone),
                ("beside another account's", other_key, self.beside_others),
                ("beside their own account's", KEY, self.beside_own),
            ):
                say(f"round {number}: icons {name}")
                async with nullcontext() if key is None else self._backlog(key):
                    await self._measure_icons(latencies)

    async def _measure_large(self) -> None:
        stamps = [time.perf_counter()]
        async with Tilewire(self._url, KEY) as tilewire:
            stream = tilewire.events(self._large, tiles=False, model=self._options.model, factor=SCALE)
            async for event in stream:
                if isinstance(event, Progress):
                    stamps.append(time.perf_counter())
        self.large.append(time.perf_counter() - stamps[0])
        gaps = (after - before for before, after in pairwise(stamps))
        self._batches.append(max(gaps, default=self.large[-1]))

    async def _measure_icons(self, latencies: list[float]) -> None:
        """One after the other. The first is not counted: it may meet what was running before."""
        async with Tilewire(self._url, KEY) as tilewire:
            for index in range(self._options.icons + 1):
                image = jpeg(photograph(self._options.icon, index))
                await asyncio.sleep(self._random.uniform(0, self.batch))
                begun = time.perf_counter()
                try:
                    async with asyncio.timeout(self.patience):
                        await tilewire.upscale(image, model=self._options.model, factor=SCALE)
                except TimeoutError:
                    latencies.append(self.patience)
                    return  # the ones after it would not fare better
                if index:
                    latencies.append(time.perf_counter() - begun)

    @asynccontextmanager
    async def _backlog(self, key: str) -> AsyncIterator[None]:
        """Large tasks of the key's account are under way during the block, and cancelled after it."""
        protocol = [Subprotocol(SUBPROTOCOL)]
        async with connect(self._url, subprotocols=protocol, compression=None, max_size=None) as socket:
            await ask(socket, {"taskType": "authentication", "apiKey": key})
            upload = {"taskType": "imageUpload", "taskUUID": str(uuid.uuid4()), "image": self._large}
            image: str = (await ask(socket, upload))["imageUUID"]
            backlog = Backlog(socket, image, self._options)
            feeder = asyncio.create_task(backlog.feed())
            try:
                yield
            finally:
                await backlog.cancel()
                await feeder


class Backlog:
    """Large tasks on one connection."""

    def __init__(self, socket: ClientConnection, image: str, options: argparse.Namespace) -> None:
        self._socket = socket
        self._image = image
        self._options = options
        self._waiting: dict[str, None] = {}
        self._stopping = False

    async def feed(self) -> None:
        """Keep tasks under way until they are cancelled, and the server has said so."""
        for _ in range(self._options.backlog):
            await self._add()
        while self._waiting:
            for item in await receive(self._socket):
                if not self._stopping:
                    raise_error(item)
                    await self._add()
                self._waiting.pop(item["taskUUID"], None)

    async def cancel(self) -> None:
        """Cancel what is under way; the newest first, so that none begins in place of another."""
        self._stopping = True
        for target in reversed(list(self._waiting)):
            cancel = {"taskType": "cancel", "taskUUID": str(uuid.uuid4()), "targetTaskUUID": target}
            await self._socket.send(msgspec.msgpack.encode([cancel]))

    async def _add(self) -> None:
        if self._stopping:
            return
        task = {
            "taskType": "upscale",
            "taskUUID": str(uuid.uuid4()),
            "model": self._options.model,
            "inputs": {"image": self._image},
            "upscaleFactor": SCALE,
        }
        self._waiting[task["taskUUID"]] = None
        await self._socket.send(msgspec.msgpack.encode([task]))


async def ask(socket: ClientConnection, task: dict[str, Any]) -> dict[str, Any]:
    """Send one task and give its reply."""
    await socket.send(msgspec.msgpack.encode([task]))
    (item,) = await receive(socket)
    raise_error(item)
    return item


async def receive(socket: ClientConnection) -> list[dict[str, Any]]:
    """The items of the next frame."""
    frame = await socket.recv(decode=False)
    message = msgspec.msgpack.decode(frame)
    items: list[dict[str, Any]] = [*message.get("data", []), *message.get("errors", [])]
    return items


def raise_error(item: dict[str, Any]) -> None:
    if "message" in item:
        raise RuntimeError(f"the server refused a task: {item['message']}")


def make_key(account: str, data: str) -> str:
    """A key of another account, in the data directory of a server that is yet to start."""
    command = [sys.executable, "-m", "server", "keys", "create", "--account", account]
    command += ["--credit", "unlimited", "--data", data]
    return subprocess.check_output(command, encoding="utf-8").strip()


if __name__ == "__main__":
    main()
