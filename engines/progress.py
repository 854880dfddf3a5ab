"""Progress as a share from 0 to 1, reported to whoever wants it."""

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress", "beside", "rising", "within"]

Progress: TypeAlias = Callable[[float], None]


def rising(on_progress: Progress | None) -> Progress:
    """Hold back what would be a step backwards, as when a picture is begun again with smaller tiles.

    Nothing is reported if nobody wants it.
    """
    best = 0.0

    def report(share: float) -> None:
        nonlocal best
        if on_progress is not None and share > best:
            best = share
            on_progress(share)

    return report


def within(on_progress: Progress, start: float, end: float) -> Progress:
    """Report the progress of a part as that of the whole, which it takes from `start` to `end`."""
    return lambda share: on_progress(start + (end - start) * share)


def beside(on_progress: Progress, count: int) -> list[Progress]:
    """Report the progress of parts that are done side by side as that of the whole: their mean."""
    shares = [0.0] * count

    def part(index: int) -> Progress:
        def report(share: float) -> None:
            shares[index] = share
            on_progress(sum(shares) / count)

        return report

    return [part(index) for index in range(count)]
