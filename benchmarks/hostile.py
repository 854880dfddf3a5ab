"""What a well-behaved client notices while others attack the server, and what that costs memory.

    python -m benchmarks.hostile [--readers N] [--idle N] [--seconds S]

Slow readers ask for large results and read none; idle connections authenticate and say no more; then come
handshakes, pings and wrong keys as fast as one process can send them. Meanwhile a client of another address
and account sends pings, one after the other, and some small images. The last attacks are 150 tasks at once
that wait for a host which never answers, for their inputs, uploads or webhooks; the well-behaved client has
its own input fetched, its result uploaded and its outcome told meanwhile: its p99 may be twice that without
company at most. The limits are the defaults, except that one account may have all the connections. It takes
three to four minutes, on the loopback interface only.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import msgspec

from benchmarks.attacks import ATTACKS, FAST_MODEL, TEXT, authenticate, frame, receive, websocket
from benchmarks.fairness import make_key
from benchmarks.photos import jpeg, photograph
from benchmarks.report import Report, median, percentile, resident_memory, tilewire
from tilewire import Tilewire

PING = frame(TEXT, b'[{"taskType":"ping"}]')
UPSCALES = 5
OUTWARD = 20
SETTLE_SECONDS = 2
GIVE_UP_SECONDS = 60


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile")
    parser.add_argument("--readers", type=int, default=1000, help="connections that do not read")
    parser.add_argument("--idle", type=int, default=5000, help="connections that do nothing")
    parser.add_argument("--seconds", type=float, default=8, help="for which each attack is watched")
    parser.add_argument("--only", nargs="+", choices=ATTACKS, help="these attacks, not all")
    options = parser.parse_args()
    counts = {"slow readers": options.readers, "idle": options.idle}
    report = Report(
        "hostile",
        "beside",
        "p50 ms",
        "p99 ms",
        "longest ms",
        "upscale s",
        "outward p99 ms",
        "× alone",
        "MB before",
        "MB at most",
        "MB after",
    )
    with tempfile.TemporaryDirectory() as data:
        key = make_key("well-behaved", data)
        config = Path(data) / "benchmark.toml"
        config.write_text(
            f"max_connections_per_account = {options.idle + options.readers}\nprivate_networks = true\n",
            encoding="utf-8",
        )
        with tilewire("--models", FAST_MODEL, "--config", str(config), data=data) as (server, port):
            trial = Trial(server.pid, port, key, options.seconds)
            report.row("nobody", *trial.alone())
            for name in options.only or ATTACKS:
                cells, outcome = trial.beside(name, counts.get(name, 0))
                report.row(name, *cells)
                report.say(f"    {outcome}")
            if "idle" in trial.growth:
                report.say(f"an idle connection: {trial.growth['idle'] / options.idle / 1000:.1f} KB")
    report.say(
        f"each for {options.seconds:g} s; round trips of ping tasks; median of {UPSCALES} images of 64 × 64 "
        f"by {FAST_MODEL} ×4; {OUTWARD} images by URL, uploaded and told by webhook, one after the other; "
        f"memory of the server, at last {SETTLE_SECONDS} s after the attackers left"
    )
    report.keep()


class Trial:
    """A server and its well-behaved client.

    Attributes:
        growth: of the server's memory beside each attack, in bytes.
    """

    def __init__(self, server: int, port: int, key: str, seconds: float) -> None:
        self._server = server
        self._port = port
        self._key = key
        self._seconds = seconds
        self._peak = 0
        self._outward_alone = 0.0
        self.growth: dict[str, int] = {}

    def alone(self) -> list[object]:
        """The cells of a row, without company."""
        asyncio.run(self._upscale())  # loads what is loaded once
        before = self._start_watching()
        return self._row(before, *asyncio.run(self._measure()))

    def beside(self, name: str, count: int) -> tuple[list[object], str]:
        """The cells of a row, and what the attackers tell."""
        before = self._start_watching()
        command = [sys.executable, "-m", "benchmarks.attacks", name, str(self._port), str(count)]
        attack = subprocess.Popen(
            [*command, str(self._seconds + 1)], stdout=subprocess.PIPE, encoding="utf-8"
        )
        assert attack.stdout is not None
        try:
            while attack.stdout.readline() != "ready\n":
                if attack.poll() is not None:
                    raise RuntimeError(f"the attack by {name} failed")
            measured = asyncio.run(self._measure())
            outcome, _ = attack.communicate(timeout=GIVE_UP_SECONDS)
        finally:
            attack.kill()
        self.growth[name] = self._peak - before
        time.sleep(SETTLE_SECONDS)
        return self._row(before, *measured), outcome.strip()

    def _row(
        self, before: int, round_trips: list[float], upscales: list[float], outward: list[float]
    ) -> list[object]:
        p99 = percentile(outward, 0.99)
        self._outward_alone = self._outward_alone or p99
        return [
            1e3 * median(round_trips),
            1e3 * percentile(round_trips, 0.99),
            1e3 * max(round_trips),
            median(upscales),
            1e3 * p99,
            f"{p99 / self._outward_alone:.2f}",
            *(f"{size / 1e6:.0f}" for size in (before, self._peak, resident_memory(self._server))),
        ]

    def _start_watching(self) -> int:
        self._peak = resident_memory(self._server)
        return self._peak

    async def _measure(self) -> tuple[list[float], list[float], list[float]]:
        """Round trips of pings, for as long as is asked, then those of upscales and of all ways out."""
        watching = asyncio.create_task(self._watch())
        round_trips = []
        async with websocket(self._port, "127.0.0.1") as (_, reader, writer):
            await authenticate(reader, writer, self._key)
            end = time.perf_counter() + self._seconds * 0.6
            while (begun := time.perf_counter()) < end:
                writer.write(PING)
                await receive(reader)
                round_trips.append(time.perf_counter() - begun)
                await asyncio.sleep(0.001)
        upscales = [await self._upscale(index) for index in range(UPSCALES)]
        outward = await self._outward()
        watching.cancel()
        return round_trips, upscales, outward

    async def _outward(self) -> list[float]:
        """Seconds from sending a task to its webhook: its input is fetched and its result uploaded."""
        image = jpeg(photograph(64))
        told: asyncio.Queue[None] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while head := await reader.readuntil(b"\r\n\r\n"):
                    if size := re.search(rb"content-length: (\d+)", head, re.IGNORECASE):
                        await reader.readexactly(int(size[1]))
                    body = image if head.startswith(b"GET") else b""
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                    if head.startswith(b"POST"):
                        told.put_nowait(None)

        seconds = []
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as outside:
            url = f"http://127.0.0.1:{outside.sockets[0].getsockname()[1]}"
            async with websocket(self._port, "127.0.0.1") as (_, reader, writer):
                await authenticate(reader, writer, self._key)
                for _ in range(OUTWARD):
                    task = {
                        "taskType": "upscale",
                        "taskUUID": str(uuid.uuid4()),
                        "model": FAST_MODEL,
                        "upscaleFactor": 4,
                        "inputs": {"image": f"{url}/image"},
                        "uploadEndpoint": f"{url}/result",
                        "webhookURL": f"{url}/hook",
                    }
                    begun = time.perf_counter()
                    writer.write(frame(TEXT, msgspec.json.encode([task])))
                    async with asyncio.timeout(GIVE_UP_SECONDS):
                        await told.get()
                    seconds.append(time.perf_counter() - begun)
        return seconds

    async def _upscale(self, index: int = 0) -> float:
        begun = time.perf_counter()
        async with Tilewire(f"ws://127.0.0.1:{self._port}/v1", self._key) as client:
            await client.upscale(jpeg(photograph(64, index)), model=FAST_MODEL, factor=4)
        return time.perf_counter() - begun

    async def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, resident_memory(self._server))
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    main()
