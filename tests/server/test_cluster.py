"""A server on a Ray cluster gives what it gives alone: pixels, costs, and nothing lost or charged twice.

pip install '.[test,ray]' && pytest -m slow tests/engines/ray tests/server/test_cluster.py
"""

import asyncio
import base64
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.state.audit import audit
from server.state.database import Database
from tests.engines.support.ray_nodes import Nodes, ray_nodes
from tests.server.support.harness import (
    FAST_MODEL,
    Address,
    Item,
    connected,
    make_image,
    new_uuid,
    open_image,
    request,
    until,
    upscale,
)
from tests.server.support.process import ServerProcess, serving

pytestmark = pytest.mark.slow

IMAGE = base64.b64encode(make_image(1000, 1000)).decode()
"""Four tiles or more, each of a second or more: those of two nodes are all under way at once."""

COMPUTING = {"TILEWIRE_RUNTIME": "onnxruntime"}
"""Otherwise each node measures which runtime is the fastest, and two may come to different ends."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with ray_nodes(tmp_path_factory.mktemp("cache")) as nodes:
        yield nodes


@pytest.fixture
def node(nodes: Nodes) -> Iterator[Callable[[], Any]]:
    """Adds nodes, and takes them away at the end."""
    added: list[Any] = []

    def add() -> Any:
        added.append(nodes.add())
        return added[-1]

    yield add
    for each in added:
        with contextlib.suppress(Exception):  # it was killed
            nodes.kill(each)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Item:
    """The result of a server without a cluster."""
    with serving(tmp_path_factory.mktemp("alone"), model_directory, **COMPUTING) as server:
        return asyncio.run(result_of(server))


async def result_of(server: Address) -> Item:
    async with connected(server) as peer:
        await peer.send(task())
        return await outcome(peer)


def task() -> Item:
    return upscale(IMAGE, outputType="base64Data", includeCost=True)


async def outcome(peer: Any) -> Item:
    while (item := await peer.receive_item()).get("status") == "processing":
        pass
    return item


async def devices_of(server: Address) -> dict[str, int]:
    """Which there are, and how many tiles each has run."""
    text = (await request(f"{server.url}/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("tilewire_device_up{")]
    tiles = [line for line in text.splitlines() if line.startswith("tilewire_device_tiles_total{")]
    return {
        name: sum(int(float(line.split()[-1])) for line in tiles if name in line)
        for line in lines
        if line.endswith(" 1.0") and (name := line.split('"')[1])
    }


def pixels(result: Item) -> bytes:
    return open_image(base64.b64decode(result["imageBase64Data"])).tobytes()


def assert_same(result: Item, alone: Item) -> None:
    assert result["cost"] == alone["cost"]
    assert pixels(result) == pixels(alone)


def books(data: Path) -> tuple[int, list[Any]]:
    """How many charges there are, and what is wrong."""
    database = Database(f"sqlite:///{data / 'tilewire.db'}")
    found = database.snapshot(audit)
    database.close()
    return found.charges, found.mistakes


@contextlib.contextmanager
def on(nodes: Nodes, data: Path, model_directory: Path, **more: str) -> Iterator[ServerProcess]:
    """A server on the cluster."""
    ours = {"TILEWIRE_RAY_ADDRESS": nodes.address, "TILEWIRE_MODELS": FAST_MODEL, **COMPUTING}
    with serving(data, model_directory, **ours, **more) as server:
        yield server


async def test_a_node_killed_in_mid_batch_costs_neither_pixels_nor_money(
    nodes: Nodes, node: Callable[[], Any], alone: Item, tmp_path: Path, model_directory: Path
) -> None:
    first, _ = node(), node()
    with on(nodes, tmp_path, model_directory) as server:
        await until(lambda: has_devices(server, 2))
        assert (await request(f"{server.url}/readyz")).body == b"ready; devices: 2, on nodes: 2\n"
        async with connected(server) as peer:
            await peer.send(task())
            await until(lambda: have_run(server, 1))
            nodes.kill(first)
            assert_same(await outcome(peer), alone)
            await peer.nothing_more()
        assert len(await devices_of(server)) == 1
        assert b"is given up" in server.logged()
    assert books(tmp_path) == (1, [])


async def test_a_node_that_comes_is_used_within_the_task(
    nodes: Nodes, node: Callable[[], Any], alone: Item, tmp_path: Path, model_directory: Path
) -> None:
    node()
    with on(nodes, tmp_path, model_directory) as server:
        async with connected(server) as peer:
            for _ in range(3):
                await peer.send(task())
            await until(lambda: have_run(server, 1))
            node()
            for _ in range(3):
                assert_same(await outcome(peer), alone)
        tiles = await devices_of(server)
        assert len(tiles) == 2
        assert min(tiles.values()) > 0


async def test_a_server_that_is_killed_and_started_again_goes_on(
    nodes: Nodes, node: Callable[[], Any], alone: Item, tmp_path: Path, model_directory: Path
) -> None:
    session, sent = new_uuid(), task()
    node()
    with on(nodes, tmp_path, model_directory) as server:
        async with connected(server, session=session) as peer:
            await peer.send(sent)
            await until(lambda: have_run(server, 1))
            server.process.kill()
            await asyncio.to_thread(server.ended)
    with on(nodes, tmp_path, model_directory) as server:
        async with connected(server, session=session) as peer:
            result = await outcome(peer)
            assert result["taskUUID"] == sent["taskUUID"]
            assert_same(result, alone)
    assert books(tmp_path) == (1, [])


async def test_two_servers_share_a_node(
    nodes: Nodes, node: Callable[[], Any], alone: Item, tmp_path: Path, model_directory: Path
) -> None:
    node()
    with on(nodes, tmp_path, model_directory) as first, on(nodes, tmp_path, model_directory) as second:
        assert list(await devices_of(first)) == list(await devices_of(second))
        for result in await asyncio.gather(result_of(first), result_of(second)):
            assert_same(result, alone)
        first.process.terminate()
        await asyncio.to_thread(first.ended)
        assert_same(await result_of(second), alone)
    assert books(tmp_path) == (3, [])


async def has_devices(server: Address, count: int) -> bool:
    return len(await devices_of(server)) == count


async def have_run(server: Address, count: int) -> bool:
    return sum((await devices_of(server)).values()) >= count
