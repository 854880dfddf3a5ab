"""What tiles cost: the device time that they should take, going by the last runs.

Networks differ in work per pixel by a factor of twenty and more, devices in speed by hundreds. A run also
costs something however small it is: of a tile of one pixel the pixel is a thousandth. So each size is known
by itself, where it has run.
"""

from collections import defaultdict, deque
from collections.abc import Hashable

__all__ = ["Costs"]

_REMEMBERED = 8  # runs of a size; as many later, a slower one is believed
_ANY = 1000.0
"""Nanoseconds for a pixel, as long as nothing is known of any network; only ratios matter."""


class Costs:
    """The nanoseconds that a tile of a network takes, by its size. No threads, no locks.

    Of the last runs the fastest counts, as whatever disturbs one only makes it slower: kernels that are
    built, others who use the device.
    """

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._runs: defaultdict[Hashable, dict[int, deque[float]]] = defaultdict(dict)
        self._paces: dict[Hashable, dict[int, float]] = {}

    def learn(self, network: Hashable, pixels: int, seconds: float) -> None:
        """Take note that a tile of so many input pixels, at least one, took so long."""
        runs = self._runs[network].setdefault(_size(pixels), deque(maxlen=_REMEMBERED))
        runs.append(seconds * 1e9 / pixels)
        self._paces.setdefault(network, {})[_size(pixels)] = min(runs)

    def seconds(self, network: Hashable, pixels: int) -> float | None:
        """What a tile should take; None if the network has not run yet."""
        return self.cost(network, pixels) / 1e9 if network in self._paces else None

    def cost(self, network: Hashable, pixels: int) -> int:
        """Nanoseconds, at least one.

        Of a size that has not run yet it is by the best pace of the others; of a network that has not run
        yet, by the mean of the other networks.
        """
        if (paces := self._paces.get(network)) is not None:
            pace = paces.get(_size(pixels)) or min(paces.values())
        else:
            best = [min(paces.values()) for paces in self._paces.values()]
            pace = sum(best) / len(best) if best else _ANY
        return max(1, round(pace * pixels))


def _size(pixels: int) -> int:
    """One for all sizes from a power of two to the next."""
    return pixels.bit_length()
