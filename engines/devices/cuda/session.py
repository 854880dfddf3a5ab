"""A network on an NVIDIA GPU: pixels through pinned memory, and a CUDA graph for each shape that comes often.

Copies come simply before and after a run, as the bytes that cross the bus are few: 512 × 512 pixels are
0.8 MB, enlarged four times 12.6 MB. By PCIe 5 at 50 GB/s that takes 0.3 ms, where the 9.2 TFLOP of x4plus
take an H200 12 ms at best. To overlap them would gain 2 %, and need a second stream and all buffers twice.
"""

import logging
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.devices.cuda.graphs import NO_GRAPH, RUNS_UNTIL_GRAPH, CaptureGate, GraphPlan
from engines.devices.cuda.memory import GpuBuffer, GpuMemory, PinnedMemory
from engines.devices.failures import as_model_error
from engines.devices.runtimes import onnxruntime
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError
from onnx_models import one_line

__all__ = ["CudaSession", "OpenGpuSession", "parts_of"]

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
        most_pixels: int,
        warm_sides: Sequence[int] = (),
        graphs: bool = True,
        device_type: str = "cuda",
    ) -> None:
        """Open the network.

        Args:
            name: of the network and the device, for messages.
            open_session: called at once, and again if graphs turn out not to work, or too many were made.
            scale: of the network.
            memory: of the GPU.
            index: CUDA's number of it.
            gate: the one of this process.
            most_pixels: what one run may take of input; larger batches run in parts.
            warm_sides: of the square tiles that have a graph from `warm_up` on.
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
        self._most_pixels = most_pixels
        self._warm_sides = warm_sides
        self._pinned = PinnedMemory(memory, gate.free_later)
        self._input, self._output = (GpuBuffer(memory, gate.free_later) for _ in range(2))
        self._plan = GraphPlan() if graphs else None
        self._is_warm = False
        self._bound: dict[int, _Bound] = {}
        self._opened: list[Any] = []
        """The session in use, the last; and those that failed: to end one while it captures might end the
        process."""
        weakref.finalize(self, gate.free_later, partial(_let_go, self._bound, self._opened)).atexit = False
        with gate.use():
            self._open_first()

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Session.run`."""
        count, height, width, _ = tiles.shape
        if height * width > self._most_pixels:
            raise DeviceOutOfMemoryError(
                f"a tile of {height} × {width} pixels is too large: values within the network would have "
                "more elements than a run can count"
            )
        try:
            with self._gate.use():
                upscaled = self._pinned.empty((count, height * self._scale, width * self._scale, 3))
            for part in parts_of(count, self._most_pixels // (height * width)):
                self._run(tiles[part], upscaled[part])
        except Exception as error:
            raise as_model_error(error, f"the model failed on a batch of {tiles.shape}") from error
        return upscaled

    def release_memory(self) -> None:
        """See `Session.release_memory`; what is large is on the GPU."""

    def warm_up(self) -> None:
        """See `WarmingSession.warm_up`. Sides that there is no memory for are left out.

        A graph that gives something else than a plain run means that there will be none.
        """
        with self._gate.use():
            self._give_back()
        self._is_warm = True
        for side in self._warm_sides:
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

    def close(self) -> None:
        """Give back all memory; it cannot be used any longer."""
        with self._gate.use():
            _let_go(self._bound, self._opened)
            self._input.free()
            self._output.free()

    def _open_first(self) -> None:
        if self._plan is not None:
            try:
                self._opened.append(self._open(True))
            except DeviceLostError:
                raise
            except ModelError as error:  # such as a node for the CPU
                self._do_without_graphs(error)
            else:
                return
        self._opened.append(self._open(False))

    def _do_without_graphs(self, error: Exception) -> None:
        self._plan = None
        log.info("%s runs without CUDA graphs: %s", self._name, _reason(error))

    def _start_again(self) -> None:
        """Open the network anew, with no graphs yet."""
        self._bound.clear()
        self._opened.append(self._open(self._plan is not None))

    def _renew(self) -> None:
        """Have the memory of all graphs given back; those that are still wanted are captured again."""
        try:
            fresh = self._open(True)
        except DeviceLostError:
            raise
        except ModelError as error:
            log.warning("%s captures no more graphs: %s", self._name, _reason(error))
            return
        self._bound.clear()
        self._opened[-1] = fresh
        self._plan = GraphPlan()

    def _give_back(self) -> None:
        """Give back what large runs took of the GPU's memory. There must be no graphs: they would use it."""
        options = _run_options(NO_GRAPH)
        options.terminate = True  # it computes nothing, and at its end the arena shrinks
        kind, index = self._device
        arena = f"{'gpu' if kind == 'cuda' else kind}:{index}"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)
        bound = self._bind((1, 1, 1, 3), (1, self._scale, self._scale, 3))
        with suppress(Exception):  # it does not reach the end
            self._opened[-1].run_with_iobinding(bound.binding, options)
        self._input.free()
        self._output.free()

    def _run(self, tiles: NDArray[np.uint8], upscaled: NDArray[np.uint8]) -> None:
        plan = self._plan if self._is_warm else None
        graph = NO_GRAPH if plan is None else plan.graph_for(tiles.shape)
        capture = plan is not None and graph != NO_GRAPH and not plan.has(tiles.shape)
        with self._gate.use(capture=capture) as alone:
            if plan is None or not capture:
                self._run_as(graph, tiles, upscaled)
            elif not alone:
                self._run_as(NO_GRAPH, tiles, upscaled)
            else:
                self._capture(plan, graph, tiles, upscaled)

    def _capture(
        self, plan: GraphPlan, graph: int, tiles: NDArray[np.uint8], upscaled: NDArray[np.uint8]
    ) -> None:
        try:
            self._run_as(graph, tiles, upscaled)
        except Exception as error:
            failure = as_model_error(error, "")
            if isinstance(failure, DeviceLostError):
                raise
            if isinstance(failure, DeviceOutOfMemoryError):
                plan.no_room(tiles.shape)
                self._bound.pop(graph, None)
                log.info("%s has no memory for a graph of %s: %s", self._name, tiles.shape, _reason(error))
            else:
                self._do_without_graphs(error)
                self._start_again()
            self._run_as(NO_GRAPH, tiles, upscaled)
            return
        if (released := plan.captured(tiles.shape)) is not None:
            self._bound.pop(released)
            self._opened[-1].release_captured_graph(released)
        if plan.is_worn:
            self._renew()

    def _run_as(self, graph: int, tiles: NDArray[np.uint8], upscaled: NDArray[np.uint8]) -> None:
        staged = self._pinned.empty(tiles.shape)
        staged[...] = tiles
        bound = self._bound.get(graph) or self._bind(tiles.shape, upscaled.shape)
        if graph != NO_GRAPH:
            self._bound[graph] = bound
        self._memory.copy_in(bound.input, staged.ctypes.data, tiles.nbytes)
        self._opened[-1].run_with_iobinding(bound.binding, _run_options(graph))  # returns when it is done
        self._memory.copy_out(upscaled.ctypes.data, bound.output, upscaled.nbytes)

    def _bind(self, tiles: Sequence[int], upscaled: Sequence[int]) -> "_Bound":
        session = self._opened[-1]
        bound = _Bound(
            session.io_binding(),
            self._input.address(math.prod(tiles)),
            self._output.address(math.prod(upscaled)),
        )
        (takes,), (gives,) = session.get_inputs(), session.get_outputs()
        bound.binding.bind_input(takes.name, *self._device, np.uint8, tiles, bound.input)
        bound.binding.bind_output(gives.name, *self._device, np.uint8, upscaled, bound.output)
        return bound


class _Bound(NamedTuple):
    """Where a run finds its input and puts its output: addresses in the GPU's memory."""

    binding: Any
    input: int
    output: int


def parts_of(count: int, most: int) -> Iterator[slice]:
    """A batch in parts of a power of four, the largest first: with few sizes of batches there are few shapes.

    Args:
        count: tiles of the batch.
        most: tiles of a part, at least one.
    """
    first = 0
    while first < count:
        size = 4 ** ((min(count - first, most).bit_length() - 1) // 2)
        yield slice(first, first + size)
        first += size


def _run_options(graph: int) -> Any:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def _reason(error: Exception) -> str:
    reason = one_line(error)
    begin = max(0, reason.find("CUDA failure"))  # before it the C++ signatures of who called whom
    return reason[begin : begin + _REASON]


def _let_go(bound: dict[int, _Bound], opened: list[Any]) -> None:
    """Drop the last references to what holds memory of the GPU."""
    bound.clear()
    opened.clear()
