"""Which runtime computes a network on a CPU: made up ones first, then those that are installed."""

import shutil
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from engines import ModelError, fastest_runtime, find_devices
from engines.devices import find
from engines.devices.cpu import CpuDevice
from engines.devices.fastest import FastestRuntime
from engines.devices.ncnn import NcnnDevice
from engines.devices.parity import LEAST_DECIBELS, decibels, photograph
from engines.devices.parts import Part
from engines.devices.sessions import Network


@dataclass(eq=False)
class FakeRuntime:
    """Enlarges by repeating pixels, in so many seconds of the clock, and so many levels wrong."""

    runtime: str
    seconds: float
    wrong: int = 0
    kind: str = "1.0"
    threads: int = 2
    opened: int = 0
    clock: object = None
    error: Exception | None = None
    runs: list = field(default_factory=list)

    @property
    def name(self):
        return f"CPU, {self.threads} threads, {self.runtime}"

    def side_by_side(self, _network):
        return self.runtime == "fast"

    def open(self, _network):
        if self.error is not None:
            raise self.error
        self.opened += 1
        return self

    def open_part(self, _part):
        if self.error is not None:
            raise self.error
        return self.runtime

    def run(self, tiles):
        first = not self.runs
        self.runs.append(tiles.shape)
        self.clock.now += self.seconds + 0.1 * first
        return np.clip(tiles.astype(int) + self.wrong, 0, 255).astype(np.uint8).repeat(2, 1).repeat(2, 2)


@pytest.fixture
def network(tmp_path):
    return Network(tmp_path / "network.onnx", scale=2, tile=200, sha256="a" * 64)


@pytest.fixture
def cpu(clock):
    """The CPU by the given runtimes: each is some forms of it."""

    def cpu(*runtimes):
        for forms in runtimes:
            for form in forms:
                form.clock = clock
        return FastestRuntime(tuple(runtimes), clock)

    return cpu


def exact(seconds=0.2):
    return (FakeRuntime("exact", seconds),)


def test_the_fastest_is_taken_and_what_its_first_run_takes_longer_does_not_count(cpu, network):
    device = cpu(exact(0.1), (FakeRuntime("fast", 0.04),), (FakeRuntime("slow", 0.5),))
    assert not device.side_by_side(network), "nothing is known of it yet"
    assert device.open(network).runtime == "fast"
    assert device.side_by_side(network)
    assert device.name == "CPU, 2 threads, exact, fast or slow"


def test_it_is_measured_once_and_for_all_devices_of_the_kind(cpu, network, tmp_path, caplog):
    caplog.set_level("INFO")
    assert cpu(exact(), (FakeRuntime("fast", 0.1),)).choose(network).runtime == "fast"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "network.onnx: fast (output megapixels/s: exact 0.0205, fast 0.041)"
    again = FakeRuntime("fast", 5)
    assert cpu(exact(), (again,)).choose(network) is again
    assert again.opened == 0
    assert "network.onnx: fast, as measured before" in caplog.text
    assert (tmp_path / "runtimes.json").exists()


@pytest.mark.parametrize("changed", ["version", "runtimes", "network", "unknown"])
def test_what_is_not_the_same_is_measured_anew(changed, cpu, network, tmp_path):
    if changed == "unknown":
        network = replace(network, sha256="")
    cpu(exact(), (FakeRuntime("fast", 0.1),)).choose(network)
    assert (tmp_path / "runtimes.json").exists() == (changed != "unknown")
    slow = FakeRuntime("fast", 5, kind="2.0" if changed == "version" else "1.0")
    runtimes = [exact(), (slow,)] + [(FakeRuntime("new", 5),)] * (changed == "runtimes")
    if changed == "network":
        network = replace(network, sha256="b" * 64)
    device = cpu(*runtimes)
    assert device.choose(network).runtime == "exact"
    assert device.choose(network).runtime == "exact"
    assert slow.opened == 1, "by one device only once"


def test_a_form_that_is_too_far_from_fp32_is_passed_over_for_the_next(cpu, network):
    far, near = FakeRuntime("far", 0.01, wrong=3), FakeRuntime("near", 0.1, wrong=1)
    assert cpu(exact(), (far, near)).choose(network) is near
    unused = FakeRuntime("unused", 0.01)
    assert cpu(exact(), (near, unused)).choose(replace(network, sha256="b" * 64)) is near
    assert unused.opened == 0


def test_a_runtime_that_fails_is_missed_unless_it_is_the_reference(cpu, network):
    broken = FakeRuntime("broken", 0.01, error=OSError("no library"))
    assert cpu(exact(), (broken,)).choose(network).runtime == "exact"
    with pytest.raises(OSError, match="no library"):
        cpu((broken,), exact()).choose(replace(network, sha256=""))


@pytest.mark.parametrize(
    ("inexact", "error", "runtime"),
    [(True, None, "other"), (True, ModelError("no such operator"), "exact"), (False, None, "exact")],
)
def test_a_part_that_may_be_inexact_runs_by_the_first_other_that_loads_it(cpu, inexact, error, runtime):
    device = cpu(exact(), (FakeRuntime("other", 0.1, error=error),))
    assert device.open_part(Part(Path("unet.onnx"), inexact=inexact)) == runtime


@pytest.mark.parametrize(("seconds", "tile", "side"), [(0.2, 200, 32), (0.01, 200, 96), (0.01, 20, 20)])
def test_the_picture_is_as_large_as_a_moment_and_a_tile_allow(seconds, tile, side, cpu, network):
    (reference,), other = exact(seconds), FakeRuntime("other", 0.1)
    reference.runs.append("its first run, which takes longer")
    cpu((reference,), (other,)).choose(replace(network, tile=tile))
    assert {reference.runs[-1], *other.runs} == {(1, side, side, 3)}


def test_a_slow_runtime_runs_once(cpu, network):
    slow = FakeRuntime("slow", 0.6)
    cpu(exact(), (slow,)).choose(network)
    assert len(slow.runs) == 1


@pytest.mark.skipif(find_spec("openvino") is None, reason="one runtime is installed: there is no choice")
def test_of_those_that_are_installed_one_is_taken_that_is_near_enough(small_network, tmp_path):
    path = tmp_path / small_network.path.name
    shutil.copy(small_network.path, path)
    network = replace(small_network, path=path)
    (device,) = find_devices("cpu")
    picture = photograph()
    expected = find_devices("cpu", "onnxruntime")[0].open(network).run(picture)
    assert decibels(device.open(network).run(picture), expected) >= LEAST_DECIBELS
    assert find_devices("cpu")[0].choose(network) == device.choose(network)
    assert device.choose(network).runtime in (tmp_path / "runtimes.json").read_text("utf-8")


def test_what_is_not_a_choice_has_none(catalogue, model_directory):
    (alone,) = find_devices("cpu", "onnxruntime")
    assert fastest_runtime(alone, catalogue.get("realesr-animevideov3"), model_directory) is None


def test_ncnn_is_one_of_them_where_there_is_memory_for_it(monkeypatch):
    pytest.importorskip("ncnn")
    names = []
    for size in (2**33, 2**32):
        monkeypatch.setattr(find, "memory_size", lambda size=size: size)
        names.append(find_devices("cpu")[0].name)
    assert ["ncnn" in name for name in names] == [True, False]


def test_ncnn_refuses_what_it_has_no_weights_of(tmp_path):
    with pytest.raises(ModelError, match=r"ncnn has no weights of network\.onnx"):
        NcnnDevice(2, None).open(Network(tmp_path / "network.onnx", 2, 64))


def test_with_one_runtime_there_is_nothing_to_measure(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert isinstance(find_devices("cpu")[0], CpuDevice)
