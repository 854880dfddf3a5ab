"""Things that are needed once, soon, and can be had again: as many are at hand as there is room for."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

NameT = TypeVar("NameT", bound=Hashable)
T = TypeVar("T")


class Recent(Generic[NameT, T]):
    """The things that came last."""

    def __init__(self, limit: int, size: Callable[[T], int]) -> None:
        """Begin with none.

        Args:
            limit: bytes of all.
            size: bytes of one.
        """
        self._limit = self._left = limit
        self._size = size
        self._things: OrderedDict[NameT, T] = OrderedDict()
        self._old: set[NameT] = set()

    def __contains__(self, name: NameT) -> bool:
        """Whether a thing is at hand."""
        return name in self._things

    def keep(self, name: NameT, thing: T) -> None:
        """Have a thing at hand, in place of those that were kept before."""
        self.take(name)
        if self._size(thing) > self._limit:
            return
        self._things[name] = thing
        self._left -= self._size(thing)
        while self._left < 0:
            self.take(next(iter(self._things)))

    def take(self, name: NameT) -> T | None:
        """A thing, which is not at hand any more; None if it was not."""
        thing = self._things.pop(name, None)
        self._left += 0 if thing is None else self._size(thing)
        return thing

    def age(self) -> None:
        """Give back the memory of what has been there since the last call."""
        for name in self._old:
            self.take(name)
        self._old = set(self._things)
