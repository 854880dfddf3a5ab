"""What slow, distant and cut lines cost: `python -m benchmarks.lines`.

Each row has one client, that uploads a picture and has it enlarged a number of times, with the bytes of the
results in the replies. The time is compared with what the line itself needs for the bytes that have to pass.

1. time ÷ line: 1 is a server that adds nothing.
2. connections: aim 1, where the line is not cut.
3. lost: tasks that no reply came for. Aim 0.
4. twice: replies that came more than once; they have the same `taskUUID`.
"""

import argparse
import asyncio
import base64
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from engines import OutputFormat, Picture, encode
from server.serving import EmbeddedServer
from server.settings import Settings
from tests.server.support.harness import KEY, new_uuid, upscale
from tests.server.support.network import Faults, Network, running_network, to_url

SIDE = 128
TASKS = 6
PATIENCE = 600.0
CUT_SHARE = 0.05

ROWS: dict[str, Faults] = {
    "64 kB/s": Faults(bytes_per_second=64_000),
    "200 kB/s": Faults(bytes_per_second=200_000),
    "1 MB/s, 300 ms": Faults(bytes_per_second=1_000_000, latency=0.15),
}


Task = dict[str, Any]


class Client:
    """Sends tasks once, and resumes its session until all are answered."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.replace('http', 'ws', 1)}/v1"
        self._session = new_uuid()
        self.answers: Counter[str] = Counter()

    async def run(self, first: Task, then: Callable[[Task], list[Task]]) -> None:
        """Have a task answered, and those that its answer leads to."""
        left = {str(first["taskUUID"]): first}
        while left:
            try:
                async with connect(self._url, max_size=None, compression=None, open_timeout=60) as socket:
                    await socket.send(self._authentication())
                    await socket.recv()
                    # Sent again, as nobody knows whether they arrived.
                    await socket.send(msgspec.json.encode(list(left.values())).decode())
                    while left:
                        (items,) = msgspec.json.decode(await socket.recv()).values()
                        for item in items:
                            self.answers[item["taskUUID"]] += 1
                            left.pop(item["taskUUID"], None)
                            if item["taskUUID"] == first["taskUUID"] and self.answers[item["taskUUID"]] == 1:
                                left = {str(task["taskUUID"]): task for task in then(item)}
                                await socket.send(msgspec.json.encode(list(left.values())).decode())
            except (ConnectionClosed, OSError):
                continue

    def _authentication(self) -> str:
        task = {"taskType": "authentication", "apiKey": KEY, "connectionSessionUUID": self._session}
        return msgspec.json.encode([task]).decode()


def noise(seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return base64.b64encode(encode(Picture(pixels), OutputFormat.PNG)).decode()


async def work(network: Network, seed: int) -> Client:
    """What every row does; the pictures are different each time, so that nothing is known yet."""
    client = Client(network.url)
    upload = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": noise(seed)}
    async with asyncio.timeout(PATIENCE):
        await client.run(
            upload,
            lambda item: [upscale(item["imageUUID"], outputType="base64Data") for _ in range(TASKS)],
        )
    return client


def row(table: Table, name: str, seconds: float, own: float, network: Network, clients: list[Client]) -> None:
    answers = [count for client in clients for count in client.answers.values()]
    table.add_row(
        name,
        f"{seconds:.1f} s",
        f"{seconds / own:.2f}" if own else "",
        str(network.connections),
        str(len(clients) * (TASKS + 1) - len(answers)),
        str(sum(count - 1 for count in answers)),
    )


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    table = Table("line", "time", "÷ line", "connections", "lost", "twice")
    with tempfile.TemporaryDirectory() as data:
        settings = Settings(data=Path(data), port=0, api_key=KEY, device="cpu", models=())
        with EmbeddedServer(settings) as server:
            with running_network(to_url(server.url)) as network:
                asyncio.run(work(network, 0))  # loads the model
                quick = time.perf_counter()
                before = network.passed
                asyncio.run(work(network, 1))
                computing, size = time.perf_counter() - quick, network.passed - before
            for seed, (name, faults) in enumerate(ROWS.items(), 2):
                with running_network(to_url(server.url)) as network:
                    network.faults = faults
                    began = time.perf_counter()
                    client = asyncio.run(work(network, seed))
                    assert faults.bytes_per_second is not None
                    own = size / faults.bytes_per_second + 2 * faults.latency + computing
                    row(table, name, time.perf_counter() - began, own, network, [client])
            with running_network(to_url(server.url)) as network:
                sessions = 40
                network.faults_of_next = [
                    Faults(cut_within=200_000) if number % round(1 / CUT_SHARE) == 1 else Faults()
                    for number in range(sessions)
                ]
                began = time.perf_counter()
                clients = [asyncio.run(work(network, 100 + number)) for number in range(sessions)]
                row(
                    table,
                    f"{CUT_SHARE:.0%} cut",
                    time.perf_counter() - began,
                    computing * sessions,
                    network,
                    clients,
                )
    Console().print(table)


if __name__ == "__main__":
    main()
