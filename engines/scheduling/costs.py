"""How long networks take, by their last runs: the cost that the scheduler is fair by.

Networks differ in work per pixel by a factor of twenty and more, and devices in speed by hundreds.
"""

from collections import defaultdict, deque
from collections.abc import Hashable

__all__ = ["Paces"]

_REMEMBERED = 8  # runs; as many later, a slower pace is believed
_ANY = 1000.0
"""Nanoseconds for a pixel, as long as nothing is known of any network; only ratios matter."""


class Paces:
    """The nanoseconds that each network takes for an input pixel. No threads, no locks.

    Of the last runs the fastest counts, as whatever disturbs one only makes it slower: kernels that are
    built, a tile that is small, others who use the device.
    """

    def __init__(self) -> None:
        self._runs: defaultdict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._paces: dict[Hashable, float] = {}
        self._mean = _ANY

    def learn(self, network: Hashable, pixels: int, seconds: float) -> None:
        """A run of so many input pixels, at least one, took so long."""
        runs = self._runs[network]
        runs.append(seconds * 1e9 / pixels)
        self._paces[network] = min(runs)
        self._mean = sum(self._paces.values()) / len(self._paces)

    def seconds(self, network: Hashable, pixels: int) -> float | None:
        """What a run should take; None if the network has not run yet."""
        pace = self._paces.get(network)
        return None if pace is None else pace * pixels / 1e9

    def cost(self, network: Hashable, pixels: int) -> int:
        """Nanoseconds, at least one; of a network that has not run yet, by the mean pace of the others."""
        return max(1, round(self._paces.get(network, self._mean) * pixels))
