"""How devices of different speed share what waits, so that a task is not kept waiting by the slowest of them.

While there is plenty, each takes what is next whenever it is free, and the slow ones come for it less often.
Only towards the end does it matter who takes what: a tile that a slow device begins last ends last.

1. A device leaves what waits to the others if they will be done with all of it in half the time that a tile
   takes here. As a device twice as fast is needed for that, the fastest never leaves anything.
2. Devices that are free at the same time share a batch, in place of one running all of it.

Pure functions: times are passed in.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Other", "is_left", "share"]


class Other(NamedTuple):
    """Another device; times in seconds."""

    free_in: float
    """Until it has done what it is at; infinite if that cannot be told."""
    each: float
    """What a tile takes there."""


def is_left(each: float, waiting: float, others: Iterable[Other]) -> bool:
    """Whether the others will be done with all that waits before a device that would have been of use.

    Args:
        each: seconds that a tile takes on this device.
        waiting: how many tiles wait, those of other kinds by what they take.
        others: that are at work.
    """
    within = each / 2
    return (
        sum(
            (within - other.free_in) // other.each
            for other in others
            if other.each > 0 and other.free_in < within
        )
        >= waiting
    )


def share(waiting: int, free: int) -> int:
    """How many of the tiles that wait one of so many free devices takes; at least one."""
    return max(1, math.ceil(waiting / max(1, free)))
