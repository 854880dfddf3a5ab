"""How throughput grows with the nodes of a Ray cluster, and what a batch costs beside its run.

    python -m benchmarks.scale_out [--nodes 1 2 4 8] [--wait MS] [--batch N] [--seconds S]

All nodes are on this machine, so their devices only wait: a batch takes as long as it would take a GPU, and
the processor is left to what is measured, the executor, Ray and the copies of the tiles. Efficiency is the
throughput of N nodes by N times that of one.

1. Tiles a second with 1, 2, 4 and 8 nodes, of many tasks at once.
2. The time of one batch that does not wait at all, from its submission to its result, by the local executor
   and by Ray: the difference is the overhead of a batch.
3. A photograph on the CPUs of two nodes, and on this machine alone: are the pixels the same?
"""

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.photos import photograph
from benchmarks.report import Report, percentile
from engines import ClusterOptions, Picture, RayCluster, Upscaler
from engines.devices.find import find_devices
from engines.devices.sessions import Network
from engines.ray.connection import Connection
from engines.ray.host import DeviceHost, Wanted
from engines.scheduling.executor import Executor
from engines.scheduling.work import TileKey
from onnx_models import load_catalogue

SCALE = 4
SIDE, LARGE = 64, 256
CLIENTS = 4
"""For each node, each with a batch at a time: two run or are on their way, two wait."""
MODEL = "realesr-animevideov3"
PHOTOGRAPH = 1000
NOISE = np.random.default_rng(0).integers(0, 256, (LARGE, LARGE, 3), np.uint8)
STORE = 128 << 20
"""Bytes of each node's object store."""


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_out")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--wait", type=float, default=200, help="milliseconds that a batch takes")
    parser.add_argument("--batch", type=int, default=8, help="tiles of a batch")
    parser.add_argument("--seconds", type=float, default=8, help="to measure for, each time")
    parser.add_argument("--batches", type=int, default=200, help="of which the overhead is taken")
    options = parser.parse_args()
    report = Report("scale_out", "nodes", "tiles/s", "MP/s out", "efficiency", "batch p50 ms")
    with tempfile.TemporaryDirectory() as folder:
        network = Network(Path(folder) / "waits.onnx", SCALE, SIDE)
        network.path.write_bytes(b"nothing to run")
        rates: dict[int, float] = {}
        for count in options.nodes:
            with (
                cluster(count) as address,
                joined(address, options.wait / 1000, options.batch, count) as executor,
            ):
                rate, each = throughput(executor, network, options, count)
            rates[count] = rate
            first = min(rates)
            efficiency = rate / count / (rates[first] / first)
            report.row(count, rate, rate * (SIDE * SCALE) ** 2 / 1e6, efficiency, 1000 * each)
        overhead(report, network, options)
        pixels(report, Path(folder))
    report.say(
        f"a batch: {options.batch} tiles of {SIDE} × {SIDE} pixels, {options.wait:g} ms; all on this machine"
    )
    report.keep()


def throughput(
    executor: Executor, network: Network, options: argparse.Namespace, nodes: int
) -> tuple[float, float]:
    """Tiles a second, by the line that fits best, and the median seconds that a batch waited and ran."""
    key = TileKey(network, SIDE, SIDE)
    executor.load(network)
    tiles_done: list[float] = []
    took: list[float] = []
    stop = threading.Event()

    def client(number: int) -> None:
        turn = 0
        while not stop.is_set():
            tiles = [Tile(done=tiles_done) for _ in range(options.batch)]
            begun = time.perf_counter()
            executor.submit(number, (number, turn), key, tiles)
            for tile in tiles:
                tile.ended.wait()
            took.append(time.perf_counter() - begun)
            turn += 1

    clients = [threading.Thread(target=client, args=[number]) for number in range(CLIENTS * nodes)]
    for thread in clients:
        thread.start()
    time.sleep(options.wait / 1000 * CLIENTS)  # until all is under way
    begun = time.perf_counter()
    time.sleep(options.seconds)
    ended = time.perf_counter()
    stop.set()
    for thread in clients:
        thread.join()
    moments = np.array(sorted(moment for moment in tiles_done if begun <= moment <= ended))
    rate = float(np.polyfit(moments - begun, np.arange(len(moments)), 1)[0])
    return rate, statistics.median(took)


def overhead(report: Report, network: Network, options: argparse.Namespace) -> None:
    """Lines for a tile, a batch, and a batch of large tiles at a time: the local executor, and Ray."""
    local = Executor([WaitingDevice(0.0, options.batch)])
    with cluster(1) as address, joined(address, 0.0, options.batch, 1) as distant:
        for count, side in ((1, SIDE), (options.batch, SIDE), (options.batch, LARGE)):
            batches = options.batches if side == SIDE else options.batches // 5
            times = {
                name: one_by_one(executor, network, count, side, batches)
                for name, executor in (("local", local), ("Ray", distant))
            }
            here, there = (percentile(each, 0.5) for each in times.values())
            slow = percentile(times["Ray"], 0.95) - percentile(times["local"], 0.95)
            came = count * 3 * (SCALE * side) ** 2 / 1e6
            report.say(
                f"{count} of {side} × {side}, {came:.3g} MB come back: local p50 {1000 * here:.2f} ms, "
                f"Ray p50 {1000 * there:.2f} ms; overhead p50 {1000 * (there - here):.2f} ms, "
                f"p95 {1000 * slow:.2f} ms, {came / there:.0f} MB/s"
            )
    local.close()


def one_by_one(executor: Executor, network: Network, count: int, side: int, batches: int) -> list[float]:
    """Seconds of each batch, one after the other; the first ones do not count."""
    executor.load(network)
    key, seconds = TileKey(network, side, side), []
    for number in range(batches + 20):
        tiles = [Tile(side) for _ in range(count)]
        begun = time.perf_counter()
        executor.submit("", ("one", number), key, tiles)
        for tile in tiles:
            tile.ended.wait()
        seconds.append(time.perf_counter() - begun)
    return seconds[20:]


def pixels(report: Report, model_directory: Path) -> None:
    """A line that says whether two nodes make of a photograph what this machine makes of it."""
    model, picture = load_catalogue().get(MODEL), Picture(pixels=photograph(PHOTOGRAPH))
    size = {"width": SCALE * PHOTOGRAPH, "height": SCALE * PHOTOGRAPH}

    def upscaled(upscaler: Upscaler) -> tuple[NDArray[np.uint8], float]:
        upscaler.load(model)
        begun = time.perf_counter()
        result = asyncio.run(upscaler.upscale(picture, model, **size))
        return result.pixels, time.perf_counter() - begun

    local = Upscaler(find_devices("cpu", cores=1), model_directory)
    here, alone = upscaled(local)
    local.close()
    with cluster(2) as address:
        distant = Upscaler((), model_directory)
        distant.join(RayCluster(ClusterOptions(address=address)))
        there, together = upscaled(distant)
        distant.close()
    same = "the same pixels" if np.array_equal(here, there) else "OTHER PIXELS"
    report.say(
        f"{MODEL}, {PHOTOGRAPH} × {PHOTOGRAPH}: {alone:.1f} s with one core here, "
        f"{together:.1f} s on two nodes of one core each; {same}"
    )


@contextmanager
def cluster(count: int) -> Iterator[str]:
    """The address of a new cluster of so many nodes of one CPU, beside a head that computes nothing."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - Ray is optional

    nodes = Cluster()
    try:
        for cpus in (0, *[1] * count):
            nodes.add_node(num_cpus=cpus, object_store_memory=STORE, include_dashboard=False)
        yield nodes.address
    finally:
        nodes.shutdown()


@contextmanager
def joined(address: str, wait: float, batch: int, count: int) -> Iterator[Executor]:
    """An executor with devices that wait so many seconds, on all nodes of a cluster."""
    kind, options = "benchmarks.scale_out:WaitingHost", {"wait": wait, "batch": batch}
    connect = partial(Connection, kind=kind, options=options)
    nodes = RayCluster(ClusterOptions(address=address), connect=connect)
    executor = Executor([])
    try:
        nodes.start(executor)
        while len(executor.devices) < count:
            time.sleep(0.1)
        yield executor
    finally:
        executor.close()
        nodes.close()


class WaitingDevice:
    """Repeats pixels, after a while."""

    name = kind = "waits"

    def __init__(self, wait: float, largest_batch: int) -> None:
        self._wait, self.largest_batch = wait, largest_batch

    def side_by_side(self, _network: Network) -> bool:
        return False

    def memory_use(self) -> None: ...

    def open(self, _network: Network) -> "WaitingDevice":
        return self

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        time.sleep(self._wait)
        return tiles.repeat(SCALE, 1).repeat(SCALE, 2)

    def release_memory(self) -> None: ...


class WaitingHost(DeviceHost):
    """A host with such a device."""

    def __init__(self, wanted: Wanted, *, wait: float, batch: int) -> None:
        super().__init__(wanted, find=lambda *_: (WaitingDevice(wait, batch),))


@dataclass(eq=False)
class Tile:
    """One tile of noise, whose result is copied to where it belongs; see `TileWork`."""

    side: int = SIDE
    done: list[float] = field(default_factory=list)
    """Takes when it was finished."""
    ended: threading.Event = field(default_factory=threading.Event)

    def read(self) -> tuple[NDArray[np.uint8]]:
        return (NOISE[: self.side, : self.side],)

    def finish(self, result: tuple[NDArray[np.uint8]]) -> None:
        np.array(result[0])
        self.done.append(time.perf_counter())
        self.ended.set()

    def expect(self, seconds: float) -> None: ...
    def took(self, seconds: float) -> None: ...

    def fail(self, error: Exception) -> None:
        raise error


if __name__ == "__main__":
    main()
