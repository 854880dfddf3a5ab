"""Which runs are worth a CUDA graph, and when one may be captured: decisions only, nothing of CUDA is here.

A graph is all kernels of one run for one shape, started at once. Without it the processor starts each of the
hundreds of kernels of a network, which takes longer than a small tile computes; and since 1.20 ONNX Runtime
plans every convolution anew when the shape is another than that of the run before
(https://github.com/microsoft/onnxruntime/issues/23006).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["NO_GRAPH", "RUNS_UNTIL_GRAPH", "CaptureGate", "GraphPlan"]

Shape = tuple[int, ...]

NO_GRAPH = -1
"""What ONNX Runtime takes for `gpu_graph_id` in a run that is neither to be captured nor to be one."""

RUNS_UNTIL_GRAPH = 3
"""Of a shape; the first plans and allocates, the last captures."""

_MOST = 32
_REMEMBERED = 1024
_CAPTURE_SECONDS = 60.0


class GraphPlan:
    """The graphs of one session. A shape gets one when it has come often enough; those beyond `most` never.

    Graphs are never given up, as ONNX Runtime cannot release one.
    """

    def __init__(self, most: int = _MOST) -> None:
        """Begin without graphs.

        Args:
            most: how many graphs there may be.
        """
        self._most = most
        self._seen: OrderedDict[Shape, int] = OrderedDict()
        self._graphs: dict[Shape, int] = {}

    def graph_for(self, shape: Shape) -> int:
        """The graph for the next run of a shape, captured or to be; `NO_GRAPH` if it is to have none."""
        if (known := self._graphs.get(shape)) is not None:
            return known
        runs = self._seen.pop(shape, 0) + 1
        self._seen[shape] = runs
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        count = len(self._graphs)
        return count + 1 if runs >= RUNS_UNTIL_GRAPH and count < self._most else NO_GRAPH

    def has(self, shape: Shape) -> bool:
        """Whether its graph is captured."""
        return shape in self._graphs

    def captured(self, shape: Shape, graph: int) -> None:
        """Take note that a shape has its graph now."""
        self._graphs[shape] = graph
        self._seen.pop(shape, None)


class CaptureGate:
    """Keeps the threads of several GPUs apart while one captures a graph.

    Meanwhile CUDA lets no other thread of the process allocate, for whichever GPU: ONNX Runtime captures in
    the mode cudaStreamCaptureModeGlobal.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._capturing = False

    @contextmanager
    def use(self, *, capture: bool = False) -> Iterator[bool]:
        """Use CUDA; gives whether a graph may be captured inside, which it may if nobody else uses CUDA.

        Waits for a capture that is under way, but not for long: its GPU may have failed.
        """
        with self._changed:
            alone = capture and self._users == 0
            if not alone and not self._changed.wait_for(lambda: not self._capturing, _CAPTURE_SECONDS):
                self._capturing = False
            self._users += 1
            self._capturing = self._capturing or alone
        try:
            yield alone
        finally:
            with self._changed:
                self._users -= 1
                if alone:
                    self._capturing = False
                self._changed.notify_all()
