"""Which runs are worth a CUDA graph, and when one may be captured: decisions only, nothing of CUDA is here.

A graph is all kernels of one run for one shape, started at once. Without it the processor starts each of the
hundreds of kernels of a network, which takes longer than a small tile computes; and since 1.20 ONNX Runtime
plans every convolution anew when the shape is another than that of the run before
(https://github.com/microsoft/onnxruntime/issues/23006).
"""

import logging
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["MOST_GRAPHS", "NO_GRAPH", "RUNS_UNTIL_GRAPH", "CaptureGate", "GraphPlan"]

Shape = tuple[int, ...]

NO_GRAPH = -1
"""What ONNX Runtime takes for `gpu_graph_id` in a run that is neither to be captured nor to be one."""

RUNS_UNTIL_GRAPH = 3
"""Of a shape; the first plans and allocates, the last captures."""

MOST_GRAPHS = 96
"""Of a session. `engines.tiling.menu` has tiles come in so few shapes that these are enough."""

_REMEMBERED = 1024
_CAPTURES = 4 * MOST_GRAPHS
_CAPTURE_SECONDS = 60.0

log = logging.getLogger(__name__)


class GraphPlan:
    """The graphs of one session: a shape gets one when it has come often enough.

    Where there are as many as there may be, the one that was not used for longest is released for the next.
    No number is given twice: what ONNX Runtime holds of a graph that is released, or that could not be
    captured, is not known.
    """

    def __init__(self, most: int = MOST_GRAPHS) -> None:
        """Begin without graphs.

        Args:
            most: how many graphs there may be at a time.
        """
        self._most = most
        self._seen: OrderedDict[Shape, int] = OrderedDict()
        self._graphs: OrderedDict[Shape, int] = OrderedDict()
        self._next = 1
        self._too_large = math.inf

    @property
    def is_worn(self) -> bool:
        """Whether so many were captured that there will be no more: it takes a new session, and a new plan.

        ONNX Runtime may keep the memory of a graph that is released until the session ends.
        """
        return self._next > _CAPTURES

    def graph_for(self, shape: Shape) -> int:
        """The graph for the next run of a shape, captured or to be; `NO_GRAPH` if it is to have none."""
        if shape in self._graphs:
            self._graphs.move_to_end(shape)
            return self._graphs[shape]
        if self.is_worn or math.prod(shape) >= self._too_large:
            return NO_GRAPH
        runs = self._seen.pop(shape, 0) + 1
        self._seen[shape] = runs
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return self._next if runs >= RUNS_UNTIL_GRAPH else NO_GRAPH

    def has(self, shape: Shape) -> bool:
        """Whether its graph is captured."""
        return shape in self._graphs

    def captured(self, shape: Shape) -> int | None:
        """Take note that a shape has its graph now; gives the one that is to be released for it, if any."""
        self._graphs[shape] = self._next
        self._next += 1
        self._seen.pop(shape, None)
        return None if len(self._graphs) <= self._most else self._graphs.popitem(last=False)[1]

    def no_room(self, shape: Shape) -> None:
        """Take note that there was no memory for its graph: shapes as large get none from now on."""
        self._next += 1
        self._too_large = math.prod(shape)


class CaptureGate:
    """Keeps the threads of several GPUs apart while one captures a graph.

    Meanwhile CUDA lets no other thread of the process allocate or free, for whichever GPU: ONNX Runtime
    captures in the mode cudaStreamCaptureModeGlobal.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._capturing = False
        self._to_free: deque[Callable[[], object]] = deque()

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
            self._free()  # the capture of whoever is alone begins below
            yield alone
        finally:
            with self._changed:
                self._users -= 1
                if alone:
                    self._capturing = False
                self._changed.notify_all()

    def free_later(self, free: Callable[[], object]) -> None:
        """Have something freed by whoever comes in next. For finalizers: never waits, in whatever thread."""
        self._to_free.append(free)

    def _free(self) -> None:
        while self._to_free:
            try:
                self._to_free.popleft()()
            except IndexError:  # another thread was faster
                return
            except Exception:
                log.exception("memory of a GPU could not be freed")
