"""Where tasks stand in line. A pure class."""

from collections.abc import Callable
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["Queue", "Queued"]

_INFORMED: Final = 20
"""How many tasks at the front are reported each time that they move up; those behind come to that later."""


class Queued(Protocol):
    """A task that may have to wait.

    Attributes:
        queue_position: 1 for the next; None while it does not wait.
    """

    queue_position: int | None


QueuedT = TypeVar("QueuedT", bound=Queued)


class Queue(Generic[QueuedT]):
    """Which tasks wait for their first tile to be computed, in the order in which they came.

    An estimate: devices are shared fairly between accounts and sizes, so tasks may begin in another order.
    """

    def __init__(self, report: Callable[[QueuedT], None]) -> None:
        """Begin with nobody waiting.

        Args:
            report: called with a task whose position has changed.
        """
        self._report = report
        self._waiting: dict[QueuedT, None] = {}
        self._begun: set[QueuedT] = set()

    def enter(self, task: QueuedT) -> None:
        """A task has come. The only one has no position: it begins at once."""
        self._waiting[task] = None
        if self._begun or len(self._waiting) > 1:
            task.queue_position = len(self._waiting)
            self._report(task)

    def begin(self, task: QueuedT) -> None:
        """The work on a task begins; those behind it move up."""
        if task not in self._waiting:
            return
        waited, task.queue_position = task.queue_position is not None, None
        self._begun.add(task)
        if waited:
            self._report(task)
        self._move_up(task)

    def leave(self, task: QueuedT) -> None:
        """A task has ended, perhaps before its work began."""
        self._begun.discard(task)
        self._move_up(task)

    def _move_up(self, gone: QueuedT) -> None:
        if gone not in self._waiting:
            return
        del self._waiting[gone]
        for position, task in enumerate(islice(self._waiting, _INFORMED), 1):
            if task.queue_position not in (None, position):
                task.queue_position = position
                self._report(task)
