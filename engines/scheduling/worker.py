"""One device of an executor: what it is to do, what is known of it, and how much it takes at once."""

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from engines.activity import DeviceActivity, RunKind
from engines.devices.device import Device, Distant
from engines.devices.failures import as_model_error
from engines.devices.heap import trim_heap
from engines.devices.parts import Arrays, Part
from engines.devices.sessions import Network, Session, TimedSession, probe, run_checked, warmed_up
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError
from engines.scheduling.calibration import Calibration
from engines.scheduling.costs import Costs
from engines.scheduling.scheduler import Batch
from engines.scheduling.work import Job, Key, Load, Room, TileWork

__all__ = ["Worker"]

log = logging.getLogger(__name__)

_UNFINISHED = 2
"""Runs whose results may wait to be kept; they take memory."""

_LONG = 1.0
"""Seconds from which on a run is so long that a small tile should not wait for its end."""

_SMALL = 1 / 8
"""How much of that time a small tile takes at most."""

_SHORT = 0.02
"""Seconds up to which a run is short: its network is small, too, and takes little memory once more."""

_BUSY = 6
"""How many times `idle` a device may work without a pause before a shorter one is used to free memory."""

_OVERDUE = 2
"""How many times as long as expected a run may take before nobody counts on its end."""

_FAILED = "the tile failed"


class Loaded(NamedTuple):
    """A network on one device."""

    run: Callable[[Arrays], Arrays]
    release_memory: Callable[[], None]
    timed: TimedSession | None
    """What runs it, if that says how long the device worked."""


@dataclass(slots=True, eq=False)
class Worker:
    """A device, what is known of it, and what it does.

    Its own thread adds to `sessions`, `pace` and `room`; all else is done under the executor's lock.
    """

    device: Device
    main: "Worker | None" = None
    """Of a second worker of a device, the first one: while that one runs something it takes small tiles, as a
    helper; where the device is distant, any, as what is next."""
    reserve: bool = False
    """Whether it takes tiles only while no other device works."""
    sessions: dict[Network | Part, Loaded] = field(default_factory=dict)
    loads: deque[Load] = field(default_factory=deque)
    pace: dict[Network | Part, int] = field(default_factory=dict)
    """The input pixels of one run beyond which it gets no more efficient, where that was measured."""
    room: dict[Network | Part, Room] = field(default_factory=dict)
    """What one run has memory for, where less than was wanted."""
    job: Job | None = None
    began: float = 0.0
    busy: float = 0.0
    """Seconds, up to the end of the last job."""
    costs: Costs = field(default_factory=Costs)
    """What tiles take here, from when they are handed over to when they are back."""
    leaves: bool = False
    """Whether it leaves what waits to faster devices."""
    runs: Counter[tuple[Network | Part, int, int]] = field(default_factory=Counter)
    """Those that succeeded, by network, tiles, and the tiles there could have been."""
    pixels: Counter[Network | Part] = field(default_factory=Counter)
    """What they gave."""
    holds_since: float | None = None
    """When runs began to leave memory that could be given back; None if there is none."""
    lost: DeviceLostError | None = None
    ended: bool = False
    is_helper: bool = field(init=False)
    """Whether it only takes small tiles, and may fail."""
    finisher: ThreadPoolExecutor | None = field(init=False)
    """Keeps results while the next run is under way, where that is not on the CPU as well. To copy a tile of
    12 MB to where it belongs takes 2 ms, and animevideov3 takes a large GPU hardly more."""
    finishing: deque[Future[None]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.is_helper = self.main is not None and not isinstance(self.device, Distant)
        several = self.device.largest_batch > 1
        name = f"results of {self.device.name}"
        self.finisher = ThreadPoolExecutor(1, thread_name_prefix=name) if several else None

    @property
    def name(self) -> str:
        """For people; that of the device, unless it is a helper."""
        return f"the helper of {self.device.name}" if self.is_helper else self.device.name

    @property
    def first(self) -> "Worker":
        """The first worker of its device."""
        return self.main or self

    def worked(self, network: Network | Part) -> float | None:
        """Seconds that the device worked for the last run; None if that is what the run took."""
        timed = self.sessions[network].timed
        return None if timed is None else timed.seconds

    def free_in(self, now: float) -> float:
        """Seconds until it has done what it is at; infinite if that cannot be told."""
        if self.job is None:
            return 0.0
        if isinstance(self.job, Load):
            return math.inf
        key, since = self.job.key, now - self.began
        each = self.costs.seconds(key.network, key.pixels)
        expected = math.inf if each is None else each * len(self.job.tiles)
        return max(0.0, expected - since) if since < _OVERDUE * expected else math.inf

    def limit(self, key: Key, now: float) -> int:
        """How many tiles of a key one run may take. One is always tried: there may be more memory now."""
        if isinstance(key.network, Part) and not key.network.batches:
            return 1
        limits = [self.device.largest_batch]
        if (pace := self.pace.get(key.network)) is not None:
            limits.append(pace // key.pixels)
        if (room := self.room_for(key.network, now)) is not None:
            limits.append(room // key.pixels)
        return max(1, min(limits))

    def room_for(self, network: Network | Part, now: float) -> int | None:
        """The most input pixels of one run; None if no limit was found."""
        room = self.room.get(network)
        return None if room is None else room.at(now)

    def begin(self, job: Job | None, now: float) -> None:
        """Take note of what it is at from now on."""
        self.end(now)
        self.job, self.began = job, now

    def end(self, now: float) -> None:
        """Take note that nothing is under way any longer; does nothing if nothing was."""
        if self.job is not None:
            self.busy += now - self.began
        self.job = None

    def stop(self, error: DeviceLostError, now: float) -> Job | None:
        """Take no more jobs, and fail all loads; gives the job that was under way."""
        self.lost = error
        job = self.job
        self.end(now)
        for load in [*self.loads, *([job] if isinstance(job, Load) else [])]:
            load.done.set_exception(error)
        self.loads.clear()
        return job

    def count(self, batch: Batch[Key, TileWork]) -> None:
        """Remember a run that succeeded."""
        network, tiles = batch.key.network, len(batch.tiles)
        self.runs[network, tiles, self.limit(batch.key, self.began)] += 1
        self.pixels[network] += tiles * batch.key.output_pixels

    def finish(self, keep: Callable[[], None]) -> None:
        """Have the results of a run kept, now or during the next runs. In the device's thread only.

        Args:
            keep: does it; must not raise.
        """
        if self.finisher is None:
            keep()
            return
        while len(self.finishing) >= _UNFINISHED:
            self.finishing.popleft().result()
        self.finishing.append(self.finisher.submit(keep))

    def finish_all(self) -> None:
        """Wait until all results are kept. In the device's thread only, and its last act."""
        if self.finisher is not None:
            self.finisher.shutdown()

    def activity(self, names: Mapping[Network | Part, str], now: float) -> DeviceActivity:
        """What it has done; its memory is not asked for."""
        pixels: Counter[str] = Counter()
        runs: Counter[RunKind] = Counter()
        for network, count in self.pixels.items():  # several networks may be of one model
            pixels[names[network]] += count
        for (network, tiles, limit), count in self.runs.items():
            runs[RunKind(names[network], tiles, limit)] += count
        return DeviceActivity(
            name=self.device.name,
            usable=self.lost is None,
            busy_seconds=self.busy + (0.0 if self.job is None else now - self.began),
            runs=runs,
            pixels=pixels,
            memory=None,
        )

    def load(self, network: Network | Part, calibration: Calibration | None) -> Loaded:
        """What runs a batch of a network, opened on first use. In the device's thread only.

        Raises:
            ModelError: if it cannot be loaded, or is not what it should be.
        """
        if (loaded := self.sessions.get(network)) is None:
            self._hold_memory()
            if isinstance(network, Part):
                part = self.device.open_part(network)
                loaded = Loaded(part.run_part, part.release_memory, _timed(part))
            else:
                loaded = self._open(network, calibration)
            self.sessions[network] = loaded
        return loaded

    def run(
        self, batch: Batch[Key, TileWork], calibration: Calibration | None, begin_again: Callable[[], None]
    ) -> list[Arrays | ModelError]:
        """Run a batch at once or, if that fails, tile by tile. In the device's thread only.

        Args:
            batch: what to run.
            calibration: see `load`.
            begin_again: called before each run after the first.

        Returns:
            What there is of each tile, or why there is nothing.

        Raises:
            Exception: of any class, if the network cannot be loaded, the device is lost, has no memory for
                the batch, or fails with a single tile.
        """
        self._hold_memory()
        run = self.load(batch.key.network, calibration).run
        tiles = [tile for _, tile in batch.tiles]
        try:
            return [*_run(run, tiles)]
        except Exception as error:
            failure = as_model_error(error, _FAILED)
            if len(tiles) == 1 or isinstance(failure, DeviceLostError | DeviceOutOfMemoryError):
                raise
            name = batch.key.network.path.name
            log.exception("%s: %d tiles of %s failed together", self.name, len(tiles), name)
        outcomes: list[Arrays | ModelError] = []
        for tile in tiles:
            begin_again()
            try:
                outcomes += _run(run, [tile])
            except Exception as error:
                outcomes.append(as_model_error(error, _FAILED))
                if isinstance(outcomes[-1], DeviceLostError):
                    raise
                log.exception("%s: a tile of %s failed", self.name, batch.key.network.path.name)
        return outcomes

    def remember_room(self, batch: Batch[Key, TileWork], now: float) -> None:
        """Take note that there was no memory for a batch."""
        count, pixels, network = len(batch.tiles), batch.key.pixels, batch.key.network
        fits = count // 2 * pixels if count > 1 else pixels // 2
        fits = min(fits, self.room_for(network, now) or fits)
        self.room[network] = Room(fits, now)
        log.warning(
            "%s: %s gets at most %d pixels a run from now on: not enough memory for %d",
            self.device.name,
            network.path.name,
            fits,
            count * pixels,
        )

    def helps_with(self, key: Key, costs: Costs) -> bool:
        """Whether a tile is better run beside the run that is under way than after it. Of helpers only."""
        assert self.main is not None
        run = self.main.job
        if not isinstance(run, Batch) or isinstance(key.network, Part):
            return False  # to load a part of a model once more would take too much memory
        takes = costs.seconds(key.network, key.pixels)
        other = costs.seconds(run.key.network, run.key.pixels)
        if takes is None or other is None:
            return False
        if takes <= _SHORT and self.device.side_by_side(key.network):
            return True
        return other >= _LONG and takes <= _SMALL * other

    def _hold_memory(self) -> None:
        if self.holds_since is None:
            self.holds_since = self.began

    def idle_for(self, idle: float, now: float) -> float | None:
        """Seconds without work after which memory is to be given back; None if there is none.

        A device that is never without work for `idle` seconds uses a shorter pause from time to time.
        """
        if self.holds_since is None:
            return None
        return idle if now - self.holds_since < _BUSY * idle else 0.0

    def release_memory(self) -> None:
        """Give back the memory that large runs took. In the device's thread only."""
        self.holds_since = None
        for network, loaded in self.sessions.items():
            try:
                loaded.release_memory()
            except Exception:
                log.exception("%s could not give back the memory of %s", self.name, network.path.name)
        trim_heap()

    def _open(self, network: Network, calibration: Calibration | None) -> Loaded:
        session = self.device.open(network)
        probe(session, network)
        if calibration is not None and self.device.largest_batch > 1:
            self._calibrate(session, network, calibration)
        warmed_up(session)
        return Loaded(
            lambda batch: (run_checked(session, network, batch[0]),), session.release_memory, _timed(session)
        )

    def _calibrate(self, session: Session, network: Network, calibration: Calibration) -> None:
        pixels = network.tile**2
        try:
            self.pace[network] = calibration.batch(self.device, session, network) * pixels
        except DeviceOutOfMemoryError:  # smaller tiles may fit
            self.room[network] = Room(pixels // 2, self.began)


def _timed(session: object) -> TimedSession | None:
    """The session, if it is one; to ask for that takes as long as all else that is asked after a run."""
    return session if isinstance(session, TimedSession) else None


def _run(run: Callable[[Arrays], Arrays], tiles: Sequence[TileWork]) -> list[Arrays]:
    inputs = [tile.read() for tile in tiles]
    results = run(tuple(np.stack(arrays) for arrays in zip(*inputs, strict=True)))
    return list(zip(*results, strict=True))
