"""What a well-behaved client notices while others attack the server, and what that costs memory.

    python -m benchmarks.hostile [--readers N] [--idle N] [--seconds S]

Slow readers ask for large results and read none; idle connections authenticate and say no more; then come
handshakes, pings and wrong keys as fast as one process can send them. Meanwhile a client of another address
and account sends pings, one after the other, and some small images. The limits are the defaults, except that
one account may have all the connections. It takes two to three minutes, on the loopback interface only.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.attacks import ATTACKS, FAST_MODEL, TEXT, authenticate, frame, receive, websocket
from benchmarks.fairness import make_key
from benchmarks.photos import jpeg, photograph
from benchmarks.report import Report, median, percentile, resident_memory, tilewire
from tilewire import Tilewire

PING = frame(TEXT, b'[{"taskType":"ping"}]')
UPSCALES = 5
SETTLE_SECONDS = 2
GIVE_UP_SECONDS = 60


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile")
    parser.add_argument("--readers", type=int, default=1000, help="connections that do not read")
    parser.add_argument("--idle", type=int, default=5000, help="connections that do nothing")
    parser.add_argument("--seconds", type=float, default=8, help="for which each attack is watched")
    options = parser.parse_args()
    counts = {"slow readers": options.readers, "idle": options.idle}
    report = Report(
        "hostile",
        "beside",
        "p50 ms",
        "p99 ms",
        "longest ms",
        "upscale s",
        "MB before",
        "MB at most",
        "MB after",
    )
    with tempfile.TemporaryDirectory() as data:
        key = make_key("well-behaved", data)
        config = Path(data) / "benchmark.toml"
        config.write_text(f"max_connections_per_account = {options.idle + options.readers}\n")
        with tilewire("--models", FAST_MODEL, "--config", str(config), data=data) as (server, port):
            trial = Trial(server.pid, port, key, options.seconds)
            report.row("nobody", *trial.alone())
            for name in ATTACKS:
                cells, outcome = trial.beside(name, counts.get(name, 0))
                report.row(name, *cells)
                report.say(f"    {outcome}")
            each = trial.growth["idle"] / options.idle
            report.say(f"an idle connection: {each / 1000:.1f} KB")
    report.say(
        f"each for {options.seconds:g} s; round trips of ping tasks; median of {UPSCALES} images of 64 × 64 "
        f"by {FAST_MODEL} ×4; memory of the server, at last {SETTLE_SECONDS} s after the attackers left"
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
        attack = subprocess.Popen([*command, str(self._seconds + 1)], stdout=subprocess.PIPE, text=True)
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

    def _row(self, before: int, round_trips: list[float], upscales: list[float]) -> list[object]:
        return [
            1e3 * median(round_trips),
            1e3 * percentile(round_trips, 0.99),
            1e3 * max(round_trips),
            median(upscales),
            *(f"{size / 1e6:.0f}" for size in (before, self._peak, resident_memory(self._server))),
        ]

    def _start_watching(self) -> int:
        self._peak = resident_memory(self._server)
        return self._peak

    async def _measure(self) -> tuple[list[float], list[float]]:
        """Round trips of pings, for as long as is asked, and then those of upscales; in seconds."""
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
        watching.cancel()
        return round_trips, upscales

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
