"""What runs tiles: one thread per device, and all take batches from one scheduler.

`scheduler` says what is next, `placement` who takes it, `dispatcher` has the threads, `fleet` the devices.
"""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace

from engines.activity import Activity, Waiting
from engines.devices.device import Device
from engines.devices.parts import Part
from engines.devices.sessions import Network
from engines.errors import DeviceLostError
from engines.scheduling.calibration import Calibration
from engines.scheduling.dispatcher import Dispatcher
from engines.scheduling.work import Key, TileWork

__all__ = ["Executor"]

PATIENCE = 900.0
"""Seconds that one run, or the loading of one network, may take before its device is given up."""

IDLE = 10.0
"""Seconds without anything to do, after which a device gives back memory."""


class Executor:
    """Runs tiles on all devices, in fair order; may be used from any thread."""

    def __init__(
        self,
        devices: Iterable[Device],
        *,
        calibration: Calibration | None = None,
        stand_in: Callable[[], Device] | None = None,
        patience: float = PATIENCE,
        idle: float = IDLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the threads of the devices.

        Args:
            devices: at least one, unless they are added later.
            calibration: what measures how many tiles one run should take, on devices that take several;
                without it they take as many as they can.
            stand_in: finds the device that takes over when all are lost; it may raise anything.
            patience: seconds that one run, or the loading of one network, may take.
            idle: seconds without anything to do, after which a device gives back memory.
            clock: the time in seconds.
        """
        self._clock = clock
        self._dispatcher = Dispatcher(
            devices, calibration=calibration, stand_in=stand_in, patience=patience, idle=idle, clock=clock
        )

    @property
    def usable(self) -> bool:
        """Whether tiles can be run: not closed, and a device is left, or is looked for."""
        return self._dispatcher.usable

    @property
    def stand_in(self) -> Device | None:
        """The device that took over when all others were lost, if that has happened."""
        with self._dispatcher.changed:
            return self._dispatcher.fleet.stand_in

    @property
    def devices(self) -> tuple[Device, ...]:
        """Those that take tiles."""
        with self._dispatcher.changed:
            return tuple(worker.device for worker in self._dispatcher.fleet.at_work)

    @property
    def in_batches(self) -> bool:
        """Whether a device takes several tiles at once."""
        return any(device.largest_batch > 1 for device in self.devices)

    def add(self, device: Device) -> None:
        """Have one more device take tiles, as soon as it has loaded what the others have."""
        self._dispatcher.add(device)

    def lose(self, device: Device, reason: str) -> None:
        """Give up a device that is gone: what it was at runs on others.

        Args:
            device: nothing happens if it is given up already.
            reason: for people.
        """
        self._dispatcher.lose(device, reason)

    def use_stand_in(self) -> None:
        """Have the stand-in take tiles, if there is no other device; until one comes. Blocks."""
        self._dispatcher.replace_lost()

    def room(self, network: Network | Part) -> int | None:
        """The most input pixels of a tile that every device has memory for; None if no limit was found."""
        with self._dispatcher.changed:
            return self._dispatcher.fleet.room(network, self._clock())

    def activity(self, names: Callable[[], Mapping[Network | Part, str]]) -> Activity:
        """What has been done, and what waits. Asks the devices for their memory, which may take milliseconds.

        Args:
            names: gives those of the models of all networks that tiles were submitted for.
        """
        tiles: Counter[str] = Counter()
        tasks: Counter[str] = Counter()
        with self._dispatcher.changed:
            known = names()  # under the lock: nothing is submitted meanwhile
            for key, count in self._dispatcher.scheduler.waiting():
                tiles[known[key.network]] += count
                tasks[known[key.network]] += 1
            workers = tuple(self._dispatcher.fleet.workers)
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
        with self._dispatcher.changed:
            self._dispatcher.check_usable()
            self._dispatcher.scheduler.add(account, task, key, tiles)
            self._dispatcher.tiles_came()

    def cancel(self, task: Hashable) -> None:
        """Drop the tiles of a task that have not begun; nothing more is heard of them."""
        with self._dispatcher.changed:
            self._dispatcher.scheduler.cancel(task)

    def load(self, network: Network | Part) -> None:
        """Load a network on all devices, so that no tile waits for it. Blocks.

        Raises:
            ModelError: if it cannot be loaded, the executor is closed, or no device is left.
        """
        dispatcher = self._dispatcher
        with dispatcher.changed:
            dispatcher.changed.wait_for(lambda: dispatcher.closing or not dispatcher.fleet.awaits_stand_in)
            dispatcher.check_usable()
            loads = dispatcher.fleet.ask_to_load(network)
            dispatcher.wake_all()
        errors = [error for load in loads if (error := load.done.exception()) is not None]
        refusals = [error for error in errors if not isinstance(error, DeviceLostError)]
        if refusals:
            raise refusals[0]
        if len(errors) == len(loads):
            if not self.usable:
                raise errors[0]
            self.load(network)  # on the device that takes over

    def close(self) -> None:
        """Let the runs under way finish, fail the tiles that wait and end the threads. Blocks."""
        self._dispatcher.close()
