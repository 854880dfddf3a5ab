"""A network on an NVIDIA GPU: pixels through pinned memory, and a CUDA graph for each shape that comes often.

Copies come simply before and after a run, as the bytes that cross the bus are few: 512 × 512 pixels are
0.8 MB, enlarged four times 12.6 MB. By PCIe 5 at 50 GB/s that takes 0.3 ms, where the 9.2 TFLOP of x4plus
take an H200 12 ms at best. To overlap them would gain 2 %, and need a second stream and all buffers twice.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.devices.cuda.graphs import NO_GRAPH, RUNS_UNTIL_GRAPH, CaptureGate, GraphPlan
from engines.devices.cuda.memory import GpuBuffer, GpuMemory, PinnedMemory
from engines.devices.failures import as_model_error
from engines.devices.runtimes import onnxruntime
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError
from onnx_models import one_line

__all__ = ["CudaSession", "OpenGpuSession"]

log = logging.getLogger(__name__)

_REASON = 300
"""Characters of an error that are logged."""

_TOLERANCE = 1.0
"""Levels between a run and its graph, on average: the algorithms may round in different ways."""

OpenGpuSession = Callable[[bool], Any]
"""Opens the network in ONNX Runtime on a GPU, able to capture graphs or not; inside `CaptureGate.use`.

Raises a ModelError if that fails."""


class CudaSession:
    """A network loaded on a GPU. For one thread, as the graphs of ONNX Runtime are."""

    def __init__(
        self,
        name: str,
        open_session: OpenGpuSession,
        *,
        scale: int,
        memory: GpuMemory,
        index: int,
        gate: CaptureGate,
        graphs: bool = True,
        device_type: str = "cuda",
    ) -> None:
        """Open the network.

        Args:
            name: of the network and the device, for messages.
            open_session: called at once, and again if graphs turn out not to work.
            scale: of the network.
            memory: of the GPU.
            index: CUDA's number of it.
            gate: the one of this process.
            graphs: whether to capture any.
            device_type: what ONNX Runtime calls the memory.

        Raises:
            ModelError: if it cannot be opened.
        """
        self._name = name
        self._open = open_session
        self._scale = scale
        self._memory = memory
        self._device = (device_type, index)
        self._gate = gate
        self._pinned = PinnedMemory(memory)
        self._input, self._output = GpuBuffer(memory), GpuBuffer(memory)
        self._bound: dict[int, _Bound] = {}
        self._failed: list[Any] = []
        self._plan = GraphPlan() if graphs else None
        with gate.use():
            self._session = self._opened()

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Session.run`."""
        count, height, width, _ = tiles.shape
        try:
            with self._gate.use():
                upscaled = self._pinned.empty((count, height * self._scale, width * self._scale, 3))
            for part in _parts(count):
                self._run(tiles[part], upscaled[part])
        except Exception as error:
            raise as_model_error(error, f"the model failed on a batch of {tiles.shape}") from error
        return upscaled

    def release_memory(self) -> None:
        """See `Session.release_memory`; what is large is on the GPU."""

    def warm_up(self, sides: Iterable[int]) -> None:
        """Run tiles of these sides often enough to have graphs, as far as there is memory for them.

        A graph that gives something else than a plain run means that there will be none.

        Raises:
            ModelError: see `Session.run`.
        """
        for side in sides:
            tile = np.random.default_rng(side).integers(0, 256, (1, side, side, 3), np.uint8)
            with suppress(DeviceOutOfMemoryError):
                plain = self.run(tile)
                if self._plan is None:
                    continue
                for _ in range(RUNS_UNTIL_GRAPH - 1):
                    self.run(~tile)  # the last is captured: what it gave must not be what the next one gives
                difference = np.abs(self.run(tile).astype(np.int16) - plain).mean()
                if self._plan is not None and difference > _TOLERANCE:
                    self._do_without_graphs(ModelError(f"they are wrong by {difference:.1f} levels of 255"))
                    with self._gate.use():
                        self._start_again()

    def _opened(self) -> Any:
        if self._plan is not None:
            try:
                return self._open(True)
            except DeviceLostError:
                raise
            except ModelError as error:  # such as a node for the CPU
                self._do_without_graphs(error)
        return self._open(False)

    def _do_without_graphs(self, error: Exception) -> None:
        self._plan = None
        reason = one_line(error)
        begin = max(0, reason.find("CUDA failure"))  # before it the C++ signatures of who called whom
        log.info("%s runs without CUDA graphs: %s", self._name, reason[begin : begin + _REASON])

    def _start_again(self) -> None:
        self._failed.append(self._session)  # to end it while it captures might end the process
        self._bound.clear()
        self._session = self._open(False)

    def _run(self, tiles: NDArray[np.uint8], upscaled: NDArray[np.uint8]) -> None:
        graph = NO_GRAPH if self._plan is None else self._plan.graph_for(tiles.shape)
        capture = self._plan is not None and graph != NO_GRAPH and not self._plan.has(tiles.shape)
        with self._gate.use(capture=capture) as alone:
            if capture and not alone:
                capture, graph = False, NO_GRAPH
            try:
                self._run_as(graph, tiles, upscaled)
            except Exception as error:
                if not capture or isinstance(as_model_error(error, ""), DeviceLostError):
                    raise
                self._do_without_graphs(error)
                self._start_again()
                self._run_as(NO_GRAPH, tiles, upscaled)
        if capture and self._plan is not None:
            self._plan.captured(tiles.shape, graph)

    def _run_as(self, graph: int, tiles: NDArray[np.uint8], upscaled: NDArray[np.uint8]) -> None:
        staged = self._pinned.empty(tiles.shape)
        staged[...] = tiles
        bound = self._bound.get(graph) or self._bind(tiles, upscaled)
        if graph != NO_GRAPH:
            self._bound[graph] = bound
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        self._memory.copy_in(bound.input, staged.ctypes.data, tiles.nbytes)
        self._session.run_with_iobinding(bound.binding, options)  # returns when it is done
        self._memory.copy_out(upscaled.ctypes.data, bound.output, upscaled.nbytes)

    def _bind(self, tiles: NDArray[np.uint8], upscaled: NDArray[np.uint8]) -> "_Bound":
        bound = _Bound(
            self._session.io_binding(),
            self._input.address(tiles.nbytes),
            self._output.address(upscaled.nbytes),
        )
        (takes,), (gives,) = self._session.get_inputs(), self._session.get_outputs()
        bound.binding.bind_input(takes.name, *self._device, np.uint8, tiles.shape, bound.input)
        bound.binding.bind_output(gives.name, *self._device, np.uint8, upscaled.shape, bound.output)
        return bound


class _Bound(NamedTuple):
    """Where a run finds its input and puts its output: addresses in the GPU's memory."""

    binding: Any
    input: int
    output: int


def _parts(count: int) -> Iterator[slice]:
    """A batch in powers of two, the largest first: with few sizes of batches there are few shapes."""
    first = 0
    while first < count:
        size = 1 << ((count - first).bit_length() - 1)
        yield slice(first, first + size)
        first += size
