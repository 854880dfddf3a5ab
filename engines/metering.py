"""How long devices worked for something, whoever asked for it.

What is to be timed need not be passed through all that lies between: the jobs that a block puts on the
devices know the block they come from, as logging knows its context.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["DeviceTime", "current_device_time", "device_time"]


class DeviceTime:
    """The time that devices worked.

    Attributes:
        seconds: of all devices together; a run of several tiles counts for each in equal parts.
    """

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0


_current: ContextVar[DeviceTime | None] = ContextVar("device_time", default=None)


@contextmanager
def device_time() -> Iterator[DeviceTime]:
    """The time that devices work for what the block does; asyncio tasks that it starts are part of it."""
    time = DeviceTime()
    token = _current.set(time)
    try:
        yield time
    finally:
        _current.reset(token)


def current_device_time() -> DeviceTime:
    """The `device_time` of the block around the call; outside of any, one that nobody reads."""
    return _current.get() or DeviceTime()
