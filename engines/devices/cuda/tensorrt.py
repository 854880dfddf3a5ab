"""NVIDIA GPUs by TensorRT: an engine for each network and GPU, which takes minutes to build, and is kept.

Options and limits: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
"""

import ctypes
import hashlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from engines.devices.cuda.device import CudaDevice, GpuSession
from engines.devices.runtimes import onnxruntime
from engines.devices.sessions import Network, Session, warmed_up
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError
from onnx_models import TO_FLOAT, TO_NCHW, TO_NHWC, TO_UINT8

__all__ = ["TensorRtDevice", "engine_directory", "find_tensorrt", "profile", "with_casts_outside"]

log = logging.getLogger(__name__)

_PROVIDER = "TensorrtExecutionProvider"
_LARGEST_BATCH = 4


@dataclass(frozen=True, slots=True)
class TensorRtDevice(CudaDevice):
    """An NVIDIA GPU by TensorRT, and by CUDA for what TensorRT cannot run."""

    version: str = ""
    """TensorRT's; an engine of another one is of no use."""
    product: str = "TensorRT"

    @property
    def name(self) -> str:
        """See `Device.name`."""
        return f"CUDA {self.index}, {self.hardware}, {self.product}"

    @property
    def kind(self) -> str:
        """See `Device.kind`."""
        return f"{self.hardware}, {self.precision}, {self.product} {self.version}"

    @property
    def largest_batch(self) -> int:
        """See `Device.largest_batch`."""
        return _LARGEST_BATCH

    def open(self, network: Network) -> Session:
        """See `Device.open`."""
        by_cuda = CudaDevice(self.index, self.hardware, self.precision)
        try:
            engine = self._open(network)
        except (DeviceLostError, DeviceOutOfMemoryError):
            raise
        except ModelError as error:
            log.info("%s leaves %s to CUDA: %s", self.name, network.path.name, error)
            return by_cuda.open(network)
        return _Bounded(engine, network.tile, lambda: warmed_up(by_cuda.open(network)))

    def _open_model(self, network: Network, model: Path | bytes, options: dict[str, str]) -> GpuSession:
        whole = model.read_bytes() if isinstance(model, Path) else model
        content, image = with_casts_outside(whole)
        cache = str(engine_directory(self, network, content))
        engine = {
            "device_id": str(self.index),
            "trt_fp16_enable": str(isinstance(model, bytes)),
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": cache,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": cache,
            **profile(network, image, "trt_profile_{}_shapes"),
        }
        return self._session(
            network,
            lambda _graphs: self._inference_session(network, content, options, (_PROVIDER, engine)),
            graphs=False,
        )


class _Bounded:
    """Runs on an engine what is within its bounds, and all else elsewhere: it would be built anew.

    Args:
        side: the longest side of its tiles.
        open_other: opens what runs the others, when there is one.
    """

    def __init__(self, engine: Session, side: int, open_other: Callable[[], Session]) -> None:
        self._engine = engine
        self._side = side
        self._open_other = open_other
        self._other: Session | None = None

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Session.run`."""
        if max(tiles.shape[1:3]) <= self._side and len(tiles) <= _LARGEST_BATCH:
            return self._engine.run(tiles)
        if self._other is None:
            self._other = self._open_other()
        return self._other.run(tiles)

    def release_memory(self) -> None:
        """See `Session.release_memory`; what is large is on the GPU."""


def engine_directory(device: TensorRtDevice, network: Network, content: bytes) -> Path:
    """Where engines are kept: one for each network, as in ONNX Runtime's names its weights do not count."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    versions = f"{onnxruntime.__version__}-{device.version}"
    place = device.product.lower().replace(" ", "-")
    directory = network.path.parent / place / f"{network.path.stem}-{digest}-{versions}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def profile(network: Network, image: str, option: str) -> dict[str, str]:
    """The options that give the bounds of the shapes that an engine is built for.

    Args:
        network: its tiles are the largest.
        image: the name of its input.
        option: their names, with `{}` in place of min, opt, max.
    """
    side = network.tile
    shapes = {"min": (1, 1, 1), "opt": (1, side, side), "max": (_LARGEST_BATCH, side, side)}
    return {
        option.format(bound): f"{image}:" + "x".join(map(str, (*shape, 3))) for bound, shape in shapes.items()
    }


def with_casts_outside(content: bytes) -> tuple[bytes, str]:
    """A network that casts its image first and its result last; and the name of that image.

    TensorRT takes and gives bytes, but does nothing else with them.

    Args:
        content: as `onnx_models.graph` makes it.

    Raises:
        ModelError: if it is of another kind.
    """
    network = onnx.load_from_string(content)
    nodes = {node.name: node for node in network.graph.node}
    for transpose, cast, before in (
        (TO_NCHW, TO_FLOAT, True),
        (TO_NHWC, TO_UINT8, False),
    ):
        if transpose not in nodes or cast not in nodes:
            raise ModelError("it takes pixels in a way of its own")
        first, second = (nodes[transpose], nodes[cast]) if before else (nodes[cast], nodes[transpose])
        swapped = [onnx.NodeProto(), onnx.NodeProto()]
        swapped[0].CopyFrom(second)
        swapped[1].CopyFrom(first)
        middle = f"{transpose}.cast"
        swapped[0].input[0], swapped[0].output[0] = first.input[0], middle
        swapped[1].input[0], swapped[1].output[0] = middle, second.output[0]
        first.CopyFrom(swapped[0])
        second.CopyFrom(swapped[1])
    image = next(node.input[0] for node in network.graph.node if node.name == TO_FLOAT)
    result: bytes = network.SerializeToString()
    return result, image


def find_tensorrt(gpus: tuple[CudaDevice, ...]) -> tuple[TensorRtDevice, ...]:
    """The GPUs, by TensorRT.

    Raises:
        ModelError: if it is not installed, or cannot be used; the message says why.
    """
    if _PROVIDER not in onnxruntime.get_available_providers():
        raise ModelError("this build of ONNX Runtime has no TensorRT")
    try:
        version = _load_libraries()
    except OSError as error:
        raise ModelError(
            f"TensorRT 10 is not installed, pip install 'tensorrt-cu13<11' fetches it from NVIDIA: {error}"
        ) from error
    return tuple(TensorRtDevice(gpu.index, gpu.hardware, gpu.precision, str(version)) for gpu in gpus)


def _load_libraries() -> int:
    """Load what ONNX Runtime needs, from the Python package if it is there; gives TensorRT's version."""
    package = importlib.util.find_spec("tensorrt_libs")
    places = [Path(place) for place in (package.submodule_search_locations or ())] if package else []
    libraries = []
    for name in ("libnvinfer.so.10", "libnvonnxparser.so.10"):
        path = next((place / name for place in places if (place / name).exists()), Path(name))
        libraries.append(ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL))
    version: int = libraries[0].getInferLibVersion()
    return version
