"""Counting by key: how often, and how many at once.

Pure classes: time is passed in. Their memory is bounded, however many keys there are: what is idle is
forgotten, and beyond a fixed number of keys whoever was least recently heard of.
"""

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Final

__all__ = ["Places", "RateLimit", "network_of"]

_REMEMBERED: Final = 100_000


class RateLimit:
    """A token bucket for each key: `burst` at once, refilled by `rate` each second.

    A bucket is kept as the time at which it will be full again (the virtual scheduling of the generic cell
    rate algorithm, ITU-T I.371), so that full ones need not be kept at all.

    Attributes:
        rate: tokens per second.
        burst: tokens of a full bucket.
    """

    def __init__(self, rate: float, burst: float, *, remembered: int = _REMEMBERED) -> None:
        self.rate = rate
        self.burst = burst
        self._remembered = remembered
        # In the order of their last use, so that what is idle is found at the front.
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._full_at)

    def wait(self, key: Hashable, now: float, amount: float = 1) -> float:
        """Seconds until `amount` may be spent; 0 if it may be now.

        More than a whole bucket may be spent when the bucket is full; it is in debt afterwards.
        """
        filling = max(0.0, self._full_at.get(key, now) - now)
        return max(0.0, filling - max(0.0, self.burst - amount) / self.rate)

    def spend(self, key: Hashable, now: float, amount: float = 1) -> None:
        """Take `amount` from the bucket, whether or not it has as much."""
        self._full_at[key] = max(self._full_at.get(key, now), now) + amount / self.rate
        self._full_at.move_to_end(key)
        self._forget(now)

    def take(self, key: Hashable, now: float, amount: float = 1) -> float:
        """Spend `amount` if it may be spent now, and return 0; or return the seconds to wait."""
        wait = self.wait(key, now, amount)
        if not wait:
            self.spend(key, now, amount)
        return wait

    def _forget(self, now: float) -> None:
        """Drop the idle ones at the front: two for each that is added, so that they never pile up."""
        for _ in range(2):
            oldest, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= self._remembered:
                return
            del self._full_at[oldest]
            if not self._full_at:
                return


class Places:
    """A number of places for each key.

    Attributes:
        limit: how many a key may have.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        """How many keys have places."""
        return len(self._taken)

    def take(self, key: Hashable) -> bool:
        """Take a place, to be given back; False if all are taken."""
        if self._taken[key] >= self.limit:
            return False
        self._taken[key] += 1
        return True

    def room(self, key: Hashable) -> int:
        """How many places a key has left."""
        return self.limit - self._taken.get(key, 0)

    def give_back(self, key: Hashable) -> None:
        """Give a place back that was taken."""
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]


def network_of(host: str) -> str:
    """What an address is counted as: an IPv4 address itself, of an IPv6 address its /64.

    A customer is given a whole /64 at least (RFC 6177), and could take another address for each request.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
