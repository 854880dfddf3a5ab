"""Which devices this machine has."""

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from engines.devices.cores import usable_cores
from engines.devices.cpu import CpuDevice
from engines.devices.cpu_runtime import CpuRuntime
from engines.devices.cuda.driver import open_driver
from engines.devices.device import Device
from engines.devices.fastest import FastestRuntime
from engines.devices.memory import memory_size
from engines.devices.ncnn import NcnnDevice, find_ncnn, has_ncnn
from engines.devices.openvino import CpuPrecision, OpenVinoDevice, find_openvino
from engines.errors import ModelError

if TYPE_CHECKING:
    from engines.devices.cuda.device import CudaDevice, GpuPrecision

__all__ = ["DeviceChoice", "PrecisionChoice", "RuntimeChoice", "find_devices", "stand_in_for"]

log = logging.getLogger(__name__)

DeviceChoice = Literal["auto", "cpu", "cuda"]
RuntimeChoice = Literal["auto", "onnxruntime", "openvino", "ncnn", "tensorrt", "tensorrt-rtx"]
PrecisionChoice = Literal["auto", "fp32", "fp16"]


_MEMORY_FOR_NCNN = 8 * 10**9
"""Bytes that a machine needs to have ncnn chosen: the largest tile of x4plus takes half of that."""

_ON_GPUS: frozenset[RuntimeChoice] = frozenset({"tensorrt", "tensorrt-rtx"})

_CPUS = CpuRuntime, FastestRuntime


def find_devices(
    choice: DeviceChoice = "auto",
    runtime: RuntimeChoice = "auto",
    precision: PrecisionChoice = "auto",
    cores: int | None = None,
) -> tuple[Device, ...]:
    """Every GPU that can be used, or else the CPU; or what is asked for. At least one.

    Args:
        choice: "auto" falls back to the CPU, "cuda" does not.
        runtime: what computes; "auto" on a CPU is for each network what is the fastest of all that are
            installed (`engines.devices.fastest`), and on a GPU CUDA. "tensorrt" and "tensorrt-rtx" are for
            GPUs, the others are for CPUs.
        precision: "auto" lets OpenVINO use bf16 where the processor has it: it differs from fp32 by 57 dB
            (x4plus) and 49 dB (animevideov3), and takes a half to a third of the time. A GPU computes in fp16
            what stays within 45 dB of fp32; "fp16" has it do so without a look, and is nothing for a CPU.
        cores: how many of the CPU's one run may use; default: all that this process may.

    Raises:
        ModelError: if what is asked for cannot be used; the message says why.
    """
    if choice != "cpu":
        found = find_gpus(precision)
        if isinstance(found, tuple):
            return _on_gpus(runtime, found) if runtime in _ON_GPUS else found
        if choice == "cuda" or runtime in _ON_GPUS:
            raise ModelError(f"no GPU can be used: {found}")
        log.info("no GPU: %s", found)
    return (_find_cpu(runtime, precision, cores or usable_cores()),)


def find_gpus(precision: "GpuPrecision") -> "tuple[CudaDevice, ...] | str":
    """See `engines.devices.cuda.find`, which takes memory: it is imported only where there is a driver."""
    try:
        open_driver()
    except OSError:
        return "no NVIDIA driver is installed"
    from engines.devices.cuda import find  # noqa: PLC0415

    return find.find_gpus(precision)


def _on_gpus(runtime: RuntimeChoice, found: "tuple[CudaDevice, ...]") -> tuple[Device, ...]:
    from engines.devices.cuda.tensorrt import find_tensorrt  # noqa: PLC0415
    from engines.devices.cuda.tensorrt_rtx import find_tensorrt_rtx  # noqa: PLC0415

    return find_tensorrt(found) if runtime == "tensorrt" else find_tensorrt_rtx(found)


def stand_in_for(
    devices: Iterable[Device], choice: DeviceChoice, runtime: RuntimeChoice, precision: PrecisionChoice
) -> Callable[[], Device] | None:
    """What finds the CPU, once all GPUs are lost; None where there are none, or nothing else is wanted.

    Args:
        devices: what `find_devices` found.
        choice: see there.
        runtime: see there.
        precision: see there.
    """
    if choice != "auto" or all(isinstance(device, _CPUS) for device in devices):
        return None
    return lambda: _find_cpu(
        "auto" if runtime in _ON_GPUS else runtime,
        "auto" if precision == "fp16" else precision,
        usable_cores(),
    )


def _find_cpu(runtime: RuntimeChoice, precision: PrecisionChoice, cores: int) -> Device:
    if runtime in _ON_GPUS:
        raise ModelError("TensorRT needs a GPU")
    if precision == "fp16":
        raise ModelError("fp16 needs a GPU: a CPU computes in fp32, or with OpenVINO in bf16")
    openvino = None if runtime == "onnxruntime" else _find_openvino(cores, precision, runtime)
    if runtime == "auto":
        return _fastest_of(CpuDevice(cores), openvino)
    other = openvino or CpuDevice(cores)
    return find_ncnn(cores, other) if runtime == "ncnn" else other


def _find_openvino(threads: int, precision: CpuPrecision, runtime: RuntimeChoice) -> OpenVinoDevice | None:
    try:
        return find_openvino(threads, precision)
    except ModelError as error:
        if runtime == "openvino":
            raise
        log.info("no OpenVINO: %s", error)
        return None


def _fastest_of(onnx_runtime: CpuDevice, openvino: OpenVinoDevice | None) -> Device:
    threads = onnx_runtime.threads
    runtimes: list[tuple[CpuRuntime, ...]] = [(onnx_runtime,)]
    if openvino is not None:
        exact = OpenVinoDevice(threads, "fp32")
        runtimes.append((exact,) if openvino == exact else (openvino, exact))
    if has_ncnn() and memory_size() >= _MEMORY_FOR_NCNN:
        runtimes.append((NcnnDevice(threads, None),))
    return FastestRuntime(tuple(runtimes)) if len(runtimes) > 1 else onnx_runtime
