"""What one task has on the devices: its items on their way through the scheduler, and who waits for them."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from engines.devices.parts import Arrays
from engines.errors import EngineError
from engines.metering import DeviceTime, current_device_time
from engines.progress import Progress
from engines.scheduling.executor import Executor
from engines.scheduling.work import Key, TileWork

__all__ = ["Item", "Job"]

_TICK = 0.25
"""Seconds between two reports of progress within a run."""
_AT_MOST = 0.95
"""How much of a run is believed to be done before it has ended."""


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
    long_runs: deque[tuple[float, float]] = field(init=False, default_factory=deque)
    """When each item in a long run began, by the loop's clock, and the seconds that it should take."""
    ticker: asyncio.TimerHandle | None = field(init=False, default=None)
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

    async def run(self, executor: Executor, account: str, key: Key, items: Iterable[TileWork]) -> None:
        """Have the items run, and wait for all of them. Cancelling the call frees those that have not begun.

        Args:
            executor: what runs them.
            account: whose share of the devices they use.
            key: what they share.
            items: of this job.

        Raises:
            ModelError: if one of them cannot be run.
        """
        executor.submit(account, self, key, items)
        try:
            await self.done
        finally:
            executor.cancel(self)

    def begin(self) -> None:
        """Take note that a device has taken an item; any thread may call this."""
        on_start, self.on_start = self.on_start, None
        if on_start is not None:
            self.on_loop(on_start)

    def expect(self, seconds: float) -> None:
        """Report progress within a run, which should take so many seconds; on the event loop only."""
        if self.on_progress is None or self.done.done():
            return
        if self.ticker is None:
            self.ticker = self.loop.call_later(_TICK, self._tick)
        self.long_runs.append((self.loop.time(), seconds))

    def _tick(self) -> None:
        self.ticker = None
        if self.on_progress is None or self.done.done() or not self.long_runs:
            return
        now = self.loop.time()
        begun = sum(min((now - start) / seconds, _AT_MOST) for start, seconds in self.long_runs)
        self.on_progress((self.count - self.left + min(begun, _AT_MOST * self.left)) / self.count)
        self.ticker = self.loop.call_later(_TICK, self._tick)

    def advance(self) -> None:
        """Count a finished item; on the event loop only."""
        self.left -= 1
        if self.long_runs:
            self.long_runs.popleft()
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

    def expect(self, seconds: float) -> None:
        """Take note that the run that begins now should take so long; any thread may call this."""
        self.job.on_loop(partial(self.job.expect, seconds))

    def took(self, seconds: float) -> None:
        """Count the time that a device worked for the item; one thread at a time."""
        self.job.device_time.seconds += seconds

    def fail(self, error: EngineError) -> None:
        """End the job in an error."""
        self.job.fail(error)
