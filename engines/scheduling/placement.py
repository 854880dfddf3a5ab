"""Which devices take what waits, and how much of it.

Helpers take small tiles beside a long run, slow devices leave to faster ones what these will be done with
sooner (see `sharing`), and those that are free at the same time share a batch.

All is called under the executor's lock; times are seconds by its clock.
"""

from engines.scheduling.costs import Costs
from engines.scheduling.fleet import Fleet
from engines.scheduling.scheduler import Batch, TileScheduler
from engines.scheduling.sharing import Other, is_left, share
from engines.scheduling.work import Key, TileWork
from engines.scheduling.worker import Worker

__all__ = ["Placement"]


class Placement:
    """Decides for each worker that is free."""

    def __init__(self, scheduler: TileScheduler[Key, TileWork], fleet: Fleet, costs: Costs) -> None:
        """Decide by what is known of the devices.

        Args:
            scheduler: the tiles that wait.
            fleet: the devices.
            costs: what tiles take, whichever device runs them.
        """
        self._scheduler = scheduler
        self._fleet = fleet
        self._costs = costs

    def has_tiles_for(self, worker: Worker, now: float) -> bool:
        """Whether a worker is to take tiles now; sets its `leaves`."""
        worker.leaves = False
        if not self._scheduler or not self._fleet.is_at_work(worker):
            return False
        if worker.is_helper:
            key = self._scheduler.next_key()
            return key is not None and worker.helps_with(key, self._costs)
        if worker.main is not None and (not isinstance(worker.main.job, Batch) or self._free()):
            return False
        worker.leaves = self._leaves(worker, now)
        return not worker.leaves

    def most(self, worker: Worker, key: Key, now: float) -> int:
        """How many of the tiles that wait of a key a worker takes: others that are free get some, too."""
        limit = worker.limit(key, now)
        if (free := self._free()) < 2 or worker.main is not None:
            return limit
        return min(
            limit, share(sum(count for waits, count in self._scheduler.waiting() if waits == key), free)
        )

    def _free(self) -> int:
        """How many devices could begin a run now."""
        return sum(worker.job is None and not worker.leaves for worker in self._fleet.at_work)

    def _leaves(self, worker: Worker, now: float) -> bool:
        """Whether a device leaves what waits to faster ones."""
        at_work = self._fleet.at_work
        if len(at_work) < 2 or (key := self._scheduler.next_key()) is None:
            return False
        if (each := worker.first.costs.seconds(key.network, key.pixels)) is None:
            return False
        faster = [
            Other(other.free_in(now), seconds)
            for other in at_work
            if other is not worker.first
            and (seconds := other.costs.seconds(key.network, key.pixels)) is not None
            and 2 * seconds <= each
        ]
        if not faster:
            return False
        waiting = sum(count * self._cost(waits) for waits, count in self._scheduler.waiting())
        return is_left(each, waiting / self._cost(key), faster)

    def _cost(self, key: Key) -> int:
        return self._costs.cost(key.network, key.pixels)
