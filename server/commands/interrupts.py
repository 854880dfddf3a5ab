"""Being told to stop: SIGTERM and SIGHUP end a command as Ctrl-C does, so that it cleans up behind itself."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["Interrupts", "interrupts"]

_SIGNALS: Final = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupts:
    """Which signal came last.

    Attributes:
        status: the exit status that a shell gives a process that the signal ends: 130 after Ctrl-C.
    """

    def __init__(self) -> None:
        """Expect Ctrl-C."""
        self.status = 128 + signal.SIGINT

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Do what Ctrl-C would do now: asyncio cancels its main task, else KeyboardInterrupt is raised."""
        self.status = 128 + number
        act = signal.getsignal(signal.SIGINT)
        if not callable(act):  # Ctrl-C is ignored, as in a shell's background
            raise KeyboardInterrupt
        act(signal.SIGINT, frame)


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Have the signals raise KeyboardInterrupt in the block; one that is ignored, as by nohup, stays so."""
    coming = Interrupts()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, coming.handle)
    try:
        yield coming
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
