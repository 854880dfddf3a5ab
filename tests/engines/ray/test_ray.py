"""With Ray itself: a cluster of which each node is a few processes of this machine.

pip install '.[test,ray]' && pytest -m slow tests/engines/ray tests/server/test_cluster.py
"""

import asyncio
import contextlib
import threading
import time
from functools import partial

import numpy as np
import pytest

from engines import ClusterOptions, Picture, RayCluster, Upscaler, find_devices
from engines.devices.sessions import Network
from engines.ray.connection import Connection
from engines.scheduling.executor import Executor
from engines.scheduling.work import TileKey
from tests.engines.support.fake_device import FakeTile
from tests.engines.support.ray_nodes import ray_nodes

pytestmark = pytest.mark.slow

MODEL = "realesr-animevideov3"
SECONDS = 120


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with ray_nodes(tmp_path_factory.mktemp("cache")) as nodes:
        yield nodes


@pytest.fixture
def node(nodes):
    """Adds nodes, and takes them away at the end."""
    added = []

    def add(**environment):
        added.append(nodes.add(**environment))
        return added[-1]

    yield add
    for each in added:
        with contextlib.suppress(Exception):  # it was killed
            nodes.kill(each)


def until(condition):
    give_up = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < give_up
        threading.Event().wait(0.01)


def picture(side=64):
    return Picture(pixels=np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def enlarged(upscaler, model, source):
    width, height = 4 * source.width, 4 * source.height
    return asyncio.run(upscaler.upscale(source, model, width=width, height=height)).pixels


def test_a_picture_is_the_same_by_a_node_and_after_all_nodes_are_gone(
    nodes, node, model_directory, catalogue, caplog
):
    model, first = catalogue.get(MODEL), node()
    local = Upscaler(find_devices("cpu", cores=1), model_directory)
    expected = enlarged(local, model, picture())
    local.close()
    upscaler = Upscaler((), model_directory, stand_in=lambda: find_devices("cpu", cores=1)[0])
    upscaler.join(RayCluster(ClusterOptions(address=nodes.address)))
    try:
        (device,) = upscaler.devices
        assert upscaler.nodes == {device.node}
        np.testing.assert_array_equal(enlarged(upscaler, model, picture()), expected)
        nodes.kill(first)
        until(lambda: upscaler.stand_in is not None)
        assert upscaler.nodes == set()
        np.testing.assert_array_equal(enlarged(upscaler, model, picture()), expected)
        node()
        until(lambda: upscaler.stand_in is None)
        np.testing.assert_array_equal(enlarged(upscaler, model, picture()), expected)
    finally:
        upscaler.close()


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "waits.onnx"
    path.write_bytes(b"nothing to run")
    return TileKey(Network(path, scale=1, tile=2), 2, 2)


@pytest.fixture
def executor(nodes):
    """One whose devices wait."""
    connect = partial(Connection, kind="tests.engines.support.waiting_host:WaitingHost")
    cluster = RayCluster(ClusterOptions(address=nodes.address), connect=connect)
    executor = Executor([])
    yield lambda: cluster.start(executor) or executor
    executor.close()
    cluster.close()


def test_a_node_that_is_killed_in_mid_batch_loses_no_tile_and_doubles_none(
    nodes, node, executor, key, caplog
):
    first, _ = node(WAIT="0.3"), node(WAIT="0.3")
    executor = executor()
    until(lambda: len(executor.devices) == 2)
    executor.load(key.network)
    tiles = [FakeTile(value) for value in range(24)]
    executor.submit("", "task", key, tiles)
    assert tiles[2].ended.wait(SECONDS)
    nodes.kill(first)
    assert all(tile.ended.wait(SECONDS) for tile in tiles)
    assert [tile.told for tile in tiles] == [[value] for value in range(24)]
    assert len(executor.devices) == 1


def test_a_slow_node_gets_less(nodes, node, executor, key):
    for wait in ("0.05", "1"):
        node(WAIT=wait)
    executor = executor()
    until(lambda: len(executor.devices) == 2)
    executor.load(key.network)
    for task in range(3):  # what tiles take is known after the first
        tiles = [FakeTile(value) for value in range(40)]
        executor.submit("", task, key, tiles)
        assert all(tile.ended.wait(SECONDS) for tile in tiles)
    devices = executor.activity(lambda: {key.network: "model"}).devices
    counts = sorted(sum(device.runs.values()) for device in devices)
    assert counts[0] <= counts[1] / 8


def test_a_cluster_that_loses_its_head_leaves_the_server_alive(tmp_path, model_directory, catalogue, caplog):
    model = catalogue.get(MODEL)
    with ray_nodes(tmp_path / "cache") as nodes:
        nodes.add()
        upscaler = Upscaler((), model_directory, stand_in=lambda: find_devices("cpu", cores=1)[0])
        upscaler.join(RayCluster(ClusterOptions(address=nodes.address)))
        expected = enlarged(upscaler, model, picture())
        nodes.lose_head()
        until(lambda: upscaler.stand_in is not None)
        np.testing.assert_array_equal(enlarged(upscaler, model, picture()), expected)
        upscaler.close()
