"""How many tasks may be under way: of one account, and of all.

Time is passed in. Tasks that are under way wait on disk: the limits bound the length of the queue, not
the memory.
"""

import math
import threading
from collections import deque
from typing import Final

from server.protocol.errors import BusyError, RateLimitError
from server.state.accounts import AccountId

__all__ = ["Admission"]

_REMEMBERED: Final = 32
_LONGEST_WAIT: Final = 600


class Admission:
    """The places that tasks have while they are under way. May be used by several threads.

    A task has one place, however often it takes it or gives it back.
    """

    def __init__(self, *, limit: int, limit_per_account: int) -> None:
        """Give out places.

        Args:
            limit: how many there are.
            limit_per_account: how many an account has of them.
        """
        self._limit = limit
        self._limit_per_account = limit_per_account
        self._accounts: dict[str, AccountId] = {}
        self._places: dict[AccountId, set[str]] = {}
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)
        self._changing = threading.Lock()

    def enter(self, account: AccountId, task: str) -> None:
        """Give a new task a place.

        Args:
            account: whose task it is.
            task: what the task is known by; no other account uses it.

        Raises:
            RateLimitError: if the account has too many under way.
            BusyError: if all accounts together have.
        """
        with self._changing:
            if task in self._accounts:
                return
            count = len(self._places.get(account, ()))
            if count >= self._limit_per_account:
                raise RateLimitError(
                    "taskRateLimit",
                    f"{count} tasks of this account are under way; wait for some of them",
                    retry_after=self._wait(count),
                )
            if len(self._accounts) >= self._limit:
                raise BusyError(self._wait(len(self._accounts)))
            self._give(account, task)

    def resume(self, account: AccountId, task: str) -> None:
        """Give a place to a task that was accepted before, whatever the limits are now."""
        with self._changing:
            self._give(account, task)

    def leave(self, task: str, now: float) -> None:
        """Take a task's place back, if it has one; it has ended at `now` in seconds."""
        with self._changing:
            if (account := self._accounts.pop(task, None)) is None:
                return
            self._ends.append(now)
            self._places[account].discard(task)
            if not self._places[account]:
                del self._places[account]

    def _give(self, account: AccountId, task: str) -> None:
        self._accounts[task] = account
        self._places.setdefault(account, set()).add(task)

    def _wait(self, count: int) -> int:
        """Whole seconds in which, at the pace of the last ends, a tenth of `count` tasks will have ended."""
        if len(self._ends) < 2:
            return 1
        pace = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return min(_LONGEST_WAIT, max(1, math.ceil(pace * count / 10)))
