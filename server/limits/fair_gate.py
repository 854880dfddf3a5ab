"""How much is worked on at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["FairGate"]

_NOBODY: Final = object()  # not None, as which work without an account is counted


class FairGate:
    """Lets work in until a capacity is used up, and then by turns between accounts.

    The account that uses least is next, and of several that use the same the one whose last turn is longest
    ago, so that one with a thousand tasks waiting does not keep out another with one. Work that is larger
    than the whole capacity runs alone; larger than an account's share, as the only one of its account.

    Args:
        capacity: of all accounts together.
        share: of one account; the rest is room for others that come.
    """

    def __init__(self, capacity: float, share: float | None = None) -> None:
        self._capacity = capacity
        self._share = capacity if share is None else share
        self._used: dict[Hashable, float] = {}
        # In the order of the accounts' last turns.
        self._waiting: dict[Hashable, deque[tuple[float, asyncio.Future[None]]]] = {}

    @asynccontextmanager
    async def hold(self, account: Hashable, amount: float) -> AsyncIterator[None]:
        """Wait for `amount` of the capacity, and have it for the time of the block."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append((amount, turn))
        self._admit()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._give_back(account, amount)
            else:
                self._forget(account, turn)
            self._admit()

    def _admit(self) -> None:
        while (account := self._next()) is not _NOBODY:
            amount, turn = self._waiting[account][0]
            if turn.cancelled():  # whoever waited for it has not run since
                self._forget(account, turn)
                continue
            total = sum(self._used.values())
            if total and total + amount > self._capacity:
                return
            self._used[account] = self._used.get(account, 0) + amount
            self._end_turn(account)
            turn.set_result(None)

    def _next(self) -> Hashable:
        """Whose turn it is, of those that wait and have not used up their share; or `_NOBODY`."""
        ready = [account for account in self._waiting if not self._has_its_share(account)]
        return min(ready, key=lambda account: self._used.get(account, 0), default=_NOBODY)

    def _has_its_share(self, account: Hashable) -> bool:
        used = self._used.get(account, 0)
        amount, turn = self._waiting[account][0]
        return bool(used) and used + amount > self._share and not turn.cancelled()

    def _end_turn(self, account: Hashable) -> None:
        queue = self._waiting.pop(account)
        queue.popleft()
        if queue:
            self._waiting[account] = queue

    def _give_back(self, account: Hashable, amount: float) -> None:
        self._used[account] -= amount
        if self._used[account] <= 1e-9:
            del self._used[account]

    def _forget(self, account: Hashable, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(account)
        if queue is not None:
            rest = deque(entry for entry in queue if entry[1] is not turn)
            if rest:
                self._waiting[account] = rest
            else:
                del self._waiting[account]
