"""How many bytes of clients are in memory: of what comes in, and of what waits to go out.

Each connection may hold a message of the largest size, and there may be thousands of connections: so all of
them share a budget, of which no account (before it has authenticated, no address) has more than a quarter.
Whoever goes beyond waits; if that does not help, the largest of those who hold too much is refused.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final

from engines import memory_size
from server.limits.rates import network_of
from server.settings import Settings

__all__ = ["Budget", "Holding", "Memory", "part_of_memory", "shortage"]

_PART: Final = 8
"""A budget is this part of the memory that there is, unless the settings say otherwise."""
_SHARE: Final = 4
_PATIENCE: Final = 5.0
"""Seconds that who holds too much may wait for others to need less."""
_ALONE: Final = 500_000_000
"""Bytes that the server takes with a small network and no pictures."""
_PER_PIXEL: Final = 12
"""Bytes that a pixel of input or output takes at most, while it is worked on; measured."""


class Budget:
    """Bytes that may be held.

    Attributes:
        limit: by all together.
        share: by one account or address.
        used: that are held.
    """

    def __init__(self, limit: int, largest: int) -> None:
        """Hold nothing yet.

        Args:
            limit: in bytes; at least what four of the largest need.
            largest: bytes that one connection must be able to hold.
        """
        self.limit = max(limit, largest)
        self.share = max(self.limit // _SHARE, largest)
        self.used = 0
        self._of_owners: Counter[Hashable] = Counter()
        self._holdings: set[Holding] = set()
        self._waiting: dict[Holding, None] = {}  # in the order in which they came
        self._relief: asyncio.TimerHandle | None = None

    def holding(
        self, owner: Hashable, on_refusal: Callable[[], None], on_room: Callable[[], None] = lambda: None
    ) -> "Holding":
        """Nothing, so far, of what an account or an address holds.

        Args:
            owner: the account or the address.
            on_refusal: called when it holds too much and must let go.
            on_room: called when it may take more, after it was told to wait.
        """
        return Holding(self, owner, on_refusal, on_room)

    def add(self, holding: "Holding", size: int) -> bool:
        """Count what is held already; False if its owner should wait before it takes more."""
        self.used += size
        self._of_owners[holding.owner] += size
        holding.size += size
        if holding.size:
            self._holdings.add(holding)
        else:
            self._holdings.discard(holding)
        if not self._of_owners[holding.owner]:
            del self._of_owners[holding.owner]
        if size > 0:
            return self.has_room(holding)
        if size < 0:
            self._let_in()
        return True

    def has_room(self, holding: "Holding") -> bool:
        """Whether its owner may take more; if not, it is called when there is room."""
        if not self._is_over(holding.owner):
            return True
        self._waiting[holding] = None
        if self._relief is None:
            self._relief = asyncio.get_running_loop().call_later(_PATIENCE, self._relieve)
        return False

    def forget(self, holding: "Holding") -> None:
        """A holding that has ended waits no longer."""
        self._waiting.pop(holding, None)

    def _is_over(self, owner: Hashable) -> bool:
        return self.used > self.limit or self._of_owners[owner] > self.share

    def _let_in(self) -> None:
        for holding in list(self._waiting):
            if not self._is_over(holding.owner):
                del self._waiting[holding]
                holding.on_room()

    def _relieve(self) -> None:
        """Refuse the largest holding of the owner that holds most, if waiting did not help."""
        self._relief = None
        self._let_in()
        if not self._waiting:
            return
        owner = (
            self._of_owners.most_common(1)[0][0]
            if self.used > self.limit
            else max((holding.owner for holding in self._waiting), key=self._of_owners.__getitem__)
        )
        largest = max(
            (holding for holding in self._holdings if holding.owner == owner), key=lambda one: one.size
        )
        self._waiting.pop(largest, None)
        largest.on_refusal()
        if self._waiting:
            self._relief = asyncio.get_running_loop().call_later(_PATIENCE / 10, self._relieve)


class Holding:
    """What one connection, message or answer holds.

    Attributes:
        owner: the account or the address.
        size: in bytes.
    """

    def __init__(
        self, budget: Budget, owner: Hashable, on_refusal: Callable[[], None], on_room: Callable[[], None]
    ) -> None:
        self._budget = budget
        self.owner = owner
        self.size = 0
        self.on_refusal = on_refusal
        self.on_room = on_room

    def add(self, size: int) -> bool:
        """Count so many bytes more; False if no more should be taken until `on_room`."""
        return self._budget.add(self, size)

    def has_room(self) -> bool:
        """Whether its owner may take more; if not, `on_room` is called when there is room."""
        return self._budget.has_room(self)

    def split(self, size: int) -> "Holding":
        """Hand so many bytes over to a holding of their own."""
        part = self._budget.holding(self.owner, self.on_refusal)
        part.size = 0
        self._budget.add(self, -size)
        self._budget.add(part, size)
        self._budget.forget(part)
        return part

    def give_to(self, owner: Hashable) -> None:
        """Count it as another owner's: the address has become an account."""
        size = self.size
        self.add(-size)
        self.owner = owner
        self.add(size)

    def release(self) -> None:
        """Hold nothing any more; harmless if nothing is held."""
        self._budget.forget(self)
        if self.size:
            self._budget.add(self, -self.size)


class Memory:
    """The two budgets of a server."""

    def __init__(self, settings: Settings) -> None:
        """Size them by the settings, or by the memory that there is."""
        self.incoming = Budget(part_of_memory(settings.max_incoming_bytes), settings.max_frame_bytes)
        self.outgoing = Budget(part_of_memory(settings.max_outgoing_bytes), settings.max_unsent_bytes)

    @staticmethod
    def owner_of(address: str) -> Hashable:
        """Who holds what comes from an address that has not authenticated."""
        return "address", network_of(address)


def part_of_memory(wanted: int | None) -> int:
    """Bytes that a budget has: what the settings say, or an eighth of the memory that there is."""
    return wanted or memory_size() // _PART


def shortage(settings: Settings, size: int) -> str | None:
    """What to say if the pictures that may be worked on do not fit into the memory beside all else.

    Args:
        settings: the effective ones.
        size: bytes of memory that there are.
    """
    room = size - _ALONE - 3 * (size // _PART)
    needed = settings.active_megapixels * 1e6 * _PER_PIXEL
    if needed <= room:
        return None
    fitting = max(1, int(room / _PER_PIXEL / 1e6))
    return (
        f"there are {size / 1e9:.1f} GB of memory: pictures of active_megapixels = "
        f"{settings.active_megapixels:g} may take {needed / 1e9:.1f} GB of that; {fitting} would fit"
    )
