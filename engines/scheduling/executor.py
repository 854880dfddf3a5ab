"""One thread per device; all take batches of tiles from one scheduler.

The shell around `TileScheduler`: this is where the lock, the threads and the devices are.

1. A batch that does not fit into a device's memory is handed out again in halves; a single tile that does
   not fit fails its task, which may come again with smaller tiles. What fits is remembered.
2. A device that is lost, or that takes far too long over a run, is retired, and the others take over its
   batch. The thread that is stuck in it is left behind, and what it may still bring is thrown away.
3. When the last device is lost another may take over; without any device left, every task that waits or
   comes fails at once.
4. A CPU has a helper for small tiles, see `fleet`. What goes wrong there counts for nothing: the helper is
   given up, and the tile waits like any other.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from engines.activity import Activity, Waiting
from engines.devices.device import Device
from engines.devices.failures import as_model_error
from engines.devices.parts import Arrays, Part
from engines.devices.sessions import Network
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, EngineError, ModelError
from engines.scheduling.calibration import Calibration
from engines.scheduling.costs import Paces
from engines.scheduling.fleet import Fleet
from engines.scheduling.scheduler import Batch, TileScheduler
from engines.scheduling.worker import Job, Key, Load, Room, TileKey, TileWork, Worker

__all__ = ["PATIENCE", "Executor"]

log = logging.getLogger(__name__)

PATIENCE = 900.0
"""Seconds that one run, or the loading of one network, may take before its device is given up."""

_WATCH_EVERY = 5.0

_LONG = 1.0
"""Seconds from which on a run is so long that a small tile should not wait for its end."""

_SMALL = 1 / 8
"""How much of that time a small tile takes at most."""

Failures: TypeAlias = list[tuple[TileWork, EngineError]]
"""Tiles that are to be failed, once the lock is released."""


class Executor:
    """Runs tiles on all devices, in fair order; may be used from any thread."""

    def __init__(
        self,
        devices: Iterable[Device],
        *,
        calibration: Calibration | None = None,
        stand_in: Callable[[], Device] | None = None,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the threads of the devices.

        Args:
            devices: at least one.
            calibration: what measures how many tiles one run should take, on devices that take several;
                without it they take as many as they can.
            stand_in: finds the device that takes over when all are lost; it may raise anything.
            patience: seconds that one run, or the loading of one network, may take.
            clock: the time in seconds.
        """
        self._calibration = calibration
        self._patience = patience
        self._clock = clock
        self._paces = Paces()
        self._scheduler: TileScheduler[Key, TileWork] = TileScheduler(self._cost)
        self._changed = threading.Condition()
        self._closing = False
        self._closed = threading.Event()
        self._fleet = Fleet(stand_in)
        for device in devices:
            self._start(self._fleet.add(device))
        threading.Thread(target=self._watch, name="device watch", daemon=True).start()

    @property
    def usable(self) -> bool:
        """Whether tiles can be run: not closed, and a device is left."""
        return not self._closing and self._fleet.works

    @property
    def stand_in(self) -> Device | None:
        """The device that took over when all others were lost, if that has happened."""
        return self._fleet.stand_in

    def room(self, network: Network | Part) -> int | None:
        """The most input pixels of a tile that every device has memory for; None if no limit was found."""
        with self._changed:
            return self._fleet.room(network, self._clock())

    def activity(self, names: Callable[[], Mapping[Network | Part, str]]) -> Activity:
        """What has been done, and what waits. Asks the devices for their memory, which may take milliseconds.

        Args:
            names: gives those of the models of all networks that tiles were submitted for.
        """
        tiles: Counter[str] = Counter()
        tasks: Counter[str] = Counter()
        with self._changed:
            known = names()  # under the lock: nothing is submitted meanwhile
            for key, count in self._scheduler.waiting():
                tiles[known[key.network]] += count
                tasks[known[key.network]] += 1
            workers = tuple(self._fleet.workers)
            devices = [worker.activity(known, self._clock()) for worker in workers]
        memories = [worker.device.memory_use() if worker.lost is None else None for worker in workers]
        return Activity(
            devices=tuple(
                replace(device, memory=memory) for device, memory in zip(devices, memories, strict=True)
            ),
            waiting={name: Waiting(tiles[name], tasks[name]) for name in set(known.values())},
        )

    def submit(self, account: Hashable, task: Hashable, key: Key, tiles: Iterable[TileWork]) -> None:
        """Queue the tiles of a task.

        Unless it is cancelled, either each tile is finished once, or at least one is failed; a tile is never
        both, and nothing happens to it twice.

        Raises:
            ModelError: if the executor is closed, or no device is left.
        """
        with self._changed:
            self._check_usable()
            self._scheduler.add(account, task, key, tiles)
            self._changed.notify_all()

    def cancel(self, task: Hashable) -> None:
        """Drop the tiles of a task that have not begun; nothing more is heard of them."""
        with self._changed:
            self._scheduler.cancel(task)

    def load(self, network: Network | Part) -> None:
        """Load a network on all devices, so that no tile waits for it. Blocks.

        Raises:
            ModelError: if it cannot be loaded, the executor is closed, or no device is left.
        """
        with self._changed:
            self._check_usable()
            loads = self._fleet.ask_to_load(network)
            self._changed.notify_all()
        errors = [error for load in loads if (error := load.done.exception()) is not None]
        refusals = [error for error in errors if not isinstance(error, DeviceLostError)]
        if refusals:
            raise refusals[0]
        if len(errors) == len(loads):
            if not self.usable:
                raise errors[0]
            self.load(network)  # on the device that has taken over

    def close(self) -> None:
        """Let the runs under way finish, fail the tiles that wait and end the threads. Blocks."""
        with self._changed:
            self._closing = True
            failed = self._give_up(_shutting_down())
            self._changed.notify_all()
        _fail_all(failed)
        with self._changed:
            self._changed.wait_for(lambda: self._fleet.ended)
        self._closed.set()

    def retire_stalled(self) -> None:
        """Give up the devices that are at one thing for too long. A thread calls this every few seconds."""
        now = self._clock()
        failed: Failures = []
        with self._changed:
            for worker in self._fleet.stalled(now, self._patience):
                error = DeviceLostError(
                    f"{worker.device.name} has not finished a run in {self._patience:.0f} seconds"
                )
                failed += self._retire(worker, error)
        _fail_all(failed)

    def _start(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            name = f"device {worker.name}"
            threading.Thread(target=self._work, args=[worker], name=name, daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_EVERY):
            self.retire_stalled()

    def _cost(self, key: Key) -> int:
        return self._paces.cost(key.network, key.pixels)

    def _seconds(self, key: Key) -> float | None:
        return self._paces.seconds(key.network, key.pixels)

    def _work(self, worker: Worker) -> None:
        try:
            while (job := self._next_job(worker)) is not None:
                if isinstance(job, Load):
                    self._load(worker, job)
                else:
                    self._run(worker, job)
        finally:
            worker.finish_all()
            with self._changed:
                worker.ended = True
                died = not self._closing and worker.lost is None  # by an error of this module
                failed = self._retire(worker, DeviceLostError("its thread died")) if died else []
                self._changed.notify_all()
            _fail_all(failed)

    def _next_job(self, worker: Worker) -> Job | None:
        """Wait for something to do; None when there will be nothing more."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or worker.lost or worker.loads or self._has_tiles_for(worker),
            )
            if self._closing or worker.lost:
                return None
            job = worker.loads.popleft() if worker.loads else self._next_batch(worker)
            worker.begin(job, self._clock())
            if worker.main is None and self._fleet.helpers:
                self._changed.notify_all()  # what waits may be small beside it
            return job

    def _next_batch(self, worker: Worker) -> Batch[Key, TileWork] | None:
        now = self._clock()
        return self._scheduler.next_batch(lambda key: worker.limit(key, now))

    def _has_tiles_for(self, worker: Worker) -> bool:
        if worker.main is None:
            return bool(self._scheduler)
        run = worker.main.job
        long = self._seconds(run.key) if isinstance(run, Batch) else None
        if long is None or long < _LONG:
            return False
        key = self._scheduler.next_key()
        if not isinstance(key, TileKey):  # to load a part of a model once more would take too much memory
            return False
        short = self._seconds(key)
        return short is not None and short <= _SMALL * long

    def _load(self, worker: Worker, load: Load) -> None:
        failure: ModelError | None = None
        try:
            worker.load(load.network, self._calibration)
        except Exception as error:  # noqa: BLE001 - raised where the network is waited for
            failure = as_model_error(error, f"{load.network.path.name} cannot be loaded")
        failed: Failures = []
        with self._changed:
            if worker.job is not load:
                return  # given up meanwhile
            worker.end(self._clock())
            if isinstance(failure, DeviceLostError):
                failed = self._retire(worker, failure)
        if failure is None:
            load.done.set_result(None)
        else:
            load.done.set_exception(failure)
        _fail_all(failed)

    def _run(self, worker: Worker, batch: Batch[Key, TileWork]) -> None:
        """Run a batch. Whatever goes wrong, the thread lives on, and only the tasks concerned fail."""
        network = batch.key.network
        try:
            inputs = [tile.read() for _, tile in batch.tiles]
            results = worker.run(network, inputs, self._calibration)
        except Exception as error:
            log.exception("%s: %d tiles of %s failed", worker.name, len(batch.tiles), network.path.name)
            self._run_failed(worker, batch, as_model_error(error, "the tile failed"))
            return
        with self._changed:
            if worker.job is not batch:
                return  # given up meanwhile: the tiles run elsewhere
            pixels = len(batch.tiles) * batch.key.pixels
            self._paces.learn(network, pixels, self._clock() - worker.began)
            worker.end(self._clock())
            (worker.main or worker).count(batch)
            self._scheduler.finish(batch)
        worker.finish(lambda: self._keep(batch, results))

    def _keep(self, batch: Batch[Key, TileWork], results: list[Arrays]) -> None:
        for (task, tile), result in zip(batch.tiles, results, strict=True):
            try:
                tile.finish(result)
            except Exception as error:
                log.exception("the result of a tile of %s could not be kept", batch.key.network.path.name)
                self.cancel(task)
                tile.fail(as_model_error(error, "the tile's result could not be kept"))

    def _run_failed(self, worker: Worker, batch: Batch[Key, TileWork], error: ModelError) -> None:
        with self._changed:
            if worker.job is not batch:
                return
            if isinstance(error, DeviceLostError):
                failed = self._retire(worker, error)
            elif worker.main is not None:
                failed = self._retire(worker, DeviceLostError(str(error)))
            else:
                worker.end(self._clock())
                failed = self._shrink_or_fail(worker, batch, error)
        _fail_all(failed)

    def _shrink_or_fail(self, worker: Worker, batch: Batch[Key, TileWork], error: ModelError) -> Failures:
        count = len(batch.tiles)
        if isinstance(error, DeviceOutOfMemoryError):
            fits = count // 2 * batch.key.pixels if count > 1 else batch.key.pixels // 2
            network, now = batch.key.network, self._clock()
            fits = min(fits, worker.room_for(network, now) or fits)
            worker.room[network] = Room(fits, now)
            log.warning(
                "%s: %s gets at most %d pixels a run from now on: not enough memory for %d",
                worker.device.name,
                network.path.name,
                fits,
                count * batch.key.pixels,
            )
            if count > 1:
                self._scheduler.put_back(batch)
                return self._after_change()
        for task, _ in batch.tiles:
            self._scheduler.cancel(task)
        self._scheduler.finish(batch)
        return [(tile, error) for _, tile in batch.tiles]

    def _retire(self, worker: Worker, error: DeviceLostError) -> Failures:
        """Let nothing more run on this device; what it was at runs on the others, if there are any."""
        for job in self._fleet.retire(worker, error, self._clock()):
            if isinstance(job, Batch):
                self._scheduler.put_back(job)
        return self._after_change()

    def _after_change(self) -> Failures:
        """Wake the threads to what was put back, or fail it if none will take it."""
        if not self._closing:  # under the lock, as a task that came meanwhile would be refused
            self._start(self._fleet.replace_lost())
        self._changed.notify_all()
        return [] if self.usable else self._give_up(self._why_unusable())

    def _give_up(self, error: EngineError) -> Failures:
        """Drop all that waits, for a run or to be loaded."""
        self._fleet.refuse_loads(error)
        return [(tile, error) for _, tile in self._scheduler.clear()]

    def _check_usable(self) -> None:
        if not self.usable:
            raise self._why_unusable()

    def _why_unusable(self) -> ModelError:
        return _shutting_down() if self._closing else self._fleet.why_lost()


def _fail_all(failed: Failures) -> None:
    for tile, error in failed:
        tile.fail(error)


def _shutting_down() -> ModelError:
    return ModelError("the engine is shutting down")
