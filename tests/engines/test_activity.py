"""What an executor tells of its devices and its queue."""

from pathlib import Path

import pytest

from engines.activity import Memory, RunKind, Waiting
from engines.devices.sessions import Network
from engines.scheduling.executor import Executor
from engines.scheduling.work import TileKey
from tests.engines.support.fake_device import WAIT, FakeDevice, FakeTile, lost, wait_for

NETWORKS = [Network(Path(f"{name}.onnx"), scale=2, tile=2) for name in ("one", "other")]
NAMES = dict(zip(NETWORKS, ("one", "other"), strict=True))
ONE, OTHER = (TileKey(network, 2, 2) for network in NETWORKS)


@pytest.fixture
def device():
    return FakeDevice(largest_batch=2, scale=2, held=True)


@pytest.fixture
def executor(device, clock):
    executor = Executor([device], patience=60, clock=clock)
    yield executor
    device.go.set()
    executor.close()


def test_what_waits_is_counted_by_model(device, executor):
    executor.submit("", "under way", ONE, [FakeTile(1)])
    assert device.began.acquire(timeout=WAIT)
    executor.submit("", "first", ONE, [FakeTile(1), FakeTile(2)])
    executor.submit("", "second", ONE, [FakeTile(3)])
    executor.submit("", "third", OTHER, [FakeTile(4)])
    assert executor.activity(lambda: NAMES).waiting == {"one": Waiting(3, 2), "other": Waiting(1, 1)}


def test_a_device_is_busy_while_it_runs(device, executor, clock):
    executor.submit("", "task", ONE, [tile := FakeTile(1)])
    assert device.began.acquire(timeout=WAIT)
    clock.now = 3
    assert executor.activity(lambda: NAMES).devices[0].busy_seconds == 3
    device.go.set()
    wait_for(tile)
    clock.now = 10
    assert executor.activity(lambda: NAMES).devices[0].busy_seconds == 3


def test_runs_are_counted_by_how_full_they_were_and_pixels_as_they_come_out(device, executor):
    executor.submit("", "first", ONE, [alone := FakeTile(1)])
    assert device.began.acquire(timeout=WAIT)
    executor.submit("", "second", ONE, tiles := [FakeTile(2), FakeTile(3)])
    device.go.set()
    wait_for(alone, *tiles)
    (told,) = executor.activity(lambda: NAMES).devices
    assert told.runs == {RunKind("one", 1, 2): 1, RunKind("one", 2, 2): 1}
    assert told.pixels == {"one": 3 * (2 * 2) * (2 * 2)}


def test_a_device_tells_its_memory_until_it_is_lost(device, executor):
    (told,) = executor.activity(lambda: NAMES).devices
    assert (told.name, told.usable, told.memory) == ("fake", True, Memory(1, 2))
    device.error = lost()
    device.go.set()
    executor.submit("", "task", ONE, [tile := FakeTile(1)])
    wait_for(tile)
    (told,) = executor.activity(lambda: NAMES).devices
    assert (told.usable, told.memory, told.runs) == (False, None, {})
