"""Devices, and ONNX Runtime sessions on them.

One seam: whoever wants a model run asks a `Device` to open its ONNX file and gets a `Session`, whatever
execution provider is behind it.
"""

import ctypes
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engines.errors import ModelError

__all__ = ["Device", "DeviceChoice", "Session", "find_device"]

log = logging.getLogger(__name__)

DeviceChoice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Device:
    """Where networks run.

    Attributes:
        name: for people, such as "CPU, 8 threads" or "CUDA 0".
        provider: ONNX Runtime's name of the execution provider.
        threads: how many threads one run may use on the CPU.
        largest_batch: how many tiles one run takes. On a CPU a batch gains nothing (measured: four tiles
            in one run take 1.1 × as long as one after the other), so there it is 1.
    """

    name: str
    provider: str
    threads: int
    largest_batch: int

    def open(self, path: Path) -> "Session":
        """Load an ONNX file that takes and gives (N, H, W, 3) uint8.

        Raises:
            ModelError: if ONNX Runtime cannot load it.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        # Threads that spin while they wait would take the cores from the event loop and the codecs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return Session(onnxruntime.InferenceSession(path, options, providers=[self.provider]))
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelError(f"{path.name} cannot be loaded on {self.name}: {error}") from error


class Session:
    """A network loaded on a device."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input: str = session.get_inputs()[0].name

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Upscale a batch, (N, H, W, 3) uint8 → (N, H × scale, W × scale, 3) uint8.

        Raises:
            ModelError: if the run fails.
        """
        try:
            (upscaled,) = self._session.run(None, {self._input: tiles})
        except Exception as error:
            raise ModelError(f"the model failed on a batch of {tiles.shape}: {error}") from error
        result: NDArray[np.uint8] = upscaled
        return result


def find_device(choice: DeviceChoice = "auto") -> Device:
    """The best device that is there, or the one that is asked for.

    Raises:
        ModelError: if "cuda" is asked for and no GPU can be used; the message says why.
    """
    if choice != "cpu":
        reason = _why_no_cuda()
        if reason is None:
            return Device("CUDA 0", "CUDAExecutionProvider", threads=_cores(), largest_batch=8)
        if choice == "cuda":
            raise ModelError(f"no GPU can be used: {reason}")
        log.info("no GPU: %s", reason)
    return Device(f"CPU, {_cores()} threads", "CPUExecutionProvider", threads=_cores(), largest_batch=1)


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _why_no_cuda() -> str | None:
    """None if ONNX Runtime can run on a CUDA device, otherwise why not, in words.

    The driver is asked first: without one, ONNX Runtime's attempt would print errors of several lines.
    """
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this build of ONNX Runtime has no CUDA"
    library = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return "no NVIDIA driver is installed"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no device"
    onnxruntime.preload_dlls()
    if not _provider_loads():
        return "the CUDA and cuDNN libraries are missing or too old; pip install 'tilewire[cuda]' brings them"
    return None


def _provider_loads() -> bool:
    """Whether a session of the CUDA provider really gets it: ONNX Runtime falls back to the CPU silently."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            _SMALLEST_MODEL, options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, this provider cannot be used
        log.warning("CUDA provider: %s", error)
        return False
    return "CUDAExecutionProvider" in session.get_providers()


# An ONNX file of one node, y = Identity(x), float[1]; IR version 8, opset 13.
_SMALLEST_MODEL = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)
