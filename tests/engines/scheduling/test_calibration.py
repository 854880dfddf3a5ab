"""Batch sizes from measurements, on a device and a clock that are made up."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.devices.failures import as_model_error
from engines.devices.sessions import Network
from engines.errors import DeviceLostError, DeviceOutOfMemoryError
from engines.scheduling.calibration import Calibration, choose_batch, measure_rates
from engines.scheduling.executor import Executor
from engines.scheduling.work import TileKey
from tests.engines.support.fake_device import FakeDevice, FakeTile, lost, wait_for

rates = st.dictionaries(st.integers(1, 64), st.floats(0.1, 1e6), min_size=1)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class TimedSession:
    """A run takes `fixed` + `each` × tiles seconds of the clock; the first of each size takes long."""

    def __init__(self, clock, *, fixed=0.1, each=0.01, memory=1000):
        self.clock, self.fixed, self.each, self.memory = clock, fixed, each, memory
        self.runs = []

    def run(self, tiles):
        if len(tiles) > self.memory:
            raise DeviceOutOfMemoryError("no memory")
        first = len(tiles) not in self.runs
        self.runs.append(len(tiles))
        self.clock.now += self.fixed + self.each * len(tiles) + 0.5 * first
        return tiles

    def release_memory(self):
        pass


@pytest.fixture
def clock():
    return Clock()


@given(rates)
def test_the_choice_is_within_five_percent_of_the_best_and_no_smaller_one_is(rates):
    chosen = choose_batch(rates)
    best = max(rates.values())
    assert rates[chosen] >= 0.95 * best
    assert all(rate < 0.95 * best for size, rate in rates.items() if size < chosen)


def test_rates_are_of_runs_that_were_warmed_up(clock):
    rates = measure_rates(TimedSession(clock), tile=8, largest=4, clock=clock)
    assert rates == pytest.approx({1: 1 / 0.11, 2: 2 / 0.12, 4: 4 / 0.14})


def test_where_a_batch_gains_nothing_it_is_one(clock):
    rates = measure_rates(TimedSession(clock, fixed=0), tile=8, largest=8, clock=clock)
    assert choose_batch(rates) == 1


def test_what_does_not_fit_ends_the_measurement(clock):
    assert list(measure_rates(TimedSession(clock, memory=5), tile=8, largest=16, clock=clock)) == [1, 2, 4]


def test_where_not_even_one_tile_fits_there_is_nothing_to_choose(clock):
    with pytest.raises(DeviceOutOfMemoryError):
        measure_rates(TimedSession(clock, memory=0), tile=8, largest=16, clock=clock)


def test_a_slow_device_is_not_measured_for_long(clock):
    rates = measure_rates(TimedSession(clock, each=1), tile=8, largest=64, clock=clock)
    assert list(rates) == [1, 2]


@pytest.fixture
def network(tmp_path):
    return Network(tmp_path / "model-4x.onnx", scale=1, tile=8, sha256="a" * 64)


@pytest.fixture
def measured(tmp_path, clock, network):
    """Asks for a batch size, and tells it with the sizes that had to be run for it."""

    def ask(device=None, network=network, **speed):
        session = TimedSession(clock, **speed)
        calibration = Calibration(tmp_path / "batches.json", clock)
        batch = calibration.batch(device or FakeDevice(largest_batch=8), session, network)
        return batch, sorted(set(session.runs))

    return ask


def test_a_measurement_is_made_once(measured):
    assert measured() == (8, [1, 2, 4, 8])
    assert measured() == (8, [])
    assert measured(FakeDevice("another of the kind", largest_batch=8)) == (8, [])


def test_another_kind_tile_or_network_is_measured_by_itself(measured, network):
    measured()
    other = FakeDevice(largest_batch=8)
    other.kind = "other"
    assert measured(other, fixed=0) == (1, [1, 2, 4, 8])
    assert measured(network=Network(network.path, 1, tile=16), fixed=0) == (1, [1, 2, 4, 8])
    assert measured() == (8, [])
    assert measured(network=replace(network, sha256="b" * 64), fixed=0) == (1, [1, 2, 4, 8])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"a": 0}', b'{"a": "b"}', b'{"cut'])
def test_a_broken_file_is_measured_again_and_mended(content, measured, tmp_path, caplog):
    (tmp_path / "batches.json").write_bytes(content)
    assert measured() == (8, [1, 2, 4, 8])
    assert measured() == (8, [])


def test_a_batch_beyond_what_the_device_takes_is_measured_again(measured):
    measured()
    assert measured(FakeDevice(largest_batch=4)) == (4, [1, 2, 4])


def test_where_nothing_can_be_written_the_measurement_still_holds(network, clock, tmp_path, caplog):
    (tmp_path / "file").touch()
    calibration = Calibration(tmp_path / "file" / "batches.json", clock)
    assert calibration.batch(FakeDevice(largest_batch=2), TimedSession(clock), network) == 2
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(("chosen", "expected"), [(2, [2, 2]), (1, [1, 1, 1, 1])])
def test_the_executor_makes_batches_of_the_measured_size(chosen, expected, network):
    class Known:
        def batch(self, *_):
            return chosen

    device = FakeDevice(largest_batch=4)
    executor = Executor([device], calibration=Known())
    executor.load(network)
    tiles = [FakeTile(value, side=8) for value in range(4)]
    executor.submit("", "task", TileKey(network, 8, 8), tiles)
    wait_for(*tiles)
    executor.close()
    assert [len(batch) for batch in device.batches] == expected


def test_a_network_is_opened_once_and_warmed_up_when_it_was_measured(network, tmp_path):
    """A session would keep the memory that its largest batches took."""
    device, calibration = FakeDevice(largest_batch=2), Calibration(tmp_path / "batches.json")
    for opened in (1, 2):
        executor = Executor([device], calibration=calibration)
        executor.load(network)
        executor.close()
        assert len(device.opened) == device.warmed_up == opened
        assert len(device.batches) == device.batches_when_warmed_up > 0


@pytest.mark.parametrize(
    "words",
    [
        "Non-zero status code returned while running Resize node. Name:'up' Status Message: "
        "ResizeNearestImpl: output element count exceeds int range.",
        "CUDNN_STATUS_NOT_SUPPORTED",
    ],
)
def test_a_network_loads_though_large_batches_of_it_fail(words, network, tmp_path):
    class Session(TimedSession):
        def run(self, tiles):
            if len(tiles) >= 8:
                raise as_model_error(RuntimeError(words), "the model failed")
            return super().run(tiles)

    device, clock = FakeDevice(largest_batch=16), Clock()
    device.open = lambda _network: Session(clock)
    executor = Executor([device], calibration=Calibration(tmp_path / "batches.json", clock))
    executor.load(network)
    executor.close()
    assert list(measure_rates(Session(clock), 8, 16, clock)) == [1, 2, 4]
    assert "4" in (tmp_path / "batches.json").read_text("utf-8")


def test_a_device_that_is_lost_while_it_is_measured_is_lost(clock):
    class Session(TimedSession):
        def run(self, tiles):
            if len(tiles) == 4:
                raise lost()
            return super().run(tiles)

    with pytest.raises(DeviceLostError):
        measure_rates(Session(clock), tile=8, largest=16, clock=clock)


def test_a_network_whose_largest_tile_does_not_fit_can_still_be_used_with_smaller_ones(network, tmp_path):
    executor = Executor(
        [FakeDevice(largest_batch=4, memory=50)], calibration=Calibration(tmp_path / "batches.json")
    )
    executor.load(network)
    assert executor.room(network) == 32
    tile = FakeTile(7, side=5)
    executor.submit("", "task", TileKey(network, 5, 5), [tile])
    wait_for(tile)
    executor.close()
    assert tile.told == [7]


def test_a_device_that_runs_one_tile_at_a_time_is_not_measured(network):
    class Forbidden:
        def batch(self, *_):
            raise AssertionError

    executor = Executor([FakeDevice(largest_batch=1)], calibration=Forbidden())
    executor.load(network)
    executor.close()
