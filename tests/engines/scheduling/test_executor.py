"""The threads around the scheduler, with devices that do as the test says."""

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.devices.sessions import Network
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError
from engines.scheduling.executor import Executor
from engines.scheduling.work import TileKey
from tests.engines.support.fake_device import WAIT, FakeDevice, FakeTile, lost, wait_for


def key(name="model.onnx", side=2):
    return TileKey(Network(Path(name), scale=1, tile=side), side, side)


KEY, OTHER_KEY = key(), key("other.onnx")


@pytest.fixture
def executor_of(clock):
    """Makes executors, and closes them at the end."""
    made = []

    def make(*devices, stand_in=None, **more):
        made.append((Executor(devices, stand_in=stand_in, patience=60, clock=clock, **more), devices))
        return made[-1][0]

    yield make
    for executor, devices in made:
        for device in devices:
            device.go.set()
        executor.close()


@pytest.fixture
def device():
    return FakeDevice(held=True)


@pytest.fixture
def executor(executor_of, device):
    return executor_of(device)


@pytest.fixture
def busy(device, executor):
    """The device is held in a run, so that what is submitted now meets in the queue."""
    tile = FakeTile(1)
    executor.submit("", "busy", KEY, [tile])
    assert device.began.acquire(timeout=WAIT)
    return tile


def test_each_tile_gets_its_own_result(device, executor):
    device.go.set()
    tiles = [FakeTile(value) for value in range(10, 17)]
    executor.submit("", "task", KEY, tiles)
    wait_for(*tiles)
    assert [tile.told for tile in tiles] == [[value] for value in range(10, 17)]


def test_while_the_device_is_busy_tiles_of_several_tasks_gather_into_batches(device, executor, busy):
    tiles = [FakeTile(value) for value in (10, 11, 20, 30)]
    executor.submit("A", "first", KEY, tiles[:2])
    executor.submit("B", "second", KEY, tiles[2:3])
    executor.submit("C", "third", OTHER_KEY, tiles[3:])
    device.go.set()
    wait_for(*tiles)
    assert sorted(map(sorted, device.batches)) == [[1], [10, 11, 20], [30]]


def test_a_model_is_opened_once(device, executor):
    executor.load(KEY.network)
    device.go.set()
    for number in range(3):
        tile = FakeTile(number)
        executor.submit("", number, KEY, [tile])
        wait_for(tile)
    assert device.opened == [KEY.network.path]


def test_after_a_failure_the_other_tiles_of_the_task_do_not_run(device, executor, busy, caplog):
    tiles = [FakeTile(value) for value in range(10, 20)]
    executor.submit("", "long", KEY, tiles)
    device.error = ValueError("no such thing")
    device.go.set()
    wait_for(busy, *tiles[:3])
    device.error = None
    later = FakeTile(30)
    executor.submit("", "later", KEY, [later])
    wait_for(later)
    assert device.batches == [[1], [10, 11, 12], [10], [11], [12], [30]]
    assert [str(tile.told[0]) for tile in (busy, *tiles[:3])] == ["the tile failed: no such thing"] * 4
    assert all(not tile.told for tile in tiles[3:])


class PickyDevice(FakeDevice):
    """It fails with every batch that has a 66."""

    @property
    def error(self):
        return ModelError("not with this") if self.batches and 66 in self.batches[-1] else None

    @error.setter
    def error(self, value):
        assert value is None


@pytest.mark.parametrize("bad", [66, -1], ids=["in its run", "when it is read"])
def test_a_tile_that_fails_does_not_fail_the_others_of_its_batch(executor_of, caplog, bad):
    device = PickyDevice(largest_batch=4, held=True)
    executor = executor_of(device)
    first, tiles = FakeTile(1), [FakeTile(10), FakeTile(bad), FakeTile(20)]
    executor.submit("", "first", KEY, [first])
    assert device.began.acquire(timeout=WAIT)
    for tile in tiles:
        executor.submit(tile.value, tile.value, KEY, [tile])
    device.go.set()
    wait_for(first, *tiles)
    assert [tile.told for tile in (first, tiles[0], tiles[2])] == [[1], [10], [20]]
    assert isinstance(tiles[1].told[0], ModelError)
    assert executor.usable


def test_each_run_of_a_batch_that_is_run_one_by_one_has_the_time_of_a_run(executor_of, clock, caplog):
    class SlowDevice(PickyDevice):
        @property
        def error(self):
            clock.now += 50
            return super().error

        @error.setter
        def error(self, value):
            assert value is None

    device = SlowDevice(largest_batch=4, held=True)
    executor = executor_of(device)
    tiles = [FakeTile(value) for value in (10, 66, 20)]
    executor.submit("", "all", KEY, tiles)
    device.go.set()
    wait_for(tiles[1])
    executor._dispatcher.retire_stalled()
    assert executor.usable
    assert executor.activity(lambda: {KEY.network: "model"}).devices[0].busy_seconds == clock.now


def test_a_device_holds_nothing_of_what_it_has_done(executor_of):
    """Tiles refer to the picture that they are part of."""
    for largest_batch in (1, 4):
        executor = executor_of(FakeDevice(largest_batch=largest_batch))
        tile = FakeTile(1)
        executor.submit("", "task", KEY, [tile])
        wait_for(tile)
        gone = weakref.ref(tile)
        del tile
        deadline = time.monotonic() + WAIT
        while gone() is not None and time.monotonic() < deadline:
            gc.collect()
        assert gone() is None


def test_a_device_without_work_gives_memory_back_once(executor_of):
    device = FakeDevice()
    executor = executor_of(device, idle=0.01)
    for value in range(2):
        tile = FakeTile(value)
        executor.submit("", value, KEY, [tile])
        wait_for(tile)
        assert device.released.acquire(timeout=WAIT)
        assert not device.released.acquire(timeout=0.1)


def test_a_device_that_is_hardly_ever_without_work_uses_a_pause_to_give_memory_back(executor_of, clock):
    device = FakeDevice()
    executor = executor_of(device, idle=WAIT)
    for value in range(2):
        clock.now += 6 * WAIT * value
        tile = FakeTile(value)
        executor.submit("", value, KEY, [tile])
        wait_for(tile)
    assert device.released.acquire(timeout=WAIT)


def test_a_failure_to_give_memory_back_harms_nobody(executor_of, caplog):
    device = FakeDevice()
    device.release_error = ModelError("it does not want to")
    executor = executor_of(device, idle=0.01)
    for value in range(2):
        tile = FakeTile(value)
        executor.submit("", value, KEY, [tile])
        wait_for(tile)
        assert device.released.acquire(timeout=WAIT)
    assert executor.usable


def test_a_model_that_cannot_be_loaded_fails_its_tasks_only(device, executor, caplog):
    device.go.set()
    broken, sound = FakeTile(10), FakeTile(20)
    executor.submit("", "broken", key("broken.onnx"), [broken])
    executor.submit("", "sound", KEY, [sound])
    wait_for(broken, sound)
    assert str(broken.told[0]) == "broken.onnx cannot be loaded"
    assert sound.told == [20]


def test_tiles_of_one_run_share_its_time(executor_of, clock):
    device = FakeDevice(largest_batch=2, held=True)
    tiles = [FakeTile(2), FakeTile(99)]  # the second cannot be kept, and was run all the same
    executor_of(device).submit("", "task", KEY, tiles)
    assert device.began.acquire(timeout=WAIT)
    clock.now += 10
    device.go.set()
    wait_for(*tiles)
    assert [tile.seconds for tile in tiles] == [5, 5]


def test_a_tile_that_cannot_keep_its_result_fails_alone(device, executor, busy, caplog):
    tiles = [FakeTile(10), FakeTile(99), FakeTile(20)]
    for tile in tiles:
        executor.submit("", tile.value, KEY, [tile])
    device.go.set()
    wait_for(*tiles)
    assert (tiles[0].told, tiles[2].told) == ([10], [20])
    assert isinstance(tiles[1].told[0], ModelError)


@dataclass(eq=False)
class SlowTile(FakeTile):
    """Its result is kept once the test lets it."""

    keeping: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def finish(self, result):
        self.keeping.set()
        assert self.go.wait(WAIT)
        super().finish(result)


def test_the_next_runs_begin_while_results_are_kept_but_not_ever_more(executor_of):
    device = FakeDevice(largest_batch=2)
    executor = executor_of(device)
    slow = SlowTile(10)
    tiles = [FakeTile(value) for value in range(20, 30)]
    executor.submit("", "slow", KEY, [slow])
    assert slow.keeping.wait(WAIT)
    executor.submit("", "quick", KEY, tiles)
    for _ in range(3):
        assert device.began.acquire(timeout=WAIT)
    assert not any(tile.told for tile in tiles)
    assert len(device.batches) == 3
    slow.go.set()
    wait_for(slow, *tiles)
    assert [tile.told for tile in (slow, *tiles)] == [[value] for value in (10, *range(20, 30))]


def test_closing_waits_until_all_results_are_kept(executor_of):
    executor, slow = executor_of(FakeDevice(largest_batch=2)), SlowTile(10)
    executor.submit("", "slow", KEY, [slow])
    assert slow.keeping.wait(WAIT)
    closer = threading.Thread(target=executor.close)
    closer.start()
    closer.join(0.01)
    assert closer.is_alive()
    slow.go.set()
    closer.join(WAIT)
    assert not closer.is_alive()
    assert slow.told == [10]


def test_a_tile_that_cannot_be_read_does_not_end_the_thread(device, executor, caplog):
    device.go.set()
    unreadable, sound = FakeTile(-1), FakeTile(20)
    executor.submit("", "unreadable", KEY, [unreadable])
    wait_for(unreadable)
    executor.submit("", "sound", KEY, [sound])
    wait_for(sound)
    assert isinstance(unreadable.told[0], ModelError)
    assert sound.told == [20]


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
    while not executor._dispatcher.closing:
        closer.join(0.001)
    device.go.set()
    closer.join(WAIT)
    assert not closer.is_alive()
    assert busy.told == [1]
    assert [str(tile.told[0]) for tile in waiting] == ["the engine is shutting down"] * 2
    assert device.batches == [[1]]


def test_a_closed_executor_takes_no_tasks_and_can_be_closed_again(executor):
    executor.close()
    executor.close()
    with pytest.raises(ModelError, match="shutting down"):
        executor.submit("", "late", KEY, [FakeTile(1)])


def test_a_closed_executor_loads_nothing_and_is_not_usable(executor):
    assert executor.usable
    executor.close()
    assert not executor.usable
    with pytest.raises(ModelError, match="shutting down"):
        executor.load(KEY.network)


def test_all_devices_take_tiles_of_one_task(executor_of):
    devices = [
        FakeDevice("first", largest_batch=1, held=True),
        FakeDevice("second", largest_batch=1, held=True),
    ]
    executor = executor_of(*devices)
    tiles = [FakeTile(value) for value in range(4)]
    executor.submit("", "task", KEY, tiles)
    assert all(device.began.acquire(timeout=WAIT) for device in devices)
    for device in devices:
        device.go.set()
    wait_for(*tiles)
    assert [tile.told for tile in tiles] == [[0], [1], [2], [3]]
    assert sorted(value for device in devices for (value,) in device.batches) == [0, 1, 2, 3]


def test_a_network_is_loaded_on_every_device(executor_of):
    devices = [FakeDevice("first"), FakeDevice("second")]
    executor_of(*devices).load(KEY.network)
    assert [device.opened for device in devices] == [[KEY.network.path]] * 2


def test_a_network_that_one_device_refuses_is_refused_and_the_others_run(executor):
    with pytest.raises(ModelError, match=r"broken\.onnx cannot be loaded"):
        executor.load(key("broken.onnx").network)
    executor.load(KEY.network)
    assert executor.usable


def test_a_device_that_joins_is_not_blamed_for_a_network_that_no_other_could_load(executor):
    with pytest.raises(ModelError):
        executor.load(key("broken.onnx").network)
    joins = FakeDevice("joins")
    executor.add(joins)
    executor.load(KEY.network)  # after what it had to load first
    assert joins in executor.devices


def test_a_batch_that_does_not_fit_is_halved_until_it_does(executor_of, caplog):
    device = FakeDevice(largest_batch=8, memory=2 * KEY.pixels, held=True)
    executor = executor_of(device)
    tiles = [FakeTile(value) for value in range(9)]
    executor.submit("", "task", KEY, tiles)
    device.go.set()
    wait_for(*tiles)
    assert [tile.told for tile in tiles] == [[value] for value in range(9)]
    assert [len(batch) for batch in device.batches] == [8, 4, 2, 2, 2, 2, 1]


def test_what_fits_is_remembered_by_model(executor_of, caplog):
    device = FakeDevice(largest_batch=8, memory=2 * KEY.pixels)
    executor = executor_of(device)
    for name, used in [("first", KEY), ("second", KEY), ("third", OTHER_KEY)]:
        device.batches.clear()
        tiles = [FakeTile(value) for value in range(8)]
        executor.submit("", name, used, tiles)
        wait_for(*tiles)
        assert (len(device.batches[0]) == 2) == (name == "second")


def test_smaller_tiles_still_share_batches_when_large_ones_do_not_fit(executor_of, caplog):
    device = FakeDevice(largest_batch=8, memory=16)
    executor = executor_of(device)
    large = [FakeTile(value, side=4) for value in range(4)]
    executor.submit("", "large", TileKey(KEY.network, 4, 4), large)
    wait_for(*large)
    device.batches.clear()
    small = [FakeTile(value) for value in range(8)]
    executor.submit("", "small", KEY, small)
    wait_for(*small)
    assert [len(batch) for batch in device.batches] == [4, 4]


def test_a_single_tile_that_does_not_fit_fails_its_task_with_what_would_fit(executor_of, caplog):
    device = FakeDevice(memory=9)
    executor = executor_of(device)
    assert executor.room(KEY.network) is None
    tile = FakeTile(1, side=4)
    executor.submit("", "task", TileKey(KEY.network, 4, 4), [tile])
    wait_for(tile)
    assert isinstance(tile.told[0], DeviceOutOfMemoryError)
    assert executor.room(KEY.network) == 8
    assert executor.room(OTHER_KEY.network) is None


def test_a_tile_that_is_too_large_is_tried_again_as_there_may_be_more_memory_now(executor_of, caplog):
    device = FakeDevice(memory=1)
    executor = executor_of(device)
    first, second = FakeTile(1), FakeTile(2)
    executor.submit("", "first", KEY, [first])
    wait_for(first)
    device.memory = None
    executor.submit("", "second", KEY, [second])
    wait_for(second)
    assert isinstance(first.told[0], DeviceOutOfMemoryError)
    assert second.told == [2]


def test_after_a_while_more_is_tried_again_as_there_may_be_more_memory_now(executor_of, clock, caplog):
    device = FakeDevice(largest_batch=8, memory=2 * KEY.pixels)
    executor = executor_of(device)

    def largest_batch():
        device.batches.clear()
        tiles = [FakeTile(value) for value in range(8)]
        executor.submit("", clock.now, KEY, tiles)
        wait_for(*tiles)
        return max(len(batch) for batch in device.batches)

    assert largest_batch() == 8
    assert largest_batch() == 2
    clock.now = 600
    assert largest_batch() == 4  # which fails, and is remembered
    assert largest_batch() == 2
    clock.now = 1200
    device.memory = None
    assert largest_batch() == 4
    clock.now = 1800
    assert largest_batch() == 8


def test_the_batch_of_a_lost_device_runs_on_the_others(executor_of, caplog):
    bad, good = FakeDevice("bad", held=True), FakeDevice("good", held=True)
    executor = executor_of(bad, good)
    tiles = [FakeTile(value) for value in range(12)]
    executor.submit("", "task", KEY, tiles)
    assert bad.began.acquire(timeout=WAIT)
    bad.error = lost("bad")
    bad.go.set()
    good.go.set()
    wait_for(*tiles)
    assert [tile.told for tile in tiles] == [[value] for value in range(12)]
    assert len(bad.batches) == 1
    assert executor.usable
    assert "bad is given up" in caplog.text


def test_without_any_device_left_everything_that_waits_or_comes_fails_at_once(executor, device, busy, caplog):
    waiting = FakeTile(2)
    executor.submit("", "waiting", OTHER_KEY, [waiting])
    device.error = lost()
    device.go.set()
    wait_for(busy, waiting)
    assert all(isinstance(tile.told[0], DeviceLostError) for tile in (busy, waiting))
    assert not executor.usable
    for late in (lambda: executor.submit("", "late", KEY, [FakeTile(3)]), lambda: executor.load(KEY.network)):
        with pytest.raises(ModelError, match="no device is left to run on: fake: an illegal memory access"):
            late()


def test_when_the_last_device_is_lost_another_takes_over_what_waits_and_what_comes(executor_of, caplog):
    devices = [FakeDevice("first", held=True), FakeDevice("second", held=True)]
    cpu = FakeDevice("the CPU", largest_batch=1)
    executor = executor_of(*devices, stand_in=lambda: cpu)
    tiles = [FakeTile(value) for value in range(12)]
    executor.submit("", "task", KEY, tiles)
    for device in devices:
        assert executor.stand_in is None
        assert device.began.acquire(timeout=WAIT)
        device.error = lost(device.name)
        device.go.set()
    wait_for(*tiles)
    assert executor.stand_in is cpu
    assert executor.usable
    later = FakeTile(20)
    executor.submit("", "later", KEY, [later])
    wait_for(later)
    assert [tile.told for tile in (*tiles, later)] == [[value] for value in (*range(12), 20)]
    lines = [record.message for record in caplog.records if "takes over" in record.message]
    assert lines == ["the CPU takes over: all other devices are lost"]


def test_while_a_stand_in_is_looked_for_tasks_come_and_go_and_loads_wait(executor_of, caplog):
    looking, found = threading.Event(), threading.Event()
    cpu = FakeDevice("the CPU", largest_batch=1)

    def find():
        looking.set()
        assert found.wait(WAIT)
        return cpu

    gpu = FakeDevice("the GPU")
    gpu.error = lost()
    executor = executor_of(gpu, stand_in=find)
    tiles = [FakeTile(value) for value in range(4)]
    executor.submit("", "before", KEY, tiles[:2])
    assert looking.wait(WAIT)
    executor.submit("", "meanwhile", KEY, tiles[2:3])
    executor.submit("", "cancelled", KEY, tiles[3:])
    executor.cancel("cancelled")
    assert executor.usable
    with ThreadPoolExecutor() as pool:
        load = pool.submit(executor.load, OTHER_KEY.network)
        found.set()
        load.result(WAIT)
    wait_for(*tiles[:3])
    assert [tile.told for tile in tiles] == [[0], [1], [2], []]
    assert OTHER_KEY.network.path in cpu.opened


def test_closing_does_not_wait_for_a_stand_in_that_comes_too_late(executor_of, caplog):
    looking, found = threading.Event(), threading.Event()

    def find():
        looking.set()
        assert found.wait(WAIT)
        return FakeDevice("the CPU")

    gpu = FakeDevice("the GPU")
    gpu.error = lost()
    executor = executor_of(gpu, stand_in=find)
    tile = FakeTile(1)
    executor.submit("", "task", KEY, [tile])
    assert looking.wait(WAIT)
    closer = threading.Thread(target=executor.close)
    closer.start()
    wait_for(tile)
    found.set()
    closer.join(WAIT)
    assert not closer.is_alive()
    executor.close()
    assert executor.stand_in is None


def test_a_network_that_no_gpu_can_load_any_longer_is_loaded_where_they_are_replaced(executor_of, caplog):
    bad, cpu = FakeDevice("bad"), FakeDevice("the CPU")
    bad.open = bad.lose
    executor_of(bad, stand_in=lambda: cpu).load(KEY.network)
    assert cpu.opened == [KEY.network.path]


def test_when_the_stand_in_is_lost_or_cannot_be_found_every_task_fails(executor_of, caplog):
    def missing():
        raise OSError("no such library")

    def losing():
        device = FakeDevice("the CPU")
        device.error = lost("the CPU")
        return device

    for stand_in in (missing, losing):
        gpu, tile = FakeDevice("gpu"), FakeTile(1)
        gpu.error = lost("gpu")
        executor = executor_of(gpu, stand_in=stand_in)
        executor.submit("", "task", KEY, [tile])
        wait_for(tile)
        assert isinstance(tile.told[0], DeviceLostError)
        assert not executor.usable


def test_a_closed_executor_asks_for_no_stand_in(executor_of, clock, caplog):
    asked = []
    device = FakeDevice(held=True)
    executor = executor_of(device, stand_in=lambda: asked.append(1))
    executor.submit("", "task", KEY, [FakeTile(1)])
    assert device.began.acquire(timeout=WAIT)
    closer = threading.Thread(target=executor.close)
    closer.start()
    while not executor._dispatcher.closing:
        closer.join(0.001)
    clock.now = 61
    executor._dispatcher.retire_stalled()
    closer.join(WAIT)
    assert not closer.is_alive()
    assert not asked


def test_a_device_that_is_lost_while_it_loads_is_given_up(executor_of, caplog):
    bad, good = FakeDevice("bad"), FakeDevice("good")
    bad.open = FakeDevice.lose.__get__(bad)
    executor = executor_of(bad, good)
    executor.load(KEY.network)
    assert executor.usable
    tile = FakeTile(1)
    executor.submit("", "task", KEY, [tile])
    wait_for(tile)
    assert tile.told == [1]


def test_a_device_that_stalls_is_given_up_and_its_late_result_thrown_away(executor_of, clock, caplog):
    stuck, good = FakeDevice("stuck", held=True), FakeDevice("good", held=True)
    executor = executor_of(stuck, good)
    tiles = [FakeTile(value) for value in range(6)]
    executor.submit("", "task", KEY, tiles)
    assert stuck.began.acquire(timeout=WAIT)
    assert good.began.acquire(timeout=WAIT)
    good.go.set()
    while not any(tile.ended.wait(0.01) for tile in tiles):
        pass
    clock.now = 61
    executor._dispatcher.retire_stalled()
    wait_for(*tiles)
    stuck.go.set()
    executor.close()
    assert [tile.told for tile in tiles] == [[value] for value in range(6)]
    assert "stuck has not finished a run in 60 seconds" in caplog.text


def test_a_run_within_the_limit_is_left_alone(executor, device, busy, clock):
    clock.now = 59
    executor._dispatcher.retire_stalled()
    device.go.set()
    wait_for(busy)
    assert busy.told == [1]
    assert executor.usable


def test_a_network_whose_loading_stalls_does_not_hold_up_who_waits_for_it(executor_of, clock, caplog):
    device, opening, go = FakeDevice(), threading.Event(), threading.Event()

    def open_slowly(network):
        opening.set()
        assert go.wait(WAIT)

    device.open = open_slowly
    executor = executor_of(device)
    with ThreadPoolExecutor() as pool:
        loads = [pool.submit(executor.load, KEY.network)]
        assert opening.wait(WAIT)
        clock.now = 61
        executor._dispatcher.retire_stalled()
        with pytest.raises(DeviceLostError, match="fake has not finished a run in 60 seconds"):
            loads[0].result(WAIT)
    go.set()


def test_closing_does_not_wait_for_a_device_that_was_given_up(executor, device, busy, clock, caplog):
    clock.now = 61
    executor._dispatcher.retire_stalled()
    executor.close()
    assert isinstance(busy.told[0], DeviceLostError)


BIG, SMALL, MIDDLING = (TileKey(KEY.network, side, side) for side in (64, 16, 32))


@pytest.fixture
def cpu(executor_of, clock):
    """A device of one tile a run, held in a big one that is known to take ten seconds; and its executor."""
    device = FakeDevice(largest_batch=1, held=True)
    executor = executor_of(device)
    for value in range(2):
        tile = FakeTile(value, side=64)
        executor.submit("A", f"big {value}", BIG, [tile])
        assert device.began.acquire(timeout=WAIT)
        if value == 0:
            clock.now += 10
            device.go.set()
            wait_for(tile)
            device.go.clear()
    return device, executor


def has_tiles_for_the_helper(executor):
    dispatcher = executor._dispatcher
    with dispatcher.changed:
        return dispatcher.placement.has_tiles_for(dispatcher.fleet.helpers[0], dispatcher._clock())


def test_a_small_tile_does_not_wait_for_the_end_of_a_long_run(cpu):
    device, executor = cpu
    icon = FakeTile(5, side=16)
    executor.submit("B", "icon", SMALL, [icon])
    assert device.began.acquire(timeout=WAIT)
    assert device.batches == [[0], [1], [5]]
    device.go.set()
    wait_for(icon)
    assert icon.told == [5]


def test_a_tile_that_is_not_small_waits_for_the_end_of_a_long_run(cpu):
    device, executor = cpu
    tile = FakeTile(5, side=32)
    executor.submit("B", "middling", MIDDLING, [tile])
    assert not has_tiles_for_the_helper(executor)
    device.go.set()
    wait_for(tile)


def test_short_tiles_run_side_by_side_where_that_takes_less_time(executor_of):
    device = FakeDevice(largest_batch=1, held=True)
    device.is_side_by_side = True
    executor = executor_of(device)
    first = FakeTile(1, side=16)
    executor.submit("A", "first", SMALL, [first])
    assert device.began.acquire(timeout=WAIT)
    device.go.set()
    wait_for(first)
    device.go.clear()
    tiles = [FakeTile(value, side=16) for value in (2, 3)]
    for tile in tiles:
        executor.submit("A", tile, SMALL, [tile])
        assert device.began.acquire(timeout=WAIT), "the second does not wait for the first"
    device.go.set()
    wait_for(*tiles)
    assert [tile.told for tile in tiles] == [[2], [3]]


def test_a_small_tile_waits_if_it_is_not_its_accounts_turn(cpu):
    device, executor = cpu
    tiles = [FakeTile(5, side=64), FakeTile(6, side=16)]
    executor.submit("B", "big", BIG, tiles[:1])
    executor.submit("A", "icon", SMALL, tiles[1:])
    assert not has_tiles_for_the_helper(executor)
    device.go.set()
    wait_for(*tiles)


def test_tiles_of_a_network_that_has_not_run_yet_wait(cpu):
    device, executor = cpu
    tile = FakeTile(5)
    executor.submit("B", "new", OTHER_KEY, [tile])
    assert not has_tiles_for_the_helper(executor)
    device.go.set()
    wait_for(tile)


def test_after_a_failure_beside_a_long_run_the_tile_waits_for_its_end(cpu, caplog):
    device, executor = cpu
    device.open = FakeDevice.lose.__get__(device)
    icon = FakeTile(5, side=16)
    executor.submit("B", "icon", SMALL, [icon])
    while executor._dispatcher.fleet.helpers[0].lost is None:
        icon.ended.wait(0.001)
    assert executor.usable
    device.go.set()
    wait_for(icon)
    assert icon.told == [5]
    assert "the helper of fake is given up" in caplog.text


def test_what_runs_beside_a_long_run_ends_with_the_device(cpu, clock, caplog):
    device, executor = cpu
    icon = FakeTile(5, side=16)
    executor.submit("B", "icon", SMALL, [icon])
    assert device.began.acquire(timeout=WAIT)
    clock.now += 61
    executor._dispatcher.retire_stalled()
    wait_for(icon)
    assert isinstance(icon.told[0], DeviceLostError)
    assert not executor.usable


def test_what_runs_beside_a_long_run_is_counted_for_the_device(cpu):
    device, executor = cpu
    icon = FakeTile(5, side=16)
    executor.submit("B", "icon", SMALL, [icon])
    assert device.began.acquire(timeout=WAIT)
    device.go.set()
    wait_for(icon)
    (activity,) = executor.activity(lambda: {KEY.network: "model"}).devices
    assert activity.pixels["model"] >= 64**2 + 16**2


events = st.lists(
    st.sampled_from(["fine", "fine", "fine", "no memory", "failure", "lost"]), min_size=1, max_size=12
)


class MoodyDevice(FakeDevice):
    """Each run ends as the list says; after the list all is fine."""

    def __init__(self, name, moods):
        super().__init__(name, largest_batch=4)
        self.moods = list(moods)

    @property
    def error(self):
        mood = self.moods.pop(0) if self.moods else "fine"
        return {
            "fine": None,
            "no memory": DeviceOutOfMemoryError("no memory"),
            "failure": ModelError("failure"),
            "lost": lost(self.name),
        }[mood]

    @error.setter
    def error(self, value):
        assert value is None


@settings(deadline=None, max_examples=60)
@given(
    st.lists(events, min_size=1, max_size=3), st.lists(st.integers(1, 6), min_size=1, max_size=6), st.data()
)
def test_no_tile_is_lost_or_told_twice_whatever_devices_do(moods, counts, data):
    devices = [MoodyDevice(f"device {number}", mood) for number, mood in enumerate(moods)]
    executor = Executor(devices, patience=60)
    tasks = [[FakeTile(value) for value in range(count)] for count in counts]
    cancelled = data.draw(st.sets(st.integers(0, len(tasks) - 1)))
    refused = set()
    for number, tiles in enumerate(tasks):
        try:
            executor.submit(number % 2, number, KEY, tiles)
        except DeviceLostError:
            refused.add(number)
        if number in cancelled:
            executor.cancel(number)
    for number, tiles in enumerate(tasks):
        if number not in refused | cancelled:
            while not (all(tile.told for tile in tiles) or any_failed(tiles)):
                tiles[-1].ended.wait(0.001)
    executor.close()
    for number, tiles in enumerate(tasks):
        assert all(len(tile.told) <= 1 for tile in tiles)
        assert all(tile.told[0] == tile.value for tile in tiles if tile.told and not failed(tile))
        if number in refused:
            assert not any(tile.told for tile in tiles)


def failed(tile):
    return any(isinstance(told, ModelError) for told in tile.told)


def any_failed(tiles):
    return any(failed(tile) for tile in tiles)
