"""What one task has on the devices: its items on their way through the scheduler, and who waits for them."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from engines.devices.parts import Arrays
from engines.errors import EngineError
from engines.metering import DeviceTime, current_device_time
from engines.progress import Progress

__all__ = ["Item", "Job"]


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """Items that run on the devices, and the future of all of them.

    The devices' threads read, finish and fail the items. Everything else belongs to the event loop.
    """

    count: int
    """How many items there are."""
    loop: asyncio.AbstractEventLoop
    on_start: Callable[[], None] | None
    on_progress: Progress | None
    done: asyncio.Future[None] = field(init=False)
    left: int = field(init=False)
    """How many items have not been finished yet."""
    device_time: DeviceTime = field(init=False)
    """What the time of its runs is added to."""

    def __post_init__(self) -> None:
        """Begin with nothing done."""
        self.done = self.loop.create_future()
        self.left = self.count
        self.device_time = current_device_time()

    @property
    def is_complete(self) -> bool:
        """Whether the result is there."""
        return self.left == 0

    def begin(self) -> None:
        """Take note that a device has taken an item; any thread may call this."""
        on_start, self.on_start = self.on_start, None
        if on_start is not None:
            self.on_loop(on_start)

    def advance(self) -> None:
        """Count a finished item; on the event loop only."""
        self.left -= 1
        if self.done.done():
            return
        self.end_if_complete()
        if self.on_progress:
            self.on_progress(1 - self.left / self.count)

    def end_if_complete(self) -> None:
        """Wake who waits, if the result is there; on the event loop only."""
        if not self.done.done() and self.is_complete:
            self.done.set_result(None)

    def fail(self, error: EngineError) -> None:
        """End the job in an error; any thread may call this."""
        self.on_loop(partial(self._fail, error))

    def on_loop(self, callback: Callable[[], None]) -> None:
        """Have the event loop call something soon; any thread may call this."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any longer
            self.loop.call_soon_threadsafe(callback)

    def _fail(self, error: EngineError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


JobT = TypeVar("JobT", bound=Job)


@dataclass(frozen=True, slots=True, eq=False)
class Item(Generic[JobT]):
    """One item of a job, as the executor runs it; see `TileWork`."""

    job: JobT

    def read(self) -> Arrays:
        """Give the inputs of the run."""
        self.job.begin()
        return self.inputs()

    def inputs(self) -> Arrays:
        """The inputs of the run."""
        raise NotImplementedError

    def took(self, seconds: float) -> None:
        """Count the time that a device worked for the item; one thread at a time."""
        self.job.device_time.seconds += seconds

    def fail(self, error: EngineError) -> None:
        """End the job in an error."""
        self.job.fail(error)
