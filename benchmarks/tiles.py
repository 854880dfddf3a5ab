"""How soon a client sees something with `includeTiles`, and what that costs the result.

    python -m benchmarks.tiles [--model NAME] [--sides PIXELS ...] [--rounds N]

A client sends the same photograph with and without `includeTiles`, in turns; which comes first alternates
from round to round. Times are from the sending of the task, image included, until its first tile and until
its result are received; results come as bytes over the same socket.

The aim: the result at most 5 % later than without tiles. An image that the network takes in one run has its
first tile only when all is computed: to cut it smaller would cost more than that, as tiles overlap.
"""

import argparse
import asyncio
import time

from rich.console import Console

from benchmarks.photos import jpeg, photograph
from benchmarks.report import KEY, Report, median, tilewire
from tilewire import Result, TileReady, Tilewire

SCALE = 4


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiles")
    parser.add_argument("--model", default="realesr-animevideov3")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024], help="of the images sent")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    columns = (
        "image",
        "tiles sent",
        "first tile s",
        "with tiles s",
        "without s",
        "first/without",
        "with/without",
    )
    report = Report(f"tiles-{options.model}", *columns)
    with (
        tilewire("--models", options.model) as (_, port),
        Console(stderr=True).status("warming up") as status,
    ):
        asyncio.run(upscale(port, options.model, jpeg(photograph(options.sides[0])), tiles=True))
        for side in options.sides:
            image = jpeg(photograph(side))
            trial = Trial()
            for number in range(1, options.rounds + 1):
                status.update(f"{side} × {side}, round {number}")
                for tiles in (True, False) if number % 2 else (False, True):
                    trial.note(asyncio.run(upscale(port, options.model, image, tiles=tiles)), tiles=tiles)
            report.row(f"{side} × {side}", *trial.cells())
    report.say(
        f"{options.model} ×{SCALE}, JPEG in and out; medians of {options.rounds} alternating rounds, "
        "ratios within each round"
    )
    report.keep()


class Trial:
    """What was measured with images of one size; all in seconds."""

    def __init__(self) -> None:
        self._sent: list[int] = []
        self._first: list[float] = []
        self._with: list[float] = []
        self._without: list[float] = []

    def note(self, stamps: list[float], *, tiles: bool) -> None:
        """The times at which one task's tiles came and, last, its result."""
        if not tiles:
            self._without.append(stamps[-1])
            return
        self._with.append(stamps[-1])
        self._sent.append(len(stamps) - 1)
        self._first.append(stamps[0])  # the result's, where no tile came before it

    def cells(self) -> list[object]:
        """Of the table's row, after the first."""
        return [
            f"{min(self._sent)} to {max(self._sent)}",
            *(median(seconds) for seconds in (self._first, self._with, self._without)),
            *(
                median([a / b for a, b in zip(seconds, self._without, strict=True)])
                for seconds in (self._first, self._with)
            ),
        ]


async def upscale(port: int, model: str, image: bytes, *, tiles: bool) -> list[float]:
    """Seconds until each tile, and last until the result."""
    stamps: list[float] = []
    async with Tilewire(f"ws://127.0.0.1:{port}/v1", KEY) as tilewire:
        begun = time.perf_counter()
        if tiles:
            async for event in tilewire.events(image, model=model, factor=SCALE):
                if isinstance(event, TileReady | Result):
                    stamps.append(time.perf_counter() - begun)
        else:
            await tilewire.upscale(image, model=model, factor=SCALE)
            stamps.append(time.perf_counter() - begun)
    return stamps


if __name__ == "__main__":
    main()
