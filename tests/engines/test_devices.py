"""Which devices are found, and what they make of files. Real GPUs: run with `pytest -m gpu`."""

import numpy as np
import onnxruntime
import pytest

from engines import DeviceOutOfMemoryError, ModelError, devices, find_devices
from engines.activity import Memory
from engines.devices import CudaDevice, usable_cores
from engines.sessions import Network


def test_the_cpu_is_always_there_and_runs_one_tile_at_a_time():
    (device,) = find_devices("cpu")
    assert device.name.startswith("CPU, ")
    assert device.largest_batch == 1
    assert device.threads >= 1


def test_without_a_gpu_auto_means_the_cpu_and_cuda_says_why_not(monkeypatch):
    monkeypatch.setattr(devices, "_find_gpus", lambda: "no NVIDIA driver is installed")
    assert find_devices("auto") == find_devices("cpu")
    with pytest.raises(ModelError, match="no GPU can be used: no NVIDIA driver is installed"):
        find_devices("cuda")


def test_every_gpu_is_a_device(monkeypatch):
    monkeypatch.setattr(devices, "_find_gpus", lambda: (CudaDevice(0, "H200"), CudaDevice(1, "H200")))
    assert [device.name for device in find_devices("auto")] == ["CUDA 0, H200", "CUDA 1, H200"]
    assert len({device.kind for device in find_devices("cuda")}) == 1
    assert all(device.name.startswith("CPU") for device in find_devices("cpu"))


class FakeDriver:
    """NVIDIA's driver API, as far as it is asked."""

    def __init__(self, *names, broken=False):
        self.names, self.broken = names, broken

    def cuInit(self, _flags):  # noqa: N802
        return 100 if self.broken else 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, buffer, _length, device):  # noqa: N802
        name = self.names[device.value]
        buffer.value = name or b""
        return 0 if name else 1


def test_the_driver_names_the_gpus():
    assert devices._names_of_gpus(FakeDriver(b"NVIDIA H200", None)) == ["NVIDIA H200", "GPU"]
    assert devices._names_of_gpus(FakeDriver()) == []
    assert devices._names_of_gpus(FakeDriver(b"NVIDIA H200", broken=True)) == []


class FakeContexts(FakeDriver):
    """A driver with one GPU of 8 bytes, 5 of them free."""

    def __init__(self, *, active=True, lost=False):
        super().__init__(b"GPU")
        self.active, self.lost, self.calls = active, lost, []

    def cuDevicePrimaryCtxGetState(self, _device, _flags, active):  # noqa: N802
        active._obj.value = self.active
        return 0

    def cuMemGetInfo_v2(self, free, size):  # noqa: N802
        free._obj.value, size._obj.value = 5, 8
        return 700 if self.lost else 0

    def __getattr__(self, name):
        return lambda *_: self.calls.append(name) or 0


def test_a_gpu_tells_its_memory_and_its_context_is_left_as_it_was(monkeypatch):
    driver = FakeContexts()
    monkeypatch.setattr(devices, "_driver", lambda: driver)
    assert CudaDevice(0, "GPU").memory_use() == Memory(used=3, size=8)
    assert driver.calls == [
        "cuDevicePrimaryCtxRetain",
        "cuCtxPushCurrent_v2",
        "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRelease_v2",
    ]


@pytest.mark.parametrize("driver", [FakeContexts(active=False), FakeContexts(lost=True)])
def test_a_gpu_that_has_nothing_loaded_or_is_lost_tells_no_memory(driver, monkeypatch):
    monkeypatch.setattr(devices, "_driver", lambda: driver)
    assert CudaDevice(0, "GPU").memory_use() is None


def test_looking_for_gpus_ends_in_devices_or_in_words():
    found = devices._find_gpus()
    assert " " in found if isinstance(found, str) else all(isinstance(gpu, CudaDevice) for gpu in found)


def test_the_network_that_probes_a_provider_can_be_run():
    probe = onnxruntime.InferenceSession(devices._SMALLEST_MODEL, providers=["CPUExecutionProvider"])
    assert probe.run(None, {"x": np.ones(1, np.float32)}) == [1]


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_a_file_that_is_missing_or_no_network_is_a_model_error(content, tmp_path):
    if content is not None:
        (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx cannot be loaded on CPU"):
        find_devices("cpu")[0].open(Network(tmp_path / "broken.onnx", 2, 64))


def test_a_gpu_that_cannot_be_used_is_a_model_error_not_the_cpu(small_network):
    with pytest.raises(ModelError, match=r"cannot be loaded on CUDA 99, none"):
        CudaDevice(99, "none").open(small_network)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "10000000 100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "90000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_the_cpu_quota_of_a_container_is_respected(files, expected, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cores(tmp_path) == (expected or usable_cores(tmp_path / "none"))


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(small_network):
    gpus = find_devices("cuda")
    tiles = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), np.uint8)
    expected = find_devices("cpu")[0].open(small_network).run(tiles)
    for gpu in gpus:
        difference = gpu.open(small_network).run(tiles).astype(int) - expected
        assert np.abs(difference).max() <= 2, gpu.name


@pytest.mark.gpu
def test_a_batch_beyond_the_memory_of_a_gpu_is_known_as_such(small_network):
    session = find_devices("cuda")[0].open(small_network)
    with pytest.raises(DeviceOutOfMemoryError):
        session.run(np.zeros((64, 4096, 4096, 3), np.uint8))
    assert session.run(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 16, 16, 3)


@pytest.mark.gpu
def test_a_gpu_that_has_a_network_loaded_tells_its_memory(network_file):
    (gpu, *_) = find_devices("cuda")
    gpu.open(network_file)
    memory = gpu.memory_use()
    assert 0 < memory.used < memory.size
