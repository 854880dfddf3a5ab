"""NVIDIA GPUs, by ONNX Runtime."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engines.activity import Memory
from engines.devices.cores import usable_cores
from engines.devices.cuda.driver import CudaDriver, memory_of_gpu, names_of_gpus, open_driver
from engines.devices.cuda.graphs import CaptureGate
from engines.devices.cuda.half import LEAST_DECIBELS, halved, parity
from engines.devices.cuda.session import CudaSession, OpenGpuSession
from engines.devices.failures import loading
from engines.devices.ort import OrtSession, open_ort
from engines.devices.parts import Arrays, Part, PartSession
from engines.devices.runtimes import inference_session, onnxruntime
from engines.devices.sessions import Network, Session
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError

__all__ = ["CudaDevice", "GpuPrecision", "find_gpus"]

log = logging.getLogger(__name__)


GpuPrecision = Literal["auto", "fp32", "fp16"]

_PROVIDER = "CUDAExecutionProvider"

_GATE = CaptureGate()

_GRAPHS_FROM = (1, 31)
"""Of ONNX Runtime. Before, a graph with a Concat went wrong after a run of another shape
(https://github.com/microsoft/onnxruntime/pull/32121)."""

_COMMON_SIDES = (256, 512)
"""Of pictures that run whole; beside the largest tile they have their graphs from the start."""


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """An NVIDIA GPU, by ONNX Runtime.

    Not in bf16: ONNX Runtime has no convolution for it that takes channels last.
    """

    index: int
    """CUDA's number of it, among those that CUDA_VISIBLE_DEVICES leaves."""
    hardware: str
    """Such as "NVIDIA H200"."""
    precision: GpuPrecision = "auto"
    """"auto" is fp16 for each network that is near enough to itself in fp32; "fp16" does not look."""

    @property
    def name(self) -> str:
        """See `Device.name`."""
        return f"CUDA {self.index}, {self.hardware}"

    @property
    def kind(self) -> str:
        """See `Device.kind`."""
        return f"{self.hardware}, {self.precision}, ONNX Runtime {onnxruntime.__version__}"

    @property
    def largest_batch(self) -> int:
        """See `Device.largest_batch`."""
        return 16

    def memory_use(self) -> Memory | None:
        """See `Device.memory_use`."""
        with _GATE.use():
            return memory_of_gpu(open_driver(), self.index)

    def open(self, network: Network) -> Session:
        """See `Device.open`."""
        with loading(network.path.name, self.name):  # without a driver it is an OSError
            session = self._open(network)
        session.warm_up(sorted({*_COMMON_SIDES, network.tile}))
        return session

    def open_part(self, part: Part) -> PartSession:
        """See `Device.open_part`."""
        with _GATE.use():
            return _GatedPart(open_ort(part.path, self.name, usable_cores(), _PROVIDER, self._options()))

    def _open(self, network: Network) -> CudaSession:
        if self.precision != "fp32":
            try:
                return self._open_half(network)
            except (DeviceLostError, DeviceOutOfMemoryError):
                raise
            except ModelError as error:
                if self.precision == "fp16":
                    raise
                log.info("%s computes in fp32: %s", self.name, error)
        return self._open_model(network, network.path, self._full_precision())

    def _open_half(self, network: Network) -> CudaSession:
        half = self._open_model(network, halved(network.path), self._convolutions())
        if self.precision == "auto":
            with _GATE.use():
                full = OrtSession(self._inference_session(network, network.path, self._full_precision()))
                decibels = parity(half, full)
            if decibels < LEAST_DECIBELS:
                raise ModelError(f"in fp16 {network.path.name} is within {decibels:.0f} dB only")
        return half

    def _open_model(self, network: Network, model: Path | bytes, options: dict[str, str]) -> CudaSession:
        def open_session(graphs: bool) -> Any:
            return self._inference_session(network, model, options | {"enable_cuda_graph": str(int(graphs))})

        return self._session(network, open_session, graphs=_version() >= _GRAPHS_FROM)

    def _session(self, network: Network, open_session: OpenGpuSession, *, graphs: bool) -> CudaSession:
        return CudaSession(
            f"{network.path.name} on {self.name}",
            open_session,
            scale=network.scale,
            memory=CudaDriver(open_driver(), self.index),
            index=self.index,
            gate=_GATE,
            graphs=graphs,
        )

    def _inference_session(
        self,
        network: Network,
        model: Path | bytes,
        options: dict[str, str],
        *before: tuple[str, dict[str, str]],
    ) -> Any:
        """A session on this GPU; `before` are providers that take what they can before CUDA's does."""
        with loading(network.path.name, self.name):
            return inference_session(model, usable_cores(), *before, (_PROVIDER, options))

    def _options(self) -> dict[str, str]:
        """The provider's options: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html."""
        return {
            "device_id": str(self.index),
            # cuDNN's quick choice of an algorithm.
            "cudnn_conv_algo_search": "HEURISTIC",
            # Doubling what is taken would run out of memory with half of it unused.
            "arena_extend_strategy": "kSameAsRequested",
        }

    def _convolutions(self) -> dict[str, str]:
        """For networks that are convolutions nearly throughout."""
        return self._options() | {
            # cuDNN's better choice, which takes longer; most runs are graphs, for which it was made once.
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "prefer_nhwc": "1",  # as the matrix units want it
        }

    def _full_precision(self) -> dict[str, str]:
        # TF32 is hardly more exact than fp16; for fp16 it must stay on, or the matrix units are not used.
        return self._convolutions() | {"use_tf32": "0"}


class _GatedPart:
    """A part that does not run while a graph is captured."""

    def __init__(self, part: PartSession) -> None:
        self._part = part

    def run_part(self, arrays: Arrays) -> Arrays:
        """See `PartSession.run_part`."""
        with _GATE.use():
            return self._part.run_part(arrays)

    def release_memory(self) -> None:
        """See `PartSession.release_memory`; what is large is on the GPU."""


def find_gpus(precision: GpuPrecision = "auto") -> tuple[CudaDevice, ...] | str:
    """The GPUs that ONNX Runtime can run on, at least one; or why there is none, in words.

    The driver is asked first: without one, ONNX Runtime's attempt would print errors of several lines.
    """
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this build of ONNX Runtime has no CUDA"
    try:
        driver = open_driver()
    except OSError:
        return "no NVIDIA driver is installed"
    names = names_of_gpus(driver)
    if not names:
        return "the NVIDIA driver finds no device"
    onnxruntime.preload_dlls()
    gpus = tuple(
        CudaDevice(index, name, precision) for index, name in enumerate(names) if _provider_loads(index)
    )
    return gpus or (
        "the CUDA and cuDNN libraries are missing or too old; pip install 'tilewire[cuda]' brings them"
    )


def _version() -> tuple[int, int]:
    major, minor = onnxruntime.__version__.split(".")[:2]
    return int(major), int(minor)


def _provider_loads(index: int) -> bool:
    """Whether a session of the CUDA provider really gets this GPU."""
    try:
        inference_session(_SMALLEST_MODEL, 1, (_PROVIDER, {"device_id": str(index)}))
    except Exception as error:  # noqa: BLE001 - whatever it is, this provider cannot be used
        log.warning("CUDA %d: %s", index, error)
        return False
    return True


# An ONNX file of one node, y = Identity(x), float[1]; IR version 8, opset 13.
_SMALLEST_MODEL = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)
