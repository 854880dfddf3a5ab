"""The threads of the devices: each takes what is next, runs it, and deals with what goes wrong.

1. A run that fails is tried once more, tile by tile: only the tasks that are at fault fail.
2. A batch that does not fit into a device's memory is handed out again in halves; a single tile that does
   not fit fails its task, which may come again with smaller tiles. What fits is remembered.
3. A device that is lost, or that takes far too long over a run, is retired, and the others take over its
   batch. The thread that is stuck in it is left behind, and what it may still bring is thrown away.
4. When the last device is lost another may take over; what comes meanwhile waits. Without any device left,
   every task that waits or comes fails at once.
5. What goes wrong in a helper (see `fleet`) counts for nothing: it is given up, and the tile waits.
6. A device that has nothing to do gives back the memory that large runs took.
7. Devices may come at any time, and go: what they were at waits again.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from engines.devices.device import Device
from engines.devices.failures import as_model_error
from engines.devices.parts import Arrays
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, EngineError, ModelError
from engines.scheduling.calibration import Calibration
from engines.scheduling.costs import Costs
from engines.scheduling.fleet import Fleet
from engines.scheduling.placement import Placement
from engines.scheduling.scheduler import Batch, TileScheduler
from engines.scheduling.work import Job, Key, Load, TileWork
from engines.scheduling.worker import Worker

__all__ = ["Dispatcher"]

log = logging.getLogger(__name__)

_WATCH_EVERY = 5.0
_LONG = 0.5
"""Seconds, of a run whose progress is worth an estimate."""

_LOOK_AGAIN = 0.1
"""Seconds until a device that leaves what waits to others looks whether they are as quick as was expected."""

_Failures: TypeAlias = list[tuple[TileWork, EngineError]]
"""Tiles that are to be failed, once the lock is released."""


class Dispatcher:
    """Hands out what is queued.

    Attributes:
        changed: the lock that everything here is under, and what others than the devices' threads wait for.
        scheduler: the tiles that wait.
        fleet: the devices.
        placement: which of them takes what waits.
        closing: whether nothing more is handed out.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        *,
        calibration: Calibration | None,
        stand_in: Callable[[], Device] | None,
        patience: float,
        idle: float,
        clock: Callable[[], float],
    ) -> None:
        """Start a thread for each device; see `Executor`."""
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        self._wakes: defaultdict[Worker, threading.Condition] = defaultdict(lambda: threading.Condition(lock))
        self._costs = Costs()
        self.scheduler: TileScheduler[Key, TileWork] = TileScheduler(self._cost)
        self.fleet = Fleet(stand_in)
        self.closing = False
        self._closed = threading.Event()
        self._calibration = calibration
        self._patience = patience
        self._idle = idle
        self._clock = clock
        self.placement = Placement(self.scheduler, self.fleet, self._costs)
        for device in devices:
            self._start(self.fleet.add(device))
        threading.Thread(target=self._watch, name="device watch", daemon=True).start()

    @property
    def usable(self) -> bool:
        """Whether tiles can be run: not closed, and a device is left, or is looked for."""
        return not self.closing and self.fleet.works

    def check_usable(self) -> None:
        """Raise a ModelError if no tiles can be run."""
        if not self.usable:
            raise self._why_unusable()

    def tiles_came(self) -> None:
        """Wake those that can run what was queued, and nobody else: each takes turns from the event loop."""
        for worker in self.fleet.at_work:
            if worker.job is None:
                self._wakes[worker].notify()
        self._wake_helpers()

    def wake_all(self) -> None:
        """Have everybody look what there is to do."""
        for wake in self._wakes.values():
            wake.notify()
        self.changed.notify_all()

    def add(self, device: Device) -> None:
        """Have a device take tiles from now on, as soon as it has loaded what the others have."""
        with self.changed:
            if not self.closing:
                self._start(self.fleet.add(device))
            self.wake_all()

    def lose(self, device: Device, reason: str) -> None:
        """Give up a device that is gone; nothing if it is given up already."""
        with self.changed:
            if self.closing or (worker := self.fleet.worker_of(device)) is None:
                return
            self._retire(worker, DeviceLostError(reason))
        self.replace_lost()

    def close(self) -> None:
        """Let the runs under way finish, fail the tiles that wait and end the threads. Blocks."""
        with self.changed:
            self.closing = True
            failed = self._give_up()
            self.wake_all()
        _fail_all(failed)
        with self.changed:
            self.changed.wait_for(lambda: self.fleet.ended)
        self._closed.set()

    def retire_stalled(self) -> None:
        """Give up the devices that are at one thing for too long. A thread calls this every few seconds."""
        with self.changed:
            stalled = list(self.fleet.stalled(self._clock(), self._patience))
            for worker in stalled:
                name = worker.device.name
                self._retire(
                    worker, DeviceLostError(f"{name} has not finished a run in {self._patience:.0f} seconds")
                )
        if stalled:  # no device at all need not be a loss: the first may be on its way
            self.replace_lost()

    def _start(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            name = f"device {worker.name}"
            threading.Thread(target=self._work, args=[worker], name=name, daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_EVERY):
            self.retire_stalled()

    def _cost(self, key: Key) -> int:
        return self._costs.cost(key.network, key.pixels)

    def _work(self, worker: Worker) -> None:
        try:
            while self._step(worker):
                pass
        finally:
            worker.finish_all()
            with self.changed:
                worker.ended = True
                if not self.closing and worker.lost is None:  # by an error of this module
                    self._retire(worker, DeviceLostError("its thread died"))
                self.wake_all()
                self._wakes.pop(worker, None)
            self.replace_lost()

    def _step(self, worker: Worker) -> bool:
        """Wait for the next thing and do it; False when there will be nothing more."""
        with self.changed:
            job, is_idle = None, False
            if self.closing or worker.lost:
                return False
            if worker.loads or self.placement.has_tiles_for(worker, self._clock()):
                job = self._next_job(worker)
            else:
                pause = _LOOK_AGAIN if worker.leaves else worker.idle_for(self._idle, self._clock())
                is_idle = not self._wakes[worker].wait(pause) and not worker.leaves
        if job is None:
            if is_idle:
                worker.release_memory()
        elif isinstance(job, Load):
            self._load(worker, job)
        else:
            self._run(worker, job)
        return True

    def _next_job(self, worker: Worker) -> Job | None:
        now = self._clock()
        job: Job | None
        if worker.loads:
            job = worker.loads.popleft()
        else:
            job = self.scheduler.next_batch(lambda key: self.placement.most(worker, key, now))
        worker.begin(job, now)
        if worker.main is None:
            self._wake_helpers()  # what waits may be small beside it
        return job

    def _wake_helpers(self) -> None:
        for helper in self.fleet.helpers:
            if self.placement.has_tiles_for(helper, self._clock()):
                self._wakes[helper].notify()

    def _load(self, worker: Worker, load: Load) -> None:
        failure: ModelError | None = None
        try:
            worker.load(load.network, self._calibration)
        except Exception as error:  # noqa: BLE001 - raised where the network is waited for
            failure = as_model_error(error, f"{load.network.path.name} cannot be loaded")
        with self.changed:
            if worker.job is not load:
                return  # given up meanwhile
            worker.end(self._clock())
            if isinstance(failure, DeviceLostError):
                self._retire(worker, failure)
            elif failure is not None and not load.joins:
                self.fleet.forget(load.network)
            elif failure is not None and self.fleet.knows(load.network):
                self._retire(worker, DeviceLostError(str(failure)))
        if failure is None:
            load.done.set_result(None)
        else:
            load.done.set_exception(failure)
        self.replace_lost()

    def _run(self, worker: Worker, batch: Batch[Key, TileWork]) -> None:
        """Run a batch. Whatever goes wrong, the thread lives on, and only the tasks concerned fail."""
        network = batch.key.network
        try:
            worker.load(network, self._calibration)
            begun = self._clock()
            self._announce(batch)
            outcomes = worker.run(batch, self._calibration, partial(self._begin_again, worker, batch))
        except Exception as error:
            log.exception("%s: %d tiles of %s failed", worker.name, len(batch.tiles), network.path.name)
            self._run_failed(worker, batch, as_model_error(error, "the tile failed"))
            return
        failed: _Failures = []
        with self.changed:
            if worker.job is not batch:
                return  # given up meanwhile: the tiles run elsewhere
            now = self._clock()
            worker.end(now)
            took = worker.worked(network) or now - begun
            _share_time(batch, took)
            for (task, tile), outcome in zip(batch.tiles, outcomes, strict=True):
                if isinstance(outcome, ModelError):
                    self.scheduler.cancel(task)
                    failed.append((tile, outcome))
            if not failed:
                self._costs.learn(network, batch.key.pixels, took / len(batch.tiles))
                worker.first.costs.learn(network, batch.key.pixels, (now - begun) / len(batch.tiles))
                worker.first.count(batch)
            self.scheduler.finish(batch, round(took * 1e9))
        _fail_all(failed)
        worker.finish(lambda: self._keep(batch, outcomes))

    def _announce(self, batch: Batch[Key, TileWork]) -> None:
        """Tell the tiles of a long run how long it should take; of short ones their end says enough."""
        with self.changed:
            each = self._costs.seconds(batch.key.network, batch.key.pixels)
        if each is not None and (expected := each * len(batch.tiles)) > _LONG:
            for _, tile in batch.tiles:
                tile.expect(expected)

    def _begin_again(self, worker: Worker, batch: Batch[Key, TileWork]) -> None:
        """Give each of the runs that a batch takes the time of one."""
        with self.changed:
            if worker.job is batch:
                worker.begin(batch, self._clock())

    def _keep(self, batch: Batch[Key, TileWork], outcomes: Sequence[Arrays | ModelError]) -> None:
        for (task, tile), outcome in zip(batch.tiles, outcomes, strict=True):
            if isinstance(outcome, ModelError):
                continue
            try:
                tile.finish(outcome)
            except Exception as error:
                log.exception("the result of a tile of %s could not be kept", batch.key.network.path.name)
                with self.changed:
                    self.scheduler.cancel(task)
                tile.fail(as_model_error(error, "the tile's result could not be kept"))

    def _run_failed(self, worker: Worker, batch: Batch[Key, TileWork], error: ModelError) -> None:
        failed: _Failures = []
        with self.changed:
            if worker.job is not batch:
                return
            if isinstance(error, DeviceLostError):
                self._retire(worker, error)
            elif worker.is_helper:
                self._retire(worker, DeviceLostError(str(error)))
            else:
                took = self._clock() - worker.began
                worker.end(self._clock())
                failed = self._shrink_or_fail(worker, batch, error, took)
        _fail_all(failed)
        self.replace_lost()

    def _shrink_or_fail(
        self, worker: Worker, batch: Batch[Key, TileWork], error: ModelError, took: float
    ) -> _Failures:
        if isinstance(error, DeviceOutOfMemoryError):
            worker.remember_room(batch, self._clock())
            if len(batch.tiles) > 1:
                self.scheduler.put_back(batch)
                self.wake_all()
                return []
        for task, _ in batch.tiles:
            self.scheduler.cancel(task)
        _share_time(batch, took)
        self.scheduler.finish(batch, round(took * 1e9))
        return [(tile, error) for _, tile in batch.tiles]

    def _retire(self, worker: Worker, error: DeviceLostError) -> None:
        """Let nothing more run on this device. `replace_lost` must follow, without the lock."""
        for job in self.fleet.retire(worker, error, self._clock()):
            if isinstance(job, Batch):
                self.scheduler.put_back(job)
        self.wake_all()

    def replace_lost(self) -> None:
        """Find what takes over, if all devices are lost; if there is nothing, fail what waits."""
        with self.changed:
            find = None if self.closing else self.fleet.begin_replacing()
        if find is not None:
            device = find()  # may take seconds
            with self.changed:
                self._start(self.fleet.end_replacing(None if self.closing else device))
                self.wake_all()
        with self.changed:
            failed = [] if self.usable else self._give_up()
        _fail_all(failed)

    def _give_up(self) -> _Failures:
        """Drop all that waits, for a run or to be loaded."""
        error = self._why_unusable()
        self.fleet.refuse_loads(error)
        return [(tile, error) for _, tile in self.scheduler.clear()]

    def _why_unusable(self) -> ModelError:
        return ModelError("the engine is shutting down") if self.closing else self.fleet.why_lost()


def _share_time(batch: Batch[Key, TileWork], seconds: float) -> None:
    for _, tile in batch.tiles:
        tile.took(seconds / len(batch.tiles))


def _fail_all(failed: _Failures) -> None:
    """Fail tiles; not under the lock."""
    for tile, error in failed:
        tile.fail(error)
