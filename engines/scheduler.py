"""Which tiles run next: fair between accounts, then between the tasks of an account.

1. Between accounts: the one that has been served the fewest pixels is next (start-time fair queueing, Goyal,
   Vin and Cheng 1996). An account that was idle starts level with the others, or where it left off if that is
   ahead of them: it neither saves anything up nor shakes off what it has had.
2. Within an account: each task gets a virtual finish time on arrival, the account's service so far plus the
   task's own size, and the earliest finish is next (fair queueing, Demers, Keshav and Shenker 1989). Equal
   tasks run in order of arrival, a small one overtakes a big one that is under way, and a big one cannot
   starve: its finish time stays while the arrivals' move on.
3. A batch is filled in that same order with tiles that share the first one's key (model and shape).

There is no clock and no waiting: a device asks when it is free, and a lone tile runs at once. Under load the
queue fills while the device is busy, and batches form by themselves.

A pure class: no threads, no locks, no I/O. `executor` is the shell around it.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Batch", "TileScheduler"]

KeyT = TypeVar("KeyT", bound=Hashable)
TileT = TypeVar("TileT")


@dataclass(frozen=True, slots=True)
class Batch(Generic[KeyT, TileT]):
    """Tiles that are to run now, together."""

    key: KeyT
    """What they share."""
    tiles: list[tuple[Hashable, TileT]]
    """Each with the task it belongs to; at least one."""


@dataclass(slots=True, eq=False)
class _Account:
    served: int
    """Pixels; where it started is not zero but what the others had been served by then."""
    waiting: int = 0
    """How many of its tasks are queued."""


@dataclass(slots=True, eq=False)
class _Task(Generic[KeyT, TileT]):
    name: Hashable
    account: _Account
    key: KeyT
    tiles: deque[TileT]
    tile_cost: int
    finish: int
    arrival: int

    def turn(self) -> tuple[int, int, int]:
        """The smallest is next."""
        return self.account.served, self.finish, self.arrival


class TileScheduler(Generic[KeyT, TileT]):
    """Queues the tiles of many tasks and hands them out in fair order, in batches.

    Handing out a tile looks at every task that is queued: microseconds for tens, a millisecond for thousands.
    """

    def __init__(self) -> None:
        self._tasks: dict[Hashable, _Task[KeyT, TileT]] = {}
        self._accounts: dict[Hashable, _Account] = {}
        self._level = 0
        self._arrivals = 0

    def __bool__(self) -> bool:
        """Whether a tile waits."""
        return bool(self._tasks)

    def add(
        self, account: Hashable, task: Hashable, key: KeyT, tiles: Iterable[TileT], tile_cost: int
    ) -> None:
        """Queue the tiles of one task.

        Args:
            account: whose share of the device they use.
            task: a name, unique among the tasks that are queued.
            key: tiles of equal key can run in one batch.
            tiles: in the order in which they are to run; at least one.
            tile_cost: what each one takes, in pixels.

        Raises:
            ValueError: if `task` is queued already, or has no tiles.
        """
        queue = deque(tiles)
        if task in self._tasks or not queue:
            raise ValueError(f"task {task!r} is queued already, or has no tiles")
        state = self._accounts.setdefault(account, _Account(self._level))
        state.served = max(state.served, self._level)
        state.waiting += 1
        self._arrivals += 1
        self._tasks[task] = _Task(
            name=task,
            account=state,
            key=key,
            tiles=queue,
            tile_cost=tile_cost,
            finish=state.served + tile_cost * len(queue),
            arrival=self._arrivals,
        )

    def cancel(self, task: Hashable) -> None:
        """Forget the tiles of `task` that have not been handed out, if there are any."""
        if (state := self._tasks.pop(task, None)) is not None:
            state.account.waiting -= 1

    def next_batch(self, limit: int) -> Batch[KeyT, TileT] | None:
        """Take the tiles that are to run now, at most `limit` of them; None if none waits."""
        if not self._tasks:
            return None
        first = min(self._tasks.values(), key=_Task.turn)
        self._rise(first.account.served)
        batch: Batch[KeyT, TileT] = Batch(first.key, [])
        task: _Task[KeyT, TileT] | None = first
        while task is not None and len(batch.tiles) < limit:
            batch.tiles.append((task.name, self._take(task)))
            same_key = (other for other in self._tasks.values() if other.key == first.key)
            task = min(same_key, key=_Task.turn, default=None)
        return batch

    def _take(self, task: _Task[KeyT, TileT]) -> TileT:
        task.account.served += task.tile_cost
        tile = task.tiles.popleft()
        if not task.tiles:
            self.cancel(task.name)
        return tile

    def _rise(self, level: int) -> None:
        """All who wait have been served at least `level`; forget who does not wait and is not ahead of it."""
        self._level = level
        self._accounts = {
            name: account
            for name, account in self._accounts.items()
            if account.waiting or account.served > level
        }
