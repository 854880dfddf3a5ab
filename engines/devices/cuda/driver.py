"""NVIDIA's driver, for what ONNX Runtime does not give or do: the GPUs, and memory at known addresses.

By the CUDA driver API, https://docs.nvidia.com/cuda/cuda-driver-api/, in the context that ONNX Runtime uses
as well, the device's primary one. Its functions may be called in any thread.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import NamedTuple

from engines.activity import Memory

__all__ = ["CudaDriver", "Gpu", "cuda_version", "gpus_of", "index_of_bus", "memory_of_gpu", "open_driver"]


def open_driver() -> ctypes.CDLL:
    """The CUDA driver.

    Raises:
        OSError: if none is installed.
    """
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")


class Gpu(NamedTuple):
    """A GPU, as the driver knows it."""

    name: str
    """Such as "NVIDIA H200"."""
    capability: tuple[int, int]
    """Its compute capability, such as 9.0, which says what code it can run."""


def cuda_version(driver: ctypes.CDLL) -> tuple[int, int]:
    """The newest CUDA that the driver can serve, such as 13.0; 0.0 if it does not say."""
    version = c_int(0)
    if driver.cuDriverGetVersion(byref(version)) != 0:
        return 0, 0
    return version.value // 1000, version.value % 1000 // 10


def gpus_of(driver: ctypes.CDLL) -> list[Gpu]:
    """The GPUs, in CUDA's order; none if the driver does not work."""
    count = c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(byref(count)) != 0:
        return []
    return [_gpu(driver, index) for index in range(count.value)]


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device, name, number = c_int(), ctypes.create_string_buffer(256), c_int(0)
    if driver.cuDeviceGet(byref(device), index) != 0:
        return Gpu("GPU", (0, 0))
    known = driver.cuDeviceGetName(name, len(name), device) == 0
    capability = []
    for attribute in _CAPABILITY:
        found = driver.cuDeviceGetAttribute(byref(number), attribute, device) == 0
        capability.append(number.value if found else 0)
    return Gpu(name.value.decode(errors="replace") if known else "GPU", (capability[0], capability[1]))


def index_of_bus(driver: ctypes.CDLL, bus: str) -> int | None:
    """CUDA's number of the GPU at a place on the PCI bus, such as 0000:01:00.0; None if there is none."""
    device = c_int()
    return device.value if driver.cuDeviceGetByPCIBusId(byref(device), bus.encode()) == 0 else None


def memory_of_gpu(driver: ctypes.CDLL, index: int) -> Memory | None:
    """None if nothing is loaded there yet, or the GPU does not answer."""
    device, flags, active = c_int(), c_uint(), c_int()
    free, size = c_size_t(), c_size_t()
    if driver.cuDeviceGet(byref(device), index) != 0:
        return None
    if driver.cuDevicePrimaryCtxGetState(device, byref(flags), byref(active)) != 0:
        return None
    if not active.value:  # to make a context takes long, and memory
        return None
    try:
        with CudaDriver(driver, index).context():
            _check(driver, driver.cuMemGetInfo_v2(byref(free), byref(size)), "cuMemGetInfo")
    except RuntimeError:
        return None
    return Memory(size.value - free.value, size.value)


class CudaDriver:
    """Memory of one GPU, and main memory that it copies from and to at the full rate of the bus ("pinned").

    What fails is a RuntimeError, worded as ONNX Runtime words CUDA's errors.
    """

    def __init__(self, driver: ctypes.CDLL, index: int) -> None:
        """Use one GPU by the driver.

        Args:
            driver: see `open_driver`.
            index: CUDA's number of the GPU.
        """
        self._driver = driver
        self._index = index

    @contextmanager
    def context(self) -> Iterator[None]:
        """What is called inside is about this GPU."""
        driver, device, context = self._driver, c_int(), c_void_p()
        _check(driver, driver.cuDeviceGet(byref(device), self._index), "cuDeviceGet")
        _check(driver, driver.cuDevicePrimaryCtxRetain(byref(context), device), "cuDevicePrimaryCtxRetain")
        try:
            _check(driver, driver.cuCtxPushCurrent_v2(context), "cuCtxPushCurrent")
            try:
                yield
            finally:
                driver.cuCtxPopCurrent_v2(byref(context))
        finally:
            driver.cuDevicePrimaryCtxRelease_v2(device)

    def allocate(self, size: int) -> int:
        """The address of `size` bytes of the GPU's memory."""
        address = c_uint64()
        with self.context():
            self._call("cuMemAlloc_v2", byref(address), c_size_t(size))
        return address.value

    def free(self, address: int) -> None:
        """Give back what `allocate` gave."""
        with self.context():
            self._call("cuMemFree_v2", c_uint64(address))

    def allocate_pinned(self, size: int) -> int:
        """The address of `size` bytes of main memory, for all GPUs."""
        address = c_void_p()
        with self.context():
            self._call("cuMemHostAlloc", byref(address), c_size_t(size), c_uint(_PORTABLE))
        return address.value or 0

    def free_pinned(self, address: int) -> None:
        """Give back what `allocate_pinned` gave."""
        with self.context():
            self._call("cuMemFreeHost", c_void_p(address))

    def copy_in(self, address: int, pinned: int, size: int) -> None:
        """Copy from main memory to the GPU's. Waits for the end."""
        with self.context():
            self._call("cuMemcpyHtoD_v2", c_uint64(address), c_void_p(pinned), c_size_t(size))

    def copy_out(self, pinned: int, address: int, size: int) -> None:
        """Copy from the GPU's memory to main memory. Waits for the end."""
        with self.context():
            self._call("cuMemcpyDtoH_v2", c_void_p(pinned), c_uint64(address), c_size_t(size))

    def _call(self, name: str, *arguments: object) -> None:
        _check(self._driver, getattr(self._driver, name)(*arguments), name)


def _check(driver: ctypes.CDLL, code: int, name: str) -> None:
    if code != 0:
        text = c_char_p()
        driver.cuGetErrorString(code, byref(text))
        raise RuntimeError(f"CUDA failure {code}: {(text.value or b'').decode()} ; expr={name}")


_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: pinned for all contexts
_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
