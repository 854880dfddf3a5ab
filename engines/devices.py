"""The devices that networks run on.

One seam: whoever wants a model run asks a `Device` to open its ONNX file and gets a `Session`, whatever
runtime is behind it. `find_devices` finds those of this machine.
"""

import ctypes
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from engines.activity import Memory
from engines.blocks import BlockSession
from engines.errors import ModelError
from engines.ncnn_device import find_ncnn
from engines.openvino_device import PrecisionChoice, find_openvino
from engines.runtimes import onnxruntime
from engines.sessions import Network, OrtSession, Session, as_model_error
from onnx_models import split_file

__all__ = [
    "CpuDevice",
    "CudaDevice",
    "Device",
    "DeviceChoice",
    "PrecisionChoice",
    "RuntimeChoice",
    "find_devices",
    "usable_cores",
]

log = logging.getLogger(__name__)

DeviceChoice = Literal["auto", "cpu", "cuda"]
RuntimeChoice = Literal["auto", "onnxruntime", "openvino", "ncnn"]


class Device(Protocol):
    """Where networks run. `open`, and what it gives, is used by one thread, the device's own."""

    @property
    def name(self) -> str:
        """For people, such as "CPU, 8 threads" or "CUDA 0, NVIDIA H200"; unlike every other's."""

    @property
    def kind(self) -> str:
        """What is measured on one device holds for all of equal kind: the hardware and the runtime."""

    @property
    def largest_batch(self) -> int:
        """The most tiles that one run may take. Above 1 tiles are cut to one size, to share runs."""

    def memory_use(self) -> Memory | None:
        """Its own memory; None where it has none, or does not tell. May be called in any thread."""

    def open(self, network: Network) -> Session:
        """Load a network.

        Raises:
            ModelError: if it cannot be loaded here.
        """


@dataclass(frozen=True, slots=True)
class CpuDevice:
    """The CPU, by ONNX Runtime, in fp32.

    A batch gains nothing here (measured: four tiles in one run take 1.1 × as long as one after the other),
    so every run is of one tile.
    """

    threads: int
    """How many one run may use."""

    @property
    def name(self) -> str:
        return f"CPU, {self.threads} threads, ONNX Runtime fp32"

    @property
    def kind(self) -> str:
        return f"{self.name} {onnxruntime.__version__}"

    @property
    def largest_batch(self) -> int:
        return 1

    def memory_use(self) -> None:
        """See `Device.memory_use`."""

    def open(self, network: Network) -> Session:
        """See `Device.open`."""
        split = split_file(network.path, network.scale)
        if split is None:
            return self._open(network.path, network.path)
        body, tail = (self._open(part, network.path) for part in (split.body, split.tail))
        return BlockSession(body.run, tail.run, split, network.scale)

    def _open(self, model: Path | bytes, path: Path) -> OrtSession:
        return _open_in_onnxruntime(model, path, self.name, self.threads, "CPUExecutionProvider", {})


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """An NVIDIA GPU, by ONNX Runtime."""

    index: int
    """CUDA's number of it, among those that CUDA_VISIBLE_DEVICES leaves."""
    hardware: str
    """Such as "NVIDIA H200"."""

    @property
    def name(self) -> str:
        return f"CUDA {self.index}, {self.hardware}"

    @property
    def kind(self) -> str:
        return f"{self.hardware}, ONNX Runtime {onnxruntime.__version__}"

    @property
    def largest_batch(self) -> int:
        return 16

    def memory_use(self) -> Memory | None:
        """See `Device.memory_use`."""
        return _memory_of_gpu(self.index)

    def open(self, network: Network) -> Session:
        """See `Device.open`."""
        options = {
            "device_id": str(self.index),
            # The search that is the default tries every algorithm anew for each shape, and pictures come in
            # all shapes.
            "cudnn_conv_algo_search": "HEURISTIC",
            # Doubling what is taken would run out of memory with half of it unused.
            "arena_extend_strategy": "kSameAsRequested",
        }
        return _open_in_onnxruntime(
            network.path, network.path, self.name, usable_cores(), "CUDAExecutionProvider", options
        )


def find_devices(
    choice: DeviceChoice = "auto", runtime: RuntimeChoice = "auto", precision: PrecisionChoice = "auto"
) -> tuple[Device, ...]:
    """Every GPU that can be used, or else the CPU; or what is asked for. At least one.

    Args:
        choice: "auto" falls back to the CPU, "cuda" does not.
        runtime: what computes on the CPU; "auto" is OpenVINO where it is installed, as ncnn takes twice the
            memory. A GPU has ONNX Runtime.
        precision: "auto" lets OpenVINO use bf16 where the processor has it: it differs from fp32 by 57 dB
            (x4plus) and 49 dB (animevideov3), and takes a half to a third of the time.

    Raises:
        ModelError: if what is asked for cannot be used; the message says why.
    """
    if choice != "cpu":
        found = _find_gpus()
        if isinstance(found, tuple):
            return found
        if choice == "cuda":
            raise ModelError(f"no GPU can be used: {found}")
        log.info("no GPU: %s", found)
    return (_find_cpu(runtime, precision),)


def _find_cpu(runtime: RuntimeChoice, precision: PrecisionChoice) -> Device:
    if runtime == "ncnn":
        return find_ncnn(usable_cores(), _find_cpu("auto", precision))
    if runtime != "onnxruntime":
        try:
            return find_openvino(usable_cores(), precision)
        except ModelError as error:
            if runtime == "openvino":
                raise
            log.info("no OpenVINO: %s", error)
    return CpuDevice(usable_cores())


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use, by its affinity and by the CPU quota of its container.

    Args:
        cgroup: where the process's control group is mounted.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cpu_quota(cgroup))))


def _cpu_quota(cgroup: Path) -> float:
    """How many cores' time the control group grants; infinite without a limit, or without control groups.

    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), and version 1's cpu.cfs_quota_us.
    """
    try:
        if (limit := cgroup / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number: no limit
        return math.inf
    return share if share > 0 else math.inf  # -1 in version 1: no limit


def _open_in_onnxruntime(
    model: Path | bytes,
    path: Path,
    device: str,
    threads: int,
    provider: str,
    provider_options: dict[str, str],
) -> OrtSession:
    """Open a model, which is the file at `path` or a part of it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised
    # A plan for each size of pictures keeps the memory of those before.
    options.enable_mem_pattern = provider != "CPUExecutionProvider"
    # Threads that spin while they wait would take the cores from the event loop and the codecs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[(provider, provider_options)])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise as_model_error(error, f"{path.name} cannot be loaded on {device}") from error
    if provider not in session.get_providers():  # it falls back to the CPU silently
        raise ModelError(f"{path.name} cannot be loaded on {device}: {provider} does not start")
    return OrtSession(session)


def _find_gpus() -> tuple[Device, ...] | str:
    """The GPUs that ONNX Runtime can run on, at least one; or why there is none, in words.

    The driver is asked first: without one, ONNX Runtime's attempt would print errors of several lines.
    """
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this build of ONNX Runtime has no CUDA"
    try:
        driver = _driver()
    except OSError:
        return "no NVIDIA driver is installed"
    names = _names_of_gpus(driver)
    if not names:
        return "the NVIDIA driver finds no device"
    onnxruntime.preload_dlls()
    gpus = tuple(CudaDevice(index, name) for index, name in enumerate(names) if _provider_loads(index))
    return gpus or (
        "the CUDA and cuDNN libraries are missing or too old; pip install 'tilewire[cuda]' brings them"
    )


def _driver() -> ctypes.CDLL:
    """The CUDA driver; raises OSError if none is installed."""
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")


def _names_of_gpus(driver: ctypes.CDLL) -> list[str]:
    """By the CUDA driver API: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html"""
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    names = []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        known = driver.cuDeviceGet(ctypes.byref(device), index) == 0 and (
            driver.cuDeviceGetName(name, len(name), device) == 0
        )
        names.append(name.value.decode(errors="replace") if known else "GPU")
    return names


def _memory_of_gpu(index: int) -> Memory | None:
    """By the CUDA driver API, in the context that ONNX Runtime uses as well, the device's primary one.

    https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html
    """
    driver = _driver()
    device, context = ctypes.c_int(), ctypes.c_void_p()
    flags, active = ctypes.c_uint(), ctypes.c_int()
    free, size = ctypes.c_size_t(), ctypes.c_size_t()
    if driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    if driver.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(active)) != 0:
        return None
    # Without one nothing is loaded yet; to make one takes long, and memory.
    if not active.value or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) != 0:
        return None
    try:
        if driver.cuCtxPushCurrent_v2(context) != 0:
            return None
        try:
            told = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(size)) == 0
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return Memory(size.value - free.value, size.value) if told else None


def _provider_loads(index: int) -> bool:
    """Whether a session of the CUDA provider really gets this GPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    providers = [("CUDAExecutionProvider", {"device_id": str(index)}), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(_SMALLEST_MODEL, options, providers=providers)
    except Exception as error:  # noqa: BLE001 - whatever it is, this provider cannot be used
        log.warning("CUDA %d: %s", index, error)
        return False
    return "CUDAExecutionProvider" in session.get_providers()


# An ONNX file of one node, y = Identity(x), float[1]; IR version 8, opset 13.
_SMALLEST_MODEL = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)
