"""Which tiles run next: fair between accounts, then between the tasks of an account.

1. Between accounts: the one that has cost the devices least is next (start-time fair queueing, Goyal, Vin and
   Cheng 1996). An account that was idle starts level with the others, or where it left off if that is ahead
   of them: it neither saves anything up nor shakes off what it has had.
2. Within an account: each task gets a virtual finish time on arrival, and the earliest is next (fair
   queueing, Demers, Keshav and Shenker 1989). Virtual time is what each task would have been served by now if
   they were served at once and equally; a task finishes its own size after its arrival. Equal tasks run in
   order of arrival, a small one overtakes the big ones that wait or are under way, and a big one cannot
   starve: its finish time stays while the arrivals' move on.
3. A batch is filled in that same order with tiles that share the first one's key (model and shape).
4. A batch is charged when it is finished, for what it took. Until then it counts for what it should take,
   which is asked for anew each time: it may be known better once others of its kind have run.
5. A batch that could not be run is put back: its tiles are next in their tasks again, and nobody has paid for
   them. What was cancelled meanwhile stays cancelled.

There is no clock and no waiting: a device asks when it is free, and a lone tile runs at once. Under load the
queue fills while the device is busy, and batches form by themselves.

A pure class: no threads, no locks, no I/O. `executor` is the shell around it.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Batch", "TileScheduler"]

KeyT = TypeVar("KeyT", bound=Hashable)
TileT = TypeVar("TileT")


@dataclass(slots=True, eq=False)
class _Account:
    served: int
    """What its tiles took; where it started is not zero but what the others had been served by then."""
    under_way: int = 0
    """What the tiles that are handed out should take."""
    tasks: int = 0
    """How many of its tasks have tiles that wait or are handed out."""
    virtual_time: float = 0.0
    """What each of its tasks would have been served, were they served equally."""


@dataclass(slots=True, eq=False)
class _Task(Generic[KeyT, TileT]):
    name: Hashable
    account: _Account
    key: KeyT
    tiles: deque[TileT]
    start: float
    """The account's virtual time when it came."""
    count: int
    """How many tiles it came with."""
    arrival: int
    tile_cost: int = 0
    """As far as is known by now."""
    handed_out: int = 0
    cancelled: bool = False

    def turn(self) -> tuple[int, float, int]:
        """The smallest is next."""
        account = self.account
        return account.served + account.under_way, self.start + self.count * self.tile_cost, self.arrival


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Generic[KeyT, TileT]):
    """Tiles that are to run now, together. Whoever took it says `finish` or `put_back`, once."""

    key: KeyT
    """What they share."""
    tiles: list[tuple[Hashable, TileT]] = field(default_factory=list)
    """Each with the task it belongs to; at least one."""
    owners: list[_Task[KeyT, TileT]] = field(default_factory=list, repr=False)
    """The scheduler's own: the same tasks, of which names may have been used again meanwhile."""
    tile_cost: int = 0
    """What each one should take."""


class TileScheduler(Generic[KeyT, TileT]):
    """Queues the tiles of many tasks and hands them out in fair order, in batches.

    Handing out a tile looks at every task that is queued: microseconds for tens, a millisecond for thousands.
    """

    def __init__(self, cost: Callable[[KeyT], int]) -> None:
        """Begin without tasks.

        Args:
            cost: what a tile of this key should take, as far as is known by now; at least 1.
        """
        self._cost = cost
        self._tasks: dict[Hashable, _Task[KeyT, TileT]] = {}
        self._accounts: dict[Hashable, _Account] = {}
        self._level = 0
        self._arrivals = 0

    def __bool__(self) -> bool:
        """Whether a tile waits."""
        return any(task.tiles for task in self._tasks.values())

    def waiting(self) -> list[tuple[KeyT, int]]:
        """The key of each task that has tiles waiting, and how many."""
        return [(task.key, len(task.tiles)) for task in self._tasks.values() if task.tiles]

    def add(self, account: Hashable, task: Hashable, key: KeyT, tiles: Iterable[TileT]) -> None:
        """Queue the tiles of one task.

        Args:
            account: whose share of the devices they use.
            task: a name, unique among the tasks that have tiles waiting or handed out.
            key: tiles of equal key can run in one batch.
            tiles: in the order in which they are to run; at least one.

        Raises:
            ValueError: if `task` is queued already, or has no tiles.
        """
        queue = deque(tiles)
        if task in self._tasks or not queue:
            raise ValueError(f"task {task!r} is queued already, or has no tiles")
        state = self._accounts.setdefault(account, _Account(self._level))
        if not state.tasks:
            state.served = max(state.served, self._level)
        state.tasks += 1
        self._arrivals += 1
        self._tasks[task] = _Task(
            name=task,
            account=state,
            key=key,
            tiles=queue,
            start=state.virtual_time,
            count=len(queue),
            arrival=self._arrivals,
        )

    def cancel(self, task: Hashable) -> None:
        """Forget the tiles of `task` that wait, if there are any; those handed out do not come back."""
        if (state := self._tasks.pop(task, None)) is not None:
            state.cancelled = True
            state.tiles.clear()
            self._leave_if_done(state)

    def clear(self) -> list[tuple[Hashable, TileT]]:
        """Cancel every task of which tiles wait; returns one such tile of each."""
        waiting = [(task.name, task.tiles[0]) for task in self._tasks.values() if task.tiles]
        for name, _ in waiting:
            self.cancel(name)
        return waiting

    def next_key(self) -> KeyT | None:
        """That of the tiles that would run now; None if none waits."""
        first = self._first()
        return None if first is None else first.key

    def next_batch(self, limit: Callable[[KeyT], int]) -> Batch[KeyT, TileT] | None:
        """Take the tiles that are to run now; None if none waits.

        Args:
            limit: how many tiles of a key one batch may have, at least one.
        """
        first = self._first()
        if first is None:
            return None
        self._rise(first.account.served)
        batch: Batch[KeyT, TileT] = Batch(first.key, tile_cost=first.tile_cost)
        most = limit(first.key)
        task: _Task[KeyT, TileT] | None = first
        while task is not None and len(batch.tiles) < most:
            task.account.under_way += batch.tile_cost
            task.handed_out += 1
            batch.owners.append(task)
            batch.tiles.append((task.name, task.tiles.popleft()))
            same_key = (other for other in self._tasks.values() if other.tiles and other.key == first.key)
            task = min(same_key, key=_Task.turn, default=None)
        return batch

    def finish(self, batch: Batch[KeyT, TileT], cost: int | None = None) -> None:
        """Charge a batch that has been run, or never will be.

        Args:
            batch: from `next_batch`.
            cost: what it took; default: what it should have taken.
        """
        share = batch.tile_cost if cost is None else cost // len(batch.tiles)
        for task in batch.owners:
            task.account.served += share
            task.account.virtual_time += share / task.account.tasks
            self._take_back(task, batch.tile_cost)

    def put_back(self, batch: Batch[KeyT, TileT]) -> None:
        """Make everything as if the batch had not been handed out; what was cancelled since stays so."""
        for task, (_, tile) in zip(batch.owners[::-1], batch.tiles[::-1], strict=True):
            if not task.cancelled:
                task.tiles.appendleft(tile)
            self._take_back(task, batch.tile_cost)

    def _take_back(self, task: _Task[KeyT, TileT], tile_cost: int) -> None:
        task.handed_out -= 1
        task.account.under_way -= tile_cost
        self._leave_if_done(task)

    def _first(self) -> _Task[KeyT, TileT] | None:
        for task in self._tasks.values():
            task.tile_cost = self._cost(task.key)
        return min((task for task in self._tasks.values() if task.tiles), key=_Task.turn, default=None)

    def _leave_if_done(self, task: _Task[KeyT, TileT]) -> None:
        if task.tiles or task.handed_out:
            return
        task.account.tasks -= 1
        if not task.cancelled:
            del self._tasks[task.name]

    def _rise(self, level: int) -> None:
        """All who wait have been served at least `level`; forget who has no tasks and is not ahead of it."""
        self._level = level
        self._accounts = {
            name: account
            for name, account in self._accounts.items()
            if account.tasks or account.served > level
        }
