"""The CPU by OpenVINO: the same ONNX file, computed faster than by ONNX Runtime.

Measured on two AVX2 cores in fp32, against ONNX Runtime: animevideov3 1.35 times as fast, x4plus and
x4plus-anime as fast within the noise; the results differ by one level of 255 at most. Where the processor
computes in bf16 it is two to three times as fast.

Shapes stay dynamic: the first run of another size costs some tens of milliseconds for its kernels.
"""

import importlib.util
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.devices.blocks import BlockSession
from engines.devices.cpu_runtime import CpuRuntime
from engines.devices.failures import as_model_error, loading
from engines.devices.heap import drop_mapped
from engines.devices.openvino_parts import Compile, OpenVinoPart
from engines.devices.ort import open_ort
from engines.devices.parts import Part, PartSession
from engines.devices.runtimes import import_openvino
from engines.devices.sessions import Network, Session
from engines.errors import ModelError

__all__ = ["CpuPrecision", "OpenVinoDevice", "Precision", "find_openvino"]

CpuPrecision = Literal["auto", "fp32"]
Precision = Literal["fp32", "bf16"]

_HINTS = {"fp32": "f32", "bf16": "bf16"}

_CACHED_KERNELS = 64
"""Kernels that are kept for sizes seen before. By default they are 5000: a megabyte for every new picture
size, until they take gigabytes; with so few it stays below 100 MB and costs next to nothing (measured)."""

_LIGHT = 8 * 2**20
"""Bytes of a network that may be loaded twice."""

_TINY = 10**9
"""Multiplications that one thread does in 2 ms."""


class _Runs:
    """Counts what runs side by side."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[bool]:
        """Count one run while the block lasts; gives whether it is the only one."""
        with self._lock:
            self._count += 1
            alone = self._count == 1
        try:
            yield alone
        finally:
            with self._lock:
                self._count -= 1


@dataclass(frozen=True, slots=True)
class OpenVinoDevice(CpuRuntime):
    """The CPU, by OpenVINO."""

    precision: Precision
    runs: _Runs = field(default_factory=_Runs, compare=False, repr=False)
    """Those of light networks that are under way."""

    @property
    def runtime(self) -> str:
        """See `CpuRuntime.runtime`."""
        return f"OpenVINO {self.precision}"

    @property
    def kind(self) -> str:
        """See `Device.kind`."""
        return f"{self.name} {import_openvino().__version__}"

    def side_by_side(self, _network: Network) -> bool:
        """See `Device.side_by_side`."""
        return True

    def open(self, network: Network) -> Session:
        """See `Device.open`."""
        split = network.split
        files = [network.path] if split is None else [split.body, split.tail]
        cache = _cache(network, files[0].parent)
        kept = {} if cache is None else {"CACHE_DIR": str(cache)}
        with loading(network.path.name, self.name):
            core = import_openvino().Core()

            def opened(file: Path, threads: int) -> _OpenVinoSession:
                compiled = core.compile_model(
                    file, "CPU", self._configuration(self.precision, threads) | kept
                )
                if len(compiled.outputs) != 1:
                    raise ModelError(f"{file.name} has {len(compiled.outputs)} outputs")
                return _OpenVinoSession(compiled, compiled.create_infer_request(), cache)

            sessions = [opened(file, self.threads) for file in files]
            if split is None and self.threads > 1 and (size := files[0].stat().st_size) <= _LIGHT:
                return _LightSession(sessions[0], opened(files[0], 1), size // 4, self.runs)
        if split is None:
            return sessions[0]
        body, tail = sessions
        release = body.release_memory, tail.release_memory
        return BlockSession(body.run, tail.run, split, network.scale, release)

    def open_part(self, part: Part) -> PartSession:
        """See `Device.open_part`."""
        if not part.inexact:
            return open_ort(part.path, self.name, self.threads, "CPUExecutionProvider")
        with loading(part.path.name, self.name):
            return OpenVinoPart(
                part.path, self._compile("fp32"), self._compile("bf16") if self.precision == "bf16" else None
            )

    def _configuration(self, precision: Precision, threads: int) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",  # all threads for the one run, not some for each of several
            "ENABLE_CPU_PINNING": False,  # the event loop and the codecs need the cores as well
            "CPU_RUNTIME_CACHE_CAPACITY": _CACHED_KERNELS,
            "INFERENCE_NUM_THREADS": threads,
        }

    def _compile(self, precision: Precision) -> Compile:
        core, configuration = import_openvino().Core(), self._configuration(precision, self.threads)
        return lambda model: core.compile_model(model, "CPU", configuration)


class _LightSession:
    """A small network: one thread runs what is tiny, or has company, and all threads run the rest.

    Threads that work together wait for each other, spinning. Measured on two cores, animevideov3 in bf16:
    24² pixels take 0.9 ms of one thread, or 0.7 ms and 1.7 ms of both cores' time; two of 72² take 6 ms side
    by side and 7 ms in turn.
    """

    def __init__(
        self, wide: "_OpenVinoSession", narrow: "_OpenVinoSession", weights: int, runs: _Runs
    ) -> None:
        """Run it by either.

        Args:
            wide: of all threads.
            narrow: of one.
            weights: how many numbers the network has; each is used for each pixel, about.
            runs: what else is under way on the device.
        """
        self._wide = wide
        self._narrow = narrow
        self._weights = weights
        self._runs = runs

    def run(self, tiles: NDArray[Any]) -> NDArray[Any]:
        """See `Session.run`."""
        with self._runs.one() as alone:
            tiny = self._weights * (tiles.size // 3) <= _TINY
            return (self._wide if alone and not tiny else self._narrow).run(tiles)

    def release_memory(self) -> None:
        """See `Session.release_memory`."""
        self._wide.release_memory()
        self._narrow.release_memory()


class _OpenVinoSession:
    """A network, or a part of one, in OpenVINO."""

    def __init__(self, compiled: Any, request: Any, cache: Path | None) -> None:
        self._compiled = compiled
        self._request = request
        self._cache = cache
        self._input: Any = None
        """Keeps the last input alive: the request holds only its address."""

    def run(self, tiles: NDArray[Any]) -> NDArray[Any]:
        """See `Session.run`; a part takes or gives float32."""
        try:
            # `start_async` would copy it, and look at it for longer than all else takes in this thread.
            tiles = np.require(tiles, requirements=("C_CONTIGUOUS", "WRITEABLE"))  # else it takes no address
            self._input = import_openvino().Tensor(tiles, shared_memory=True)
            self._request.set_input_tensor(0, self._input)
            # Not `infer`: with one thread OpenVINO 2026.4 swallows what fails, and gives the last result.
            self._request.start_async()
            self._request.wait()
            result: NDArray[Any] = self._request.get_output_tensor(0).data.copy()
        except Exception as error:
            raise as_model_error(error, f"the model failed on a batch of {tiles.shape}") from error
        return result

    def release_memory(self) -> None:
        """See `Session.release_memory`."""
        self._compiled.release_memory()
        if self._cache is not None:
            drop_mapped(self._cache)  # it computes with weights in an order of its own


def _cache(network: Network, directory: Path) -> Path | None:
    """Where a compiled network is kept, for this version of OpenVINO only; None if it cannot be.

    A network is loaded from there in a fifth of the time, and its weights are mapped rather than copied
    (measured: x4plus takes 0.2 s and 105 MB in place of 1 s and 180 MB). If what is kept is damaged, OpenVINO
    compiles again:
    https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/optimizing-latency/model-caching-overview.html
    """
    if not network.sha256 or not os.access(directory, os.W_OK):
        return None
    versions = directory / ".openvino"
    version: str = import_openvino().__version__  # such as 2026.4.1-22982-e213a147257-releases/2026/4
    of_version = versions / version.partition("-")[0]
    if not of_version.is_dir():
        shutil.rmtree(versions, ignore_errors=True)
    return of_version / f"{network.path.stem}-{network.sha256[:16]}"


def find_openvino(threads: int, precision: CpuPrecision = "auto") -> OpenVinoDevice:
    """The CPU by OpenVINO; "auto" computes in bf16 if the processor has it, in fp32 otherwise.

    Raises:
        ModelError: if OpenVINO is not installed, or cannot be used; the message says why.
    """
    if importlib.util.find_spec("openvino") is None:
        raise ModelError("OpenVINO is not installed; pip install openvino brings it")
    try:
        able: list[str] = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as error:
        raise as_model_error(error, "OpenVINO cannot be used") from error
    return OpenVinoDevice(threads, "bf16" if precision == "auto" and "BF16" in able else "fp32")
