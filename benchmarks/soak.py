"""Minutes of mixed load, and then none: what a server takes in memory, threads, descriptors and disk.

    python -m benchmarks.soak [--seconds N] [--idle N] [--sockets N] [--model NAME]

Sockets send photographs of several sizes one after the other, as bytes, as uploads that are used again, with
and without the image in the reply; some tasks are cancelled, some clients leave and come back, one asks by
POST with a webhook. Results live for 30 seconds. Every second the server's processes are looked at. After the
load there is silence; at its end resident memory should be at most 1.3 times what it was at the start.

It exits with 1 if a task failed, a webhook did not come, or memory, threads or descriptors did not go back.
"""

import argparse
import asyncio
import base64
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpcore
import msgspec
import psutil

from benchmarks.photos import jpeg, photograph
from benchmarks.report import KEY, Report, median, percentile, tilewire
from tilewire import Tilewire

MODEL = "realesr-animevideov3"
SIDES = {32: 0.5, 128: 0.3, 384: 0.15, 1024: 0.05}
"""Sides of the photographs, and how many of the tasks have each."""
TTL = 30
SWEPT_WITHIN = TTL + 75
"""Seconds until an expired file is gone: the sweep comes once a minute."""
MOST_MEMORY = 1.3
MOST_THREADS = 24
"""More than at the start: pools keep their threads, 16 for the store, some for all else."""
MOST_FILES = 16
"""More than at the start."""


class Look(NamedTuple):
    """What the server and its decoders have at one moment; memory and disk in MB."""

    at: float
    memory: float
    threads: int
    files: int
    disk: float


class Load:
    """What the clients did.

    Attributes:
        seconds: of each task, by the side of its photograph.
        failed: what went wrong, and how often.
        sent: ids of tasks with a webhook.
        came: those whose webhook arrived.
    """

    def __init__(self, port: int, seconds: float, model: str) -> None:
        self.port, self.model = port, model
        self.ends = time.monotonic() + seconds
        self.seconds: defaultdict[int, list[float]] = defaultdict(list)
        self.failed: Counter[str] = Counter()
        self.sent: set[str] = set()
        self.came: set[str] = set()
        self.cancelled = 0

    async def run(self, sockets: int) -> None:
        """Send until the time is over."""
        async with self.receiver() as hook, asyncio.TaskGroup() as group:
            for number in range(sockets):
                group.create_task(self.client(number))
            group.create_task(self.poster(hook))
        self.failed["webhook did not come"] += len(self.sent - self.came)

    async def client(self, number: int) -> None:
        """One socket after the other, each for some tasks."""
        chance = random.Random(number)  # noqa: S311 - it mixes the load
        while time.monotonic() < self.ends:
            async with Tilewire(f"ws://127.0.0.1:{self.port}/v1", KEY) as server:
                for _ in range(chance.randrange(3, 30)):
                    if time.monotonic() >= self.ends:
                        return
                    await self.one(server, chance)

    async def one(self, server: Tilewire, chance: random.Random) -> None:
        (side,) = chance.choices(list(SIDES), list(SIDES.values()))
        source: object = jpeg(photograph(side, chance.randrange(1000)))
        try:
            if chance.random() < 0.2:
                source = await server.upload(source, ttl=TTL)  # type: ignore[arg-type]
            work = server.upscale(
                source,  # type: ignore[arg-type]
                model=self.model,
                factor=2,
                output_format=chance.choice(["JPG", "PNG", "WEBP"]),
                include_image=chance.random() < 0.7,
                ttl=TTL,
            )
            if chance.random() < 0.05:
                await self.give_up(work, chance.random() / 5)
                return
            begun = time.perf_counter()
            await work
            self.seconds[side].append(time.perf_counter() - begun)
        except Exception as error:  # noqa: BLE001 - it is what is counted
            self.failed[f"{type(error).__name__}: {error}"[:100]] += 1

    async def give_up(self, work: object, after: float) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[arg-type]
        await asyncio.wait([task], timeout=after)
        self.cancelled += task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def poster(self, hook: str) -> None:
        """Tasks by POST, each with a webhook."""
        chance = random.Random("poster")  # noqa: S311
        async with httpcore.AsyncConnectionPool() as pool:
            while time.monotonic() < self.ends:
                picture = base64.b64encode(jpeg(photograph(128, chance.randrange(1000)))).decode()
                task = {
                    "taskType": "upscale", "taskUUID": str(uuid4()), "model": self.model, "upscaleFactor": 2,
                    "inputs": {"image": picture}, "ttl": TTL, "webhookURL": hook,
                }  # fmt: skip
                answer = await pool.request(
                    "POST", f"http://127.0.0.1:{self.port}/v1", content=msgspec.json.encode([task]),
                    headers={"Authorization": f"Bearer {KEY}"}, extensions={"timeout": {"read": 600}},
                )  # fmt: skip
                if answer.status != 200:
                    self.failed[f"POST: {answer.status}"] += 1
                else:
                    self.sent.add(task["taskUUID"])  # type: ignore[arg-type]
                await asyncio.sleep(0.5)
        for _ in range(300):
            if self.sent <= self.came:
                return
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def receiver(self) -> AsyncIterator[str]:
        """A server that webhooks are sent to; its URL."""

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
            except asyncio.IncompleteReadError:  # only looked whether somebody is there
                writer.close()
                return
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            for item in msgspec.json.decode(await reader.readexactly(length))["data"]:
                self.came.add(item["taskUUID"])
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        listening = await asyncio.start_server(take, "127.0.0.1", 0)
        async with listening:
            yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"


async def watch(server: psutil.Process, data: Path, looks: list[Look]) -> None:
    """Look once a second, for ever."""
    while True:
        looks.append(await asyncio.to_thread(look, server, data))
        await asyncio.sleep(1)


def look(server: psutil.Process, data: Path) -> Look:
    memory = threads = files = 0
    for process in (server, *server.children(recursive=True)):
        try:
            memory += process.memory_info().rss
            threads += process.num_threads()
            files += process.num_fds()
        except psutil.NoSuchProcess:
            continue
    disk = 0
    for file in data.rglob("*"):
        try:
            disk += file.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return Look(time.monotonic(), memory / 1e6, threads, files, disk / 1e6)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--seconds", type=float, default=300, help="of load")
    parser.add_argument("--idle", type=float, default=SWEPT_WITHIN + 15, help="seconds of silence behind it")
    parser.add_argument("--sockets", type=int, default=20)
    parser.add_argument("--model", default=MODEL)
    options = parser.parse_args()
    report = Report("soak", "", "MB", "threads", "files", "MB on disk")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "soak.toml"
        config.write_text("private_networks = true\n", encoding="utf-8")
        data = Path(folder) / "data"
        with tilewire("--models", options.model, "--config", str(config), data=str(data)) as (server, port):
            start, looks, load = asyncio.run(soak(psutil.Process(server.pid), port, data, options))
    middle = [one for one in looks if one.at <= load.ends]
    most = Look(0, *(max(one[index] for one in middle) for index in range(1, 5)))
    for name, one in (("start", start), ("most under load", most), ("after the silence", looks[-1])):
        report.row(name, *one[1:])
    for side, seconds in sorted(load.seconds.items()):
        report.say(
            f"{side} × {side}: {len(seconds)} tasks, p50 {median(seconds):.2f} s, "
            f"p95 {percentile(seconds, 0.95):.2f} s, longest {max(seconds):.2f} s"
        )
    report.say(
        f"{options.model}, {options.sockets} sockets for {options.seconds:g} s, silence {options.idle:g} s; "
        f"given up: {load.cancelled}; webhooks: {len(load.came)} of {len(load.sent)}"
    )
    wrong = [f"{count} × {what}" for what, count in load.failed.items() if count] + too_much(start, looks[-1])
    report.say("; ".join(wrong) or "nothing failed, and all went back")
    report.keep()
    sys.exit(bool(wrong))


async def soak(
    server: psutil.Process, port: int, data: Path, options: argparse.Namespace
) -> tuple[Look, list[Look], Load]:
    """The start, each second's look, and what the clients did."""
    async with Tilewire(f"ws://127.0.0.1:{port}/v1", KEY) as first:
        await first.upscale(jpeg(photograph(32)), model=options.model, factor=2, ttl=TTL)
    start, looks = look(server, data), list[Look]()
    watching = asyncio.create_task(watch(server, data, looks))
    load = Load(port, options.seconds, options.model)
    await load.run(options.sockets)
    await asyncio.sleep(options.idle)
    watching.cancel()
    return start, looks, load


def too_much(start: Look, end: Look) -> list[str]:
    """What did not go back."""
    wrong = []
    if end.memory > MOST_MEMORY * start.memory:
        wrong.append(f"memory is {end.memory / start.memory:.2f} × the start")
    if end.threads > start.threads + MOST_THREADS:
        wrong.append(f"threads grew from {start.threads} to {end.threads}")
    if end.files > start.files + MOST_FILES:
        wrong.append(f"open files grew from {start.files} to {end.files}")
    return wrong


if __name__ == "__main__":
    main()
