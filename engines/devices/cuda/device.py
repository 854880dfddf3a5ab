"""NVIDIA GPUs, by ONNX Runtime."""

import logging
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.activity import Memory
from engines.devices.cores import usable_cores
from engines.devices.cuda.driver import CudaDriver, memory_of_gpu, open_driver
from engines.devices.cuda.graphs import CaptureGate
from engines.devices.cuda.half import halved
from engines.devices.cuda.session import CudaSession, OpenGpuSession
from engines.devices.failures import loading
from engines.devices.ort import OrtSession, open_ort
from engines.devices.parity import LEAST_DECIBELS, parity
from engines.devices.parts import Arrays, Part, PartSession
from engines.devices.runtimes import inference_session, onnxruntime
from engines.devices.sessions import Network, Session
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError
from engines.tiling.menu import side_for
from onnx_models import largest_activation

__all__ = ["GATE", "CudaDevice", "GatedSession", "GpuPrecision", "GpuSession"]

log = logging.getLogger(__name__)


GpuPrecision = Literal["auto", "fp32", "fp16"]

_PROVIDER = "CUDAExecutionProvider"

GATE = CaptureGate()
"""The one of this process."""

_GRAPHS_FROM = (1, 31)
"""Of ONNX Runtime. Before, a graph with a Concat went wrong after a run of another shape
(https://github.com/microsoft/onnxruntime/pull/32121)."""

_COMMON_SIDES = (256, 512)
"""Of pictures; their tiles have graphs from the start, and so has the largest one."""

_MOST_ELEMENTS = 2**31 - 1
"""Of a value: ONNX Runtime's kernels count them in 32 bits."""


class GpuSession(Session, Protocol):
    """A network loaded on a GPU."""

    def close(self) -> None:
        """Give back all memory; it cannot be used any longer."""


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

    def side_by_side(self, _network: Network) -> bool:
        """See `Device.side_by_side`."""
        return False

    def memory_use(self) -> Memory | None:
        """See `Device.memory_use`."""
        with GATE.use():
            return memory_of_gpu(open_driver(), self.index)

    def open(self, network: Network) -> Session:
        """See `Device.open`."""
        with loading(network.path.name, self.name):  # without a driver it is an OSError
            return self._open(network)

    def open_part(self, part: Part) -> PartSession:
        """See `Device.open_part`."""
        with GATE.use():
            return GatedSession(open_ort(part.path, self.name, usable_cores(), _PROVIDER, self._options()))

    def half_precision(self) -> dict[str, str]:
        """The provider's options for networks in fp16, which are convolutions nearly throughout."""
        return self._options() | {
            # cuDNN's better choice, which takes longer; most runs are graphs, for which it was made once.
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "prefer_nhwc": "1",  # as the matrix units want it
            "fuse_conv_bias": "1",  # not in a kernel of its own after each convolution
        }

    def _open(self, network: Network) -> GpuSession:
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

    def _open_half(self, network: Network) -> GpuSession:
        half = self._open_model(network, halved(network.path), self.half_precision())
        if self.precision == "auto":
            try:
                self._check_parity(network, half)
            except ModelError:
                half.close()
                raise
        return half

    def _check_parity(self, network: Network, half: GpuSession) -> None:
        with GATE.use():
            full = OrtSession(self._inference_session(network, network.path, self._full_precision()))
            try:
                decibels = parity(half, full)
            finally:
                full.close()
        if decibels < LEAST_DECIBELS:
            raise ModelError(f"in fp16 {network.path.name} is within {decibels:.0f} dB only")

    def _open_model(self, network: Network, model: Path | bytes, options: dict[str, str]) -> GpuSession:
        def open_session(graphs: bool) -> Any:
            return self._inference_session(network, model, options | {"enable_cuda_graph": str(int(graphs))})

        return self._session(network, open_session, graphs=_version() >= _GRAPHS_FROM)

    def _session(self, network: Network, open_session: OpenGpuSession, *, graphs: bool) -> CudaSession:
        side = network.tile
        return CudaSession(
            f"{network.path.name} on {self.name}",
            open_session,
            scale=network.scale,
            memory=CudaDriver(open_driver(), self.index),
            index=self.index,
            gate=GATE,
            most_pixels=_MOST_ELEMENTS // largest_activation(network.path, side, side) * side**2,
            warm_sides=sorted({side, *(side_for(common, side, network.overlap) for common in _COMMON_SIDES)}),
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

    def _full_precision(self) -> dict[str, str]:
        return self._options() | {
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            # TF32 is hardly more exact than fp16; for fp16 it must stay on, or the matrix units are not used.
            "use_tf32": "0",
            # With channels last, ONNX Runtime may turn TF32 on again where cuDNN has no plan without it.
            "prefer_nhwc": "0",
        }


class GatedSession:
    """A session of ONNX Runtime that neither runs nor ends while a graph is captured."""

    def __init__(self, session: OrtSession) -> None:
        self._session = session
        weakref.finalize(self, GATE.free_later, session.close).atexit = False

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Session.run`."""
        return self.run_part((tiles,))[0]

    def run_part(self, arrays: Arrays) -> Arrays:
        """See `PartSession.run_part`."""
        with GATE.use():
            return self._session.run_part(arrays)

    def release_memory(self) -> None:
        """See `Session.release_memory`; what is large is on the GPU."""

    def close(self) -> None:
        """Give back all memory; it cannot be used any longer."""
        with GATE.use():
            self._session.close()


def _version() -> tuple[int, int]:
    major, minor = onnxruntime.__version__.split(".")[:2]
    return int(major), int(minor)
