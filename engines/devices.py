"""The devices that networks run on.

One seam: whoever wants a model run asks a `Device` to open its ONNX file and gets a `Session`, whatever
runtime is behind it. `find_devices` finds those of this machine.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from engines.activity import Memory
from engines.blocks import BlockSession
from engines.cores import usable_cores
from engines.cuda_device import CudaDevice, find_gpus
from engines.errors import ModelError
from engines.ncnn_device import find_ncnn
from engines.openvino_device import find_openvino
from engines.parts import Part, PartSession, open_part
from engines.runtimes import onnxruntime
from engines.sessions import Network, OrtSession, Session, open_network
from engines.tensorrt_device import find_tensorrt
from onnx_models import split_file

__all__ = [
    "CpuDevice",
    "Device",
    "DeviceChoice",
    "PrecisionChoice",
    "RuntimeChoice",
    "find_devices",
    "stand_in_for",
]

log = logging.getLogger(__name__)

DeviceChoice = Literal["auto", "cpu", "cuda"]
RuntimeChoice = Literal["auto", "onnxruntime", "openvino", "ncnn", "tensorrt"]
PrecisionChoice = Literal["auto", "fp32", "fp16"]


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

    def open_part(self, part: Part) -> PartSession:
        """Load a part of a model.

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
        return open_network(model, path, self.name, self.threads, "CPUExecutionProvider", {})

    def open_part(self, part: Part) -> PartSession:
        """See `Device.open_part`."""
        return open_part(part, self.name, self.threads, "CPUExecutionProvider")


def find_devices(
    choice: DeviceChoice = "auto", runtime: RuntimeChoice = "auto", precision: PrecisionChoice = "auto"
) -> tuple[Device, ...]:
    """Every GPU that can be used, or else the CPU; or what is asked for. At least one.

    Args:
        choice: "auto" falls back to the CPU, "cuda" does not.
        runtime: what computes; "auto" on a CPU is OpenVINO where it is installed, as ncnn takes twice the
            memory, and on a GPU CUDA. "tensorrt" is for GPUs, the others are for CPUs.
        precision: "auto" lets OpenVINO use bf16 where the processor has it: it differs from fp32 by 57 dB
            (x4plus) and 49 dB (animevideov3), and takes a half to a third of the time. A GPU computes in fp16
            what stays within 45 dB of fp32; "fp16" has it do so without a look, and is nothing for a CPU.

    Raises:
        ModelError: if what is asked for cannot be used; the message says why.
    """
    if choice != "cpu":
        found = find_gpus(precision)
        if isinstance(found, tuple):
            return find_tensorrt(found) if runtime == "tensorrt" else found
        if choice == "cuda" or runtime == "tensorrt":
            raise ModelError(f"no GPU can be used: {found}")
        log.info("no GPU: %s", found)
    return (_find_cpu(runtime, precision),)


def stand_in_for(
    devices: Iterable[Device], choice: DeviceChoice, runtime: RuntimeChoice, precision: PrecisionChoice
) -> Callable[[], Device] | None:
    """What finds the CPU, once all GPUs are lost; None where there are none, or nothing else is wanted.

    Args:
        devices: what `find_devices` found.
        choice, runtime, precision: see there.
    """
    if choice != "auto" or not any(isinstance(device, CudaDevice) for device in devices):
        return None
    return lambda: _find_cpu(
        "auto" if runtime == "tensorrt" else runtime, "auto" if precision == "fp16" else precision
    )


def _find_cpu(runtime: RuntimeChoice, precision: PrecisionChoice) -> Device:
    if runtime == "tensorrt":
        raise ModelError("TensorRT needs a GPU")
    if precision == "fp16":
        raise ModelError("fp16 needs a GPU: a CPU computes in fp32, or with OpenVINO in bf16")
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
