"""How fast models are on this machine, as the tasks of late tell. A pure class."""

from collections import defaultdict, deque
from statistics import median
from typing import Final

from server.telemetry.story import Stage, Story

__all__ = ["Speeds"]

_REMEMBERED: Final = 16
"""Tasks of each model."""

_LEAST: Final = 50_000
"""Pixels of a result: the time of smaller ones is mostly not that of their pixels."""

_WORK: Final[frozenset[Stage]] = frozenset({"decode", "inference", "encode", "store"})


class Speeds:
    """What a million pixels of a result take, by model."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def task_ended(self, story: Story) -> None:
        """Learn from a task that succeeded; what it waited for others does not count."""
        if story.outcome == "succeeded" and story.is_plain and story.output_pixels >= _LEAST:
            seconds = sum(timed.seconds for timed in story.stages if timed.stage in _WORK)
            self._seconds[story.subject.model].append(seconds * 1e6 / story.output_pixels)

    def seconds_per_megapixel(self, model: str) -> float | None:
        """The median of the last tasks; None if there was none.

        Args:
            model: its name.
        """
        seconds = self._seconds.get(model)
        return median(seconds) if seconds else None
