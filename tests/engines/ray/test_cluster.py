"""Nodes that come and go, and what becomes of the tiles: with hosts in this process, in place of Ray's."""

import logging
import threading

import pytest

from engines.devices.sessions import Network
from engines.errors import DeviceLostError, ModelError
from engines.ray.cluster import ClusterOptions, RayCluster, places_of
from engines.ray.connection import Node
from engines.scheduling.executor import Executor
from engines.scheduling.work import TileKey
from tests.engines.support.fake_cluster import FakeCluster
from tests.engines.support.fake_device import WAIT, FakeDevice, FakeTile, wait_for

OPTIONS = ClusterOptions(address="auto")


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"a network")
    return TileKey(Network(path, scale=1, tile=2), 2, 2)


@pytest.fixture
def grid(tmp_path):
    return FakeCluster(tmp_path / "nodes")


@pytest.fixture
def joined(grid, clock):
    """Makes executors that use the cluster; the test says when it is looked at. Closes them at the end."""
    made = []

    def make(stand_in=None, grid=grid):
        cluster = RayCluster(OPTIONS, connect=grid, clock=clock)
        executor = Executor([], stand_in=stand_in)
        cluster._executor, cluster._cluster = executor, grid
        made.append((executor, grid))
        return executor, cluster

    yield make
    for executor, used in made:
        for device in used.devices.values():
            device.go.set()
        executor.close()


def look(cluster, times=2):
    """The first look starts hosts, the second one uses them."""
    for _ in range(times):
        cluster.look()


def fill(executor, key, count, task="task"):
    tiles = [FakeTile(value) for value in range(count)]
    executor.submit("", task, key, tiles)
    return tiles


NODES = [Node("a", "a", 8, 2), Node("b", "b", 16, 0), Node("head", "head", 0, 0)]


@pytest.mark.parametrize(
    ("choice", "cpus", "expected"),
    [
        ("auto", None, ["a, GPU 0", "a, GPU 1", "b, CPU 0"]),
        ("cuda", None, ["a, GPU 0", "a, GPU 1"]),
        ("cpu", None, ["a, CPU 0", "b, CPU 0"]),
        ("cpu", 8, ["a, CPU 0", "b, CPU 0", "b, CPU 1"]),
        ("cpu", 100, ["a, CPU 0", "b, CPU 0"]),
    ],
)
def test_a_node_has_a_place_for_each_gpu_or_for_its_cpus(choice, cpus, expected):
    options = ClusterOptions(address="auto", choice=choice, cpus=cpus)
    assert [place.name for place in places_of(NODES, options)] == expected


def test_tiles_run_on_all_nodes_and_the_model_is_sent_to_each_once(grid, joined, key):
    grid.devices |= {"one": FakeDevice("GPU", held=True), "two": FakeDevice("GPU", held=True)}
    executor, cluster = joined()
    look(cluster)
    assert sorted(device.name for device in executor.devices) == ["one: GPU", "two: GPU"]
    executor.load(key.network)
    tiles = fill(executor, key, 6)
    for device in grid.devices.values():
        assert device.began.acquire(timeout=WAIT)
        device.go.set()
    wait_for(*tiles)
    assert [tile.told for tile in tiles] == [[value] for value in range(6)]
    assert [link.added for link in grid.hosts.values()] == [["model.onnx"]] * 2


def test_the_next_batch_is_on_its_way_while_one_runs(grid, joined, key):
    grid.devices["one"] = device = FakeDevice("GPU", held=True)
    executor, cluster = joined()
    look(cluster)
    executor.load(key.network)
    first = fill(executor, key, 1, "first")
    assert device.began.acquire(timeout=WAIT)
    second = fill(executor, key, 1, "second")
    while executor.activity(lambda: {key.network: "model"}).waiting["model"].tiles:
        second[0].ended.wait(0.001)
    assert not second[0].told
    device.go.set()
    wait_for(*first, *second)


def test_what_a_node_was_at_when_it_died_runs_on_another_and_is_told_once(grid, joined, key, caplog):
    grid.devices |= {"one": FakeDevice("GPU", held=True), "two": FakeDevice("GPU", held=True)}
    one, two = grid.devices.values()
    executor, cluster = joined()
    look(cluster)
    executor.load(key.network)
    tiles = fill(executor, key, 12)
    for device in (one, two):
        assert device.began.acquire(timeout=WAIT)
    grid.lose("one")
    two.go.set()
    wait_for(*tiles)
    one.go.set()  # what it would have said comes too late
    assert [tile.told for tile in tiles] == [[value] for value in range(12)]
    look(cluster)
    assert [device.name for device in executor.devices] == ["two: GPU"]


def test_an_idle_node_that_leaves_is_noticed_and_a_new_one_is_used_with_what_is_loaded(grid, joined, key):
    grid.devices["one"] = FakeDevice("GPU")
    executor, cluster = joined()
    look(cluster)
    executor.load(key.network)
    grid.devices["two"] = two = FakeDevice("GPU")
    look(cluster)
    grid.lose("one")
    look(cluster, 1)
    assert [device.name for device in executor.devices] == ["two: GPU"]
    tiles = fill(executor, key, 3)
    wait_for(*tiles)
    assert [path.name for path in two.opened] == ["model.onnx"]


def test_a_new_node_that_cannot_load_what_the_others_have_is_left_out(grid, joined, key, caplog):
    grid.devices["one"] = FakeDevice("GPU")
    executor, cluster = joined()
    look(cluster)
    executor.load(key.network)
    grid.devices["two"] = two = FakeDevice("GPU")
    two.open = FakeDevice.lose.__get__(two)
    look(cluster)
    while len(executor.devices) > 1:
        threading.Event().wait(0.001)
    tiles = fill(executor, key, 4)
    wait_for(*tiles)
    assert [tile.told for tile in tiles] == [[value] for value in range(4)]


def test_without_a_node_this_machine_takes_over_until_one_comes(grid, joined, key, caplog):
    local = FakeDevice("CPU")
    executor, cluster = joined(stand_in=lambda: local)
    executor._dispatcher.retire_stalled()
    assert executor.devices == (), "a node may be on its way"
    look(cluster)
    executor.use_stand_in()
    assert executor.stand_in is local
    wait_for(*fill(executor, key, 1, "before"))
    grid.devices["one"] = FakeDevice("GPU")
    look(cluster)
    assert executor.stand_in is None
    executor.load(key.network)
    count = len(local.batches)
    wait_for(*fill(executor, key, 3, "meanwhile"))
    assert len(local.batches) == count
    grid.lose("one")
    look(cluster, 1)
    assert executor.stand_in is local
    wait_for(*fill(executor, key, 1, "after"))
    lines = [line.getMessage() for line in caplog.records if "takes over" in line.getMessage()]
    assert lines == [
        "CPU takes over: there is no other device",
        "CPU takes over: all other devices are lost",
    ]


def test_a_host_that_the_executor_gave_up_is_ended_and_started_again_after_a_while(
    grid, joined, key, clock, caplog
):
    grid.devices |= {"one": FakeDevice("GPU"), "two": FakeDevice("GPU")}
    executor, cluster = joined()
    look(cluster)
    first = executor.devices[0]
    executor.lose(first, "it computes nonsense")
    look(cluster)
    assert first not in executor.devices
    assert [link.gone for link in grid.hosts.values()] == [True, False]
    clock.now += 31
    look(cluster)
    assert len(executor.devices) == 2


def test_a_node_of_another_version_is_not_used_and_said_once(grid, joined, caplog):
    grid.devices["old"] = FakeDevice("GPU")
    grid.version = "0.0.1"
    executor, cluster = joined()
    look(cluster, 3)
    assert executor.devices == ()
    assert [line.getMessage() for line in caplog.records] == ["old, CPU 0 has version 0.0.1 of Tilewire"]


def test_when_the_cluster_is_gone_all_its_devices_are_and_it_is_joined_again(grid, key, caplog):
    grid.devices["one"] = FakeDevice("GPU")
    cluster = RayCluster(OPTIONS, connect=grid)
    executor = Executor([], stand_in=lambda: FakeDevice("CPU"))
    cluster.start(executor)
    assert [device.name for device in executor.devices] == ["one: GPU"]
    grid.error = ConnectionError("no route to host")
    tiles = fill(executor, key, 3)
    wait_for(*tiles)
    while executor.stand_in is None:
        threading.Event().wait(0.001)
    wait_for(*fill(executor, key, 1, "on this machine"))
    executor.close()
    cluster.close()
    said = [line for line in caplog.records if "cannot be used: no route to host" in line.getMessage()]
    assert len(said) == 1


def test_a_host_leaves_when_its_last_server_says_goodbye(grid, key):
    grid.devices["one"] = FakeDevice("GPU")
    clusters = [RayCluster(OPTIONS, connect=grid) for _ in range(2)]
    executors = [Executor([]) for _ in range(2)]
    for cluster, executor in zip(clusters, executors, strict=True):
        cluster.start(executor)
    (link,) = grid.hosts.values()
    while len(link.host._servers) < 2:
        threading.Event().wait(0.001)
    for cluster, executor in zip(clusters, executors, strict=True):
        assert not link.gone
        wait_for(*fill(executor, key, 1))
        executor.close()
        cluster.close()
    assert link._end.wait(WAIT)


def test_two_servers_share_a_host_and_what_it_has_loaded(grid, joined, key):
    grid.devices["one"] = device = FakeDevice("GPU")
    for _ in range(2):
        executor, cluster = joined()
        look(cluster)
        executor.load(key.network)
        wait_for(*fill(executor, key, 3))
    assert len(device.opened) == 1
    assert device.warmed_up == 1


def test_a_model_that_a_node_cannot_load_is_refused_with_its_reason(grid, joined, tmp_path, caplog):
    (tmp_path / "broken.onnx").write_bytes(b"")
    grid.devices["one"] = FakeDevice("GPU")
    executor, cluster = joined()
    look(cluster)
    grid.devices["one"].open = lambda _network: (_ for _ in ()).throw(ModelError("it is broken"))
    with pytest.raises(ModelError, match="it is broken"):
        executor.load(Network(tmp_path / "broken.onnx", scale=1, tile=2))
    assert len(executor.devices) == 1


def test_a_full_disk_of_a_node_is_not_the_models_fault(grid, joined, key, caplog):
    grid.devices |= {"full": FakeDevice("GPU"), "one": FakeDevice("GPU")}
    executor, cluster = joined()
    look(cluster)
    full = next(link for link in grid.hosts.values() if link.node == "full")

    def no_room(*_):
        raise DeviceLostError("No space left on device")  # as `Answer.result` makes it of an OSError

    full.host.add = no_room
    executor.load(key.network)
    tiles = fill(executor, key, 4)
    wait_for(*tiles)
    assert [device.name for device in executor.devices] == ["one: GPU"]


def test_without_ray_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"pip install 'tilewire\[ray\]'"):
        RayCluster(OPTIONS)


def test_a_device_says_how_long_it_worked_without_the_way_there(grid, joined, key, caplog):
    caplog.set_level(logging.INFO)
    grid.devices["one"] = FakeDevice("GPU", largest_batch=1)
    executor, cluster = joined()
    look(cluster)
    (tile,) = fill(executor, key, 1)
    wait_for(tile)
    session = next(iter(executor._dispatcher.fleet.workers[0].sessions.values())).timed
    assert tile.seconds == session.seconds > 0
