"""The thread around the scheduler, with a device whose runs wait for a word from the test."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from engines.errors import ModelError
from engines.executor import DeviceExecutor, TileKey

KEY = TileKey(Path("model.onnx"), 2, 2)
OTHER_KEY = TileKey(Path("other.onnx"), 2, 2)
WAIT = 5  # seconds, to fail rather than hang


class FakeDevice:
    """Doubles every value. Tells of each run when it begins, and holds it until `go` is set."""

    name, largest_batch = "fake", 3

    def __init__(self):
        self.opened, self.batches = [], []
        self.began, self.go = threading.Semaphore(0), threading.Event()
        self.error = None

    def open(self, path):
        if path.name == "broken.onnx":
            raise ModelError("broken.onnx cannot be loaded")
        self.opened.append(path)
        return self

    def run(self, tiles):
        self.batches.append(tiles[:, 0, 0, 0].tolist())
        self.began.release()
        assert self.go.wait(WAIT)
        if self.error is not None:
            raise self.error
        return tiles * 2


@dataclass(eq=False)
class FakeTile:
    value: int
    told: list = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def read(self):
        if self.value < 0:
            raise MemoryError
        return np.full((2, 2, 3), self.value, np.uint8)

    def finish(self, upscaled):
        if self.value == 99:
            raise MemoryError
        self.told.append(int(upscaled[0, 0, 0]))
        self.ended.set()

    def fail(self, error):
        self.told.append(error)
        self.ended.set()


@pytest.fixture
def device():
    return FakeDevice()


@pytest.fixture
def executor(device):
    executor = DeviceExecutor(device)
    yield executor
    device.go.set()
    executor.close()


@pytest.fixture
def busy(device, executor):
    """The device is held in a run, so that what is submitted now meets in the queue."""
    tile = FakeTile(1)
    executor.submit("", "busy", KEY, [tile])
    assert device.began.acquire(timeout=WAIT)
    return tile


def wait_for(*tiles):
    assert all(tile.ended.wait(WAIT) for tile in tiles)


def test_each_tile_gets_its_own_result(device, executor):
    device.go.set()
    tiles = [FakeTile(value) for value in range(10, 17)]
    executor.submit("", "task", KEY, tiles)
    wait_for(*tiles)
    assert [tile.told for tile in tiles] == [[20], [22], [24], [26], [28], [30], [32]]


def test_while_the_device_is_busy_tiles_of_several_tasks_gather_into_batches(device, executor, busy):
    tiles = [FakeTile(value) for value in (10, 11, 20, 30)]
    executor.submit("A", "first", KEY, tiles[:2])
    executor.submit("B", "second", KEY, tiles[2:3])
    executor.submit("C", "third", OTHER_KEY, tiles[3:])
    device.go.set()
    wait_for(*tiles)
    assert sorted(map(sorted, device.batches)) == [[1], [10, 11, 20], [30]]


def test_a_model_is_opened_once(device, executor):
    executor.load(KEY.model)
    device.go.set()
    for number in range(3):
        tile = FakeTile(number)
        executor.submit("", number, KEY, [tile])
        wait_for(tile)
    assert device.opened == [KEY.model]


def test_a_failed_run_reaches_every_task_of_the_batch_and_the_thread_lives_on(device, executor, busy, caplog):
    first, second = FakeTile(10), FakeTile(20)
    executor.submit("", "first", KEY, [first])
    executor.submit("", "second", KEY, [second])
    device.error = ModelError("out of memory")
    device.go.set()
    wait_for(busy, first, second)
    assert [str(tile.told[0]) for tile in (busy, first, second)] == ["out of memory"] * 3
    device.error = None
    later = FakeTile(30)
    executor.submit("", "later", KEY, [later])
    wait_for(later)
    assert [len(tile.told) for tile in (busy, first, second)] == [1, 1, 1]
    assert later.told == [60]


def test_after_a_failure_the_other_tiles_of_the_task_do_not_run(device, executor, busy, caplog):
    tiles = [FakeTile(value) for value in range(10, 20)]
    executor.submit("", "long", KEY, tiles)
    device.error = ValueError("no such thing")
    device.go.set()
    wait_for(*tiles[:3])
    executor.close()
    assert device.batches == [[1], [10, 11, 12]]
    assert all(isinstance(tile.told[0], ModelError) for tile in tiles[:3])
    assert all(not tile.told for tile in tiles[3:])


def test_a_model_that_cannot_be_loaded_fails_its_tasks_only(device, executor, caplog):
    device.go.set()
    broken, sound = FakeTile(10), FakeTile(20)
    executor.submit("", "broken", TileKey(Path("broken.onnx"), 2, 2), [broken])
    executor.submit("", "sound", KEY, [sound])
    wait_for(broken, sound)
    assert str(broken.told[0]) == "broken.onnx cannot be loaded"
    assert sound.told == [40]


def test_a_tile_that_cannot_keep_its_result_fails_alone(device, executor, busy, caplog):
    tiles = [FakeTile(10), FakeTile(99), FakeTile(20)]
    for tile in tiles:
        executor.submit("", tile.value, KEY, [tile])
    device.go.set()
    wait_for(*tiles)
    assert (tiles[0].told, tiles[2].told) == ([20], [40])
    assert isinstance(tiles[1].told[0], ModelError)


def test_a_tile_that_cannot_be_read_does_not_end_the_thread(device, executor, caplog):
    device.go.set()
    unreadable, sound = FakeTile(-1), FakeTile(20)
    executor.submit("", "unreadable", KEY, [unreadable])
    wait_for(unreadable)
    executor.submit("", "sound", KEY, [sound])
    wait_for(sound)
    assert isinstance(unreadable.told[0], ModelError)
    assert sound.told == [40]


def test_a_cancelled_task_hears_no_more_of_the_tiles_that_had_not_begun(device, executor, busy):
    cancelled, kept = [FakeTile(10), FakeTile(11)], FakeTile(20)
    executor.submit("", "cancelled", KEY, cancelled)
    executor.submit("", "kept", KEY, [kept])
    executor.cancel("cancelled")
    device.go.set()
    wait_for(kept)
    assert device.batches == [[1], [20]]
    assert [tile.told for tile in cancelled] == [[], []]


def test_closing_finishes_the_batch_that_runs_and_fails_every_task_that_waits(device, executor, busy):
    waiting = [FakeTile(10), FakeTile(20)]
    executor.submit("A", "first", KEY, waiting[:1])
    executor.submit("B", "second", OTHER_KEY, waiting[1:])
    closer = threading.Thread(target=executor.close)
    closer.start()
    while not executor._closing:
        closer.join(0.001)
    device.go.set()
    closer.join(WAIT)
    assert not closer.is_alive()
    assert busy.told == [2]
    assert [str(tile.told[0]) for tile in waiting] == ["the engine is shutting down"] * 2
    assert device.batches == [[1]]


def test_a_closed_executor_takes_no_tasks_and_can_be_closed_again(executor):
    executor.close()
    executor.close()
    with pytest.raises(ModelError, match="shutting down"):
        executor.submit("", "late", KEY, [FakeTile(1)])
