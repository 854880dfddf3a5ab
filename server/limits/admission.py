"""How many tasks may be under way: of one account, and of all.

A pure class: time is passed in. Tasks that are under way wait on disk, so that the limits bound the length of
the queue, not the memory.
"""

import math
from collections import deque

from server.protocol.errors import BusyError, RateLimitError
from server.state.accounts import AccountId

__all__ = ["Admission"]

_REMEMBERED = 32
_LONGEST_WAIT = 600


class Admission:
    """Counts tasks, and refuses those that are too many with a hint when to try again."""

    def __init__(self, *, limit: int, limit_per_account: int) -> None:
        self._limit = limit
        self._limit_per_account = limit_per_account
        self._count = 0
        self._counts: dict[AccountId, int] = {}
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)

    def enter(self, account: AccountId) -> None:
        """Count a new task.

        Raises:
            RateLimitError: if the account has too many under way.
            BusyError: if all accounts together have.
        """
        count = self._counts.get(account, 0)
        if count >= self._limit_per_account:
            raise RateLimitError(
                "taskRateLimit",
                f"{count} tasks of this account are under way; wait for some of them",
                retry_after=self._wait(count),
            )
        if self._count >= self._limit:
            raise BusyError(self._wait(self._count))
        self.resume(account)

    def resume(self, account: AccountId) -> None:
        """Count a task that was accepted before, whatever the limits are now."""
        self._count += 1
        self._counts[account] = self._counts.get(account, 0) + 1

    def leave(self, account: AccountId, now: float) -> None:
        """A task that was counted has ended, at `now` in seconds."""
        self._ends.append(now)
        self._count -= 1
        self._counts[account] -= 1
        if not self._counts[account]:
            del self._counts[account]

    def _wait(self, count: int) -> int:
        """Whole seconds in which, at the pace of the last ends, a tenth of `count` tasks will have ended."""
        if len(self._ends) < 2:
            return 1
        pace = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return min(_LONGEST_WAIT, max(1, math.ceil(pace * count / 10)))
