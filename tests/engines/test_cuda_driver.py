"""What NVIDIA's driver tells and does, with a driver that does as the test says."""

import pytest

from engines.activity import Memory
from engines.cuda_driver import memory_of_gpu, names_of_gpus


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
    assert names_of_gpus(FakeDriver(b"NVIDIA H200", None)) == ["NVIDIA H200", "GPU"]
    assert names_of_gpus(FakeDriver()) == []
    assert names_of_gpus(FakeDriver(b"NVIDIA H200", broken=True)) == []


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


def test_a_gpu_tells_its_memory_and_its_context_is_left_as_it_was():
    driver = FakeContexts()
    assert memory_of_gpu(driver, 0) == Memory(used=3, size=8)
    assert driver.calls == [
        "cuDevicePrimaryCtxRetain",
        "cuCtxPushCurrent_v2",
        "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRelease_v2",
    ]


@pytest.mark.parametrize("driver", [FakeContexts(active=False), FakeContexts(lost=True)])
def test_a_gpu_that_has_nothing_loaded_or_is_lost_tells_no_memory(driver):
    assert memory_of_gpu(driver, 0) is None
