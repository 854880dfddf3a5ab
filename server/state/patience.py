"""How long whoever needs the database waits for it."""

import math
import time

__all__ = ["Patience"]


class Patience:
    """Says until when a transaction that begins now may wait; less, once the server stops."""

    def __init__(self, seconds: float) -> None:
        """Wait so many seconds for a lock, or for an answer."""
        self._seconds = seconds
        self._end = math.inf

    def deadline(self) -> float:
        """Until when what begins now may wait, as `time.monotonic` has it."""
        return time.monotonic() + self._seconds

    def is_over(self, deadline: float) -> bool:
        """Whether what has this deadline has waited long enough."""
        return time.monotonic() >= min(deadline, self._end)

    def end_within(self, seconds: float) -> None:
        """Have everybody wait no longer than until so many seconds from now."""
        self._end = min(self._end, time.monotonic() + seconds)
