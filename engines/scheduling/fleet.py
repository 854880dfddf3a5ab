"""The devices of an executor: their workers and helpers, which of them still work, and what takes over.

1. A device that is lost is retired; nothing more runs there.
2. When the last one is lost, or there is none yet, another may take over, such as the CPU for GPUs. It stays
   in reserve if others come.
3. On a slow CPU the largest tile of a large network takes a minute, and a run cannot be interrupted. So a
   CPU has a helper, a second worker with networks of its own: during a long run it takes the tile whose turn
   it is, if that is small. Both are slower meanwhile, but nothing is computed twice, and the order stays.
   Where short runs take less time side by side (`Device.side_by_side`), it takes some of those as well.
4. A distant device has a second worker, too: what that one takes is on its way while the first one's runs.

All is called under the executor's lock.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial

from engines.devices.device import Device, Distant
from engines.devices.parts import Part
from engines.devices.sessions import Network
from engines.errors import DeviceLostError, EngineError
from engines.scheduling.work import Job, Load
from engines.scheduling.worker import Worker

__all__ = ["Fleet"]

log = logging.getLogger(__name__)

_KEPT = 8
"""Lost devices that are still shown; where devices come and go there would be ever more."""


class Fleet:
    """The workers of all devices.

    Attributes:
        workers: one for each device, those that are lost among them.
        helpers: the second workers of devices that have one.
        replacing: whether a stand-in is being looked for.
    """

    def __init__(self, find_stand_in: Callable[[], Device] | None) -> None:
        """Begin with no devices.

        Args:
            find_stand_in: finds the device that takes over when all are lost; it may raise anything.
        """
        self.workers: list[Worker] = []
        self.helpers: list[Worker] = []
        self.replacing = False
        self._find_stand_in = find_stand_in
        self._known: dict[Network | Part, None] = {}

    def __iter__(self) -> Iterator[Worker]:
        """Go through all workers and helpers."""
        yield from self.workers
        yield from self.helpers

    @property
    def works(self) -> bool:
        """Whether a device is left, or another is to take over."""
        return self._has_working or self.awaits_stand_in

    @property
    def awaits_stand_in(self) -> bool:
        """Whether all devices are lost and another is to take over."""
        return not self._has_working and (self.replacing or self._find_stand_in is not None)

    @property
    def _has_working(self) -> bool:
        return any(worker.lost is None for worker in self.workers)

    @property
    def ended(self) -> bool:
        """Whether all threads have ended, except those of lost devices."""
        return all(worker.ended or worker.lost for worker in self)

    @property
    def at_work(self) -> list[Worker]:
        """The first workers of the devices that take tiles: those in reserve only if there are no others."""
        working = [worker for worker in self.workers if worker.lost is None]
        return [worker for worker in working if not worker.reserve] or working

    @property
    def stand_in(self) -> Device | None:
        """The device that has taken over for all others, if that is so."""
        return next((worker.device for worker in self.at_work if worker.reserve), None)

    def is_at_work(self, worker: Worker) -> bool:
        """Whether a worker takes tiles, or would if there were some."""
        if worker.lost is not None:
            return False
        return not worker.first.reserve or all(other.lost or other.reserve for other in self.workers)

    def add(self, device: Device, *, reserve: bool = False) -> list[Worker]:
        """Add a device; gives the workers whose threads are to be started.

        Args:
            device: what is added.
            reserve: whether it takes tiles only while no other device works.
        """
        first = Worker(device, reserve=reserve)
        first.loads.extend(Load(network, joins=True) for network in self._known if not reserve)
        self.workers.append(first)
        self._forget_lost()
        if isinstance(device, Distant):
            self.helpers.append(Worker(device, first, pace=first.pace, room=first.room))
        elif device.largest_batch == 1:  # where several tiles share a run, it takes much less than a second
            self.helpers.append(Worker(device, first))
        else:
            return [first]
        return [first, self.helpers[-1]]

    def worker_of(self, device: Device) -> Worker | None:
        """The first worker of a device that is not lost; None if there is none."""
        return next((each for each in self.workers if each.device is device and each.lost is None), None)

    def _forget_lost(self) -> None:
        lost = [worker for worker in self.workers if worker.lost is not None]
        forgotten = lost[: max(0, len(lost) - _KEPT)]
        self.workers = [worker for worker in self.workers if worker not in forgotten]
        self.helpers = [helper for helper in self.helpers if helper.first not in forgotten]

    def room(self, network: Network | Part, now: float) -> int | None:
        """The most input pixels of a tile that every device has memory for; None if no limit was found."""
        rooms = [worker.room_for(network, now) for worker in self.workers if worker.lost is None]
        return min((room for room in rooms if room is not None), default=None)

    def ask_to_load(self, network: Network | Part) -> list[Load]:
        """Ask every device at work to load a network; of those that are lost the load has failed already."""
        self._known[network] = None
        asked = [worker for worker in self.workers if worker.lost or self.is_at_work(worker)]
        loads = [Load(network) for _ in asked]
        for worker, load in zip(asked, loads, strict=True):
            if worker.lost is None:
                worker.loads.append(load)
            else:
                load.done.set_exception(worker.lost)
        return loads

    def knows(self, network: Network | Part) -> bool:
        """Whether a device that joins has to load a network."""
        return network in self._known

    def forget(self, network: Network | Part) -> None:
        """Have devices that join do without a network, as one that is there cannot load it."""
        self._known.pop(network, None)

    def refuse_loads(self, error: EngineError) -> None:
        """Fail all loads that have not begun."""
        for worker in self.workers:
            for load in worker.loads:
                load.done.set_exception(error)
            worker.loads.clear()

    def stalled(self, now: float, patience: float) -> Iterator[Worker]:
        """The workers that have been at one thing for more than `patience` seconds."""
        for worker in self:
            if worker.job is not None and now - worker.began > patience:
                yield worker

    def retire(self, worker: Worker, error: DeviceLostError, now: float) -> list[Job]:
        """Let nothing more run on a device; its sessions are kept, as to end them might end the process.

        Of a helper nothing else is given up.

        Returns:
            What it was at, and its second worker.
        """
        worker = worker if worker.is_helper else worker.first
        log.error("%s is given up: %s", worker.name, error)
        helpers = [helper for helper in self.helpers if helper.main is worker and helper.lost is None]
        stopped = [each.stop(error, now) for each in (*helpers, worker)]
        if (stand_in := self.stand_in) is not None and not (worker.is_helper or worker.reserve):
            log.error("%s takes over: all other devices are lost", stand_in.name)
        return [job for job in stopped if job is not None]

    def begin_replacing(self) -> Callable[[], Device | None] | None:
        """What finds the device that takes over, once, if all are lost; `end_replacing` must follow."""
        if self.replacing or self._has_working:
            return None
        find, self._find_stand_in = self._find_stand_in, None
        self.replacing = find is not None
        reason = "all other devices are lost" if self.workers else "there is no other device"
        return None if find is None else partial(_found, find, reason)

    def end_replacing(self, device: Device | None) -> list[Worker]:
        """Add the device that takes over, if there is one; gives the workers to be started."""
        self.replacing = False
        return [] if device is None else self.add(device, reserve=True)

    def why_lost(self) -> DeviceLostError:
        """Say why no device is left."""
        reasons = "; ".join(str(worker.lost) for worker in self.workers) or "there is none yet"
        return DeviceLostError(f"no device is left to run on: {reasons}")


def _found(find: Callable[[], Device], reason: str) -> Device | None:
    try:
        device = find()
    except Exception:
        log.exception("no other device can take over")
        return None
    log.error("%s takes over: %s", device.name, reason)
    return device
