"""What NVIDIA's driver tells and does, with a driver that does as the test says."""

import pytest

from engines import DeviceLostError, DeviceOutOfMemoryError, ModelError
from engines.activity import Memory
from engines.devices.cuda.driver import CudaDriver, cuda_version, gpus_of, memory_of_gpu
from engines.devices.failures import as_model_error


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

    def cuDeviceGetAttribute(self, number, attribute, device):  # noqa: N802
        number._obj.value = {75: 12, 76: 1}[attribute]
        return 0 if self.names[device.value] else 1

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 13040
        return 1 if self.broken else 0


def test_the_driver_names_the_gpus_and_what_code_they_run():
    assert gpus_of(FakeDriver(b"NVIDIA GB10", None)) == [("NVIDIA GB10", (12, 1)), ("GPU", (0, 0))]
    assert gpus_of(FakeDriver()) == []
    assert gpus_of(FakeDriver(b"NVIDIA GB10", broken=True)) == []


def test_the_driver_says_which_cuda_it_serves():
    assert cuda_version(FakeDriver()) == (13, 4)
    assert cuda_version(FakeDriver(broken=True)) == (0, 0)


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


class FakeMemory(FakeContexts):
    """A driver whose addresses need more than 32 bits; `error` is what it fails with."""

    def __init__(self, error=0):
        super().__init__()
        self.error, self.arguments = error, []

    def cuMemAlloc_v2(self, address, size):  # noqa: N802
        address._obj.value = 0x7F00_0000_0000 + size.value
        return self.error

    def cuMemHostAlloc(self, address, size, flags):  # noqa: N802
        address._obj.value = 0x7FFF_0000_0000 + size.value
        return self.error if flags.value == 1 else 1

    def cuMemcpyHtoD_v2(self, *arguments):  # noqa: N802
        self.arguments = [argument.value for argument in arguments]
        return self.error

    cuMemcpyDtoH_v2 = cuMemFree_v2 = cuMemFreeHost = cuMemcpyHtoD_v2  # noqa: N815

    def cuGetErrorString(self, code, text):  # noqa: N802
        text._obj.value = b"out of memory" if code == 2 else None
        return 0


def test_addresses_and_sizes_reach_the_driver_whole():
    driver = FakeMemory()
    gpu = CudaDriver(driver, 0)
    address, pinned = gpu.allocate(5 << 30), gpu.allocate_pinned(3)
    assert (address, pinned) == (0x7F00_0000_0000 + (5 << 30), 0x7FFF_0000_0003)
    for call, arguments in (
        (gpu.copy_in, (address, pinned, 5 << 30)),
        (gpu.copy_out, (pinned, address, 5 << 30)),
        (gpu.free, (address,)),
        (gpu.free_pinned, (pinned,)),
    ):
        call(*arguments)
        assert driver.arguments == list(arguments)
    assert driver.calls.count("cuCtxPushCurrent_v2") == driver.calls.count("cuCtxPopCurrent_v2") == 6


@pytest.mark.parametrize(
    ("code", "meaning"), [(2, DeviceOutOfMemoryError), (700, DeviceLostError), (1, ModelError)]
)
def test_what_fails_is_known_as_what_it_is_and_leaves_the_context_as_it_was(code, meaning):
    driver = FakeMemory(code)
    for call in (lambda gpu: gpu.allocate(8), lambda gpu: gpu.copy_out(1, 2, 3)):
        with pytest.raises(RuntimeError, match=rf"CUDA failure {code}: .* ; expr=cuMem") as raised:
            call(CudaDriver(driver, 0))
        assert type(as_model_error(raised.value, "it failed")) is meaning
    assert driver.calls[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]
