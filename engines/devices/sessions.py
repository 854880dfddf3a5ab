"""A network loaded on a device, whatever runtime is behind it, and what its failures mean.

1. `Session` is the seam: a batch in, a batch out.
2. `run_checked` and `probe` hold every session to what it must give, so that a foreign or broken ONNX file
   is refused before a task meets it.
3. `as_model_error` is the one place that knows the runtimes' messages: they raise errors without a common
   class, and only the text tells "too large" from "this device is gone".
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.devices.runtimes import inference_session, onnxruntime
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError
from onnx_models import Weights

__all__ = ["Network", "OrtSession", "Session", "as_model_error", "open_network", "probe", "run_checked"]


@dataclass(frozen=True, slots=True)
class Network:
    """An ONNX file that takes `(N, H, W, 3) uint8` and gives `(N, H × scale, W × scale, 3) uint8`."""

    path: Path
    scale: int
    tile: int
    """The largest side of a tile, in input pixels."""
    weights: Weights | None = None
    """What the file was made of, for runtimes that would rather have that; None if it is not known."""


class Session(Protocol):
    """A network loaded on a device."""

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Upscale a batch, (N, H, W, 3) uint8 → (N, H × scale, W × scale, 3) uint8.

        Raises:
            DeviceOutOfMemoryError: if the batch is too large for the device.
            DeviceLostError: if the device does not work any longer.
            ModelError: if the run fails.
        """


class OrtSession:
    """A network, or a part of one, in ONNX Runtime."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input: str = session.get_inputs()[0].name

    def run(self, tiles: NDArray[Any]) -> NDArray[Any]:
        """See `Session.run`; a part takes or gives float32."""
        try:
            (result,) = self._session.run(None, {self._input: tiles})
        except Exception as error:
            raise as_model_error(error, f"the model failed on a batch of {tiles.shape}") from error
        given: NDArray[Any] = result
        return given


def open_network(
    model: Path | bytes,
    path: Path,
    device: str,
    threads: int,
    provider: str,
    provider_options: dict[str, str],
) -> OrtSession:
    """Open a network in ONNX Runtime, the file at `path`, or a part of one.

    Raises:
        ModelError: if it cannot be loaded.
    """
    try:
        return OrtSession(inference_session(model, threads, (provider, provider_options)))
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise as_model_error(error, f"{path.name} cannot be loaded on {device}") from error


def run_checked(session: Session, network: Network, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Upscale a batch, and make sure that what comes out is what a network must give.

    Raises:
        ModelError: see `Session.run`; also if it gives anything else than uint8 of the right shape.
    """
    count, height, width, _ = tiles.shape
    expected = (count, height * network.scale, width * network.scale, 3)
    upscaled: Any = session.run(tiles)
    if not isinstance(upscaled, np.ndarray) or upscaled.dtype != np.uint8 or upscaled.shape != expected:
        found = f"{upscaled.shape} {upscaled.dtype}" if isinstance(upscaled, np.ndarray) else type(upscaled)
        raise ModelError(
            f"{network.path.name} is not an upscaler of scale {network.scale}: "
            f"of {tiles.shape} it makes {found}, not {expected} uint8"
        )
    return upscaled


def probe(session: Session, network: Network) -> None:
    """Run a tiny picture, from black to white, and refuse a network that does not give a larger one.

    The levels that come out need not be those that went in, but they must be near: weights that are not
    numbers, or that overflow in low precision, give black, white or noise.

    Raises:
        ModelError: if the network is not an upscaler of its scale.
    """
    ramp = np.linspace(0, 255, _PROBE_SIDE).astype(np.uint8)
    picture = np.broadcast_to(ramp[np.newaxis, :, np.newaxis], (_PROBE_SIDE, _PROBE_SIDE, 3))
    upscaled = run_checked(session, network, np.ascontiguousarray(picture[np.newaxis]))[0]
    scale = network.scale
    reduced = upscaled.reshape(_PROBE_SIDE, scale, _PROBE_SIDE, scale, 3).mean((1, 3))
    difference = np.abs(reduced - picture).mean()
    if difference > _PROBE_TOLERANCE:
        raise ModelError(
            f"{network.path.name} does not give the picture that it takes, only larger: "
            f"they differ by {difference:.0f} levels of 255 on average"
        )


_PROBE_SIDE = 16
_PROBE_TOLERANCE = 48  # levels; the networks of the catalogue differ by 3 at most, black or noise by over 64


def as_model_error(error: Exception, what: str) -> ModelError:
    """What an error of a runtime means, with `what` failed in front of its message."""
    if isinstance(error, ModelError):
        return error
    message = f"{what}: {error if str(error) else type(error).__name__}"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(message):
        return DeviceOutOfMemoryError(message)
    code = _CUDA_FAILURE.search(message)
    if (code and int(code[1]) in _FATAL_CUDA_CODES) or _DEVICE_LOST.search(message):
        return DeviceLostError(message)
    return ModelError(message)


# ONNX Runtime's arena (bfc_arena.cc), CUDA, cuBLAS, cuDNN 8 and 9, C++ and OpenVINO, in this order.
_OUT_OF_MEMORY = re.compile(
    r"failed to allocate (memory|\d+ bytes)"
    r"|is smaller than requested bytes"
    r"|CUDA failure 2:|out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR_(DEVICE|HOST)_ALLOCATION_FAILED"
    r"|bad[_ ]alloc|(can ?not|could not) allocate",
    re.IGNORECASE,
)

# cuda_call.cc: "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=…".
_CUDA_FAILURE = re.compile(r"CUDA (?:failure|error) (\d+)", re.IGNORECASE)

# Of these the CUDA runtime's reference says that the process must be ended to use CUDA again, or that there
# is no device: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html#cudaError
_FATAL_CUDA_CODES = frozenset(
    {
        4,  # cudart unloading: the driver shuts down
        46,  # devices unavailable
        100,  # no device
        101,  # invalid device
        214,  # uncorrectable ECC error
        220,  # uncorrectable NVLink error
        700,  # illegal address
        702,  # launch timeout
        709,  # context is destroyed
        710,  # device-side assert
        714,  # hardware stack error
        715,  # illegal instruction
        716,  # misaligned address
        717,  # invalid address space
        718,  # invalid program counter
        719,  # launch failure
        999,  # unknown
    }
)
_DEVICE_LOST = re.compile(
    r"illegal memory access|driver shutting down|device (was |is )?lost|fallen off the bus"
    r"|uncorrectable (ECC|NVLink)|unspecified launch failure|CUDA_ERROR_DEINITIALIZED",
    re.IGNORECASE,
)
