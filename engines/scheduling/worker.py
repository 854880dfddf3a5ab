"""One device of an executor: what it is to do, what is known of it, and how much it takes at once."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from engines.activity import DeviceActivity, RunKind
from engines.devices.device import Device
from engines.devices.parts import Arrays, Part
from engines.devices.sessions import Network, Session, probe, run_checked
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, EngineError
from engines.scheduling.calibration import Calibration
from engines.scheduling.scheduler import Batch

__all__ = ["Job", "Key", "Load", "PartKey", "Room", "TileKey", "TileWork", "Worker"]

Loaded: TypeAlias = Callable[[Arrays], Arrays]


@dataclass(frozen=True, slots=True)
class TileKey:
    """What tiles must share to run in one batch: the network, and their size in input pixels."""

    network: Network
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Those of the input."""
        return self.height * self.width

    @property
    def output_pixels(self) -> int:
        """Those of the result."""
        return self.pixels * self.network.scale**2


@dataclass(frozen=True, slots=True)
class PartKey:
    """What the inputs of a part of a model must share to run in one batch: the part, and their shapes."""

    network: Part
    shapes: tuple[tuple[int, ...], ...]
    pixels: int
    """Those of the picture that it is about; what a run takes grows with them."""
    output_pixels: int
    """What one gives of the finished picture."""


Key: TypeAlias = TileKey | PartKey


class TileWork(Protocol):
    """A tile that waits for its run, or inputs of a part. Methods are called in any thread, and are quick."""

    def read(self) -> Arrays:
        """The tile's pixels, (h, w, 3) uint8; or the inputs. May be called again if a run did not succeed."""

    def finish(self, result: Arrays) -> None:
        """Take the result, (h × scale, w × scale, 3) uint8; or the outputs. The memory may be kept."""

    def fail(self, error: EngineError) -> None:
        """Take note that the tile was not run, and that those of its task that still wait never will be.

        A DeviceOutOfMemoryError means that smaller tiles may succeed. Must not raise.
        """


class Room(NamedTuple):
    """What a run was found to have memory for.

    More is tried again after a while: whatever else took the memory may be gone.
    """

    pixels: int
    """Input pixels."""
    since: float
    """Seconds, when more was last too much."""

    def at(self, now: float) -> int:
        """The most input pixels to try."""
        return self.pixels << min(int((now - self.since) // _FORGIVEN_AFTER), _FORGOTTEN)


_FORGIVEN_AFTER = 600.0
"""Seconds until twice as much is tried; a try that fails costs one run, and as many seconds again."""
_FORGOTTEN = 20

_UNFINISHED = 2
"""Runs whose results may wait to be kept; they take memory."""


@dataclass(slots=True, eq=False)
class Load:
    """A network that someone waits for on one device."""

    network: Network | Part
    done: Future[None] = field(default_factory=Future)


Job: TypeAlias = Batch[Key, TileWork] | Load
"""What a worker is at."""


@dataclass(slots=True, eq=False)
class Worker:
    """A device, what is known of it, and what it does.

    Its own thread adds to `sessions`, `pace` and `room`; all else is done under the executor's lock.
    """

    device: Device
    main: "Worker | None" = None
    """Of a helper, the one that it helps: during that one's long runs it takes small tiles."""
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
    runs: Counter[tuple[Network | Part, int, int]] = field(default_factory=Counter)
    """Those that succeeded, by network, tiles, and the tiles there could have been."""
    pixels: Counter[Network | Part] = field(default_factory=Counter)
    """What they gave."""
    lost: DeviceLostError | None = None
    ended: bool = False
    finisher: ThreadPoolExecutor | None = field(init=False)
    """Keeps results while the next run is under way, where that is not on the CPU as well. To copy a tile of
    12 MB to where it belongs takes 2 ms, and animevideov3 takes a large GPU hardly more."""
    finishing: deque[Future[None]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        several = self.device.largest_batch > 1
        name = f"results of {self.device.name}"
        self.finisher = ThreadPoolExecutor(1, thread_name_prefix=name) if several else None

    @property
    def name(self) -> str:
        """For people; that of the device, unless it is a helper."""
        return self.device.name if self.main is None else f"the helper of {self.device.name}"

    def limit(self, key: Key, now: float) -> int:
        """How many tiles of a key one run may take. One is always tried: there may be more memory now."""
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
        self.job, self.began = job, now

    def end(self, now: float) -> None:
        """Nothing is under way any longer, or nothing was."""
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
            if isinstance(network, Part):
                loaded = self.device.open_part(network).run_part
            else:
                loaded = self._open(network, calibration)
            self.sessions[network] = loaded
        return loaded

    def run(
        self, network: Network | Part, inputs: Sequence[Arrays], calibration: Calibration | None
    ) -> list[Arrays]:
        """Run some inputs of one network together. In the device's thread only.

        Raises:
            ModelError: if it cannot be loaded, or the run fails.
        """
        batch = tuple(np.stack(arrays) for arrays in zip(*inputs, strict=True))
        results = self.load(network, calibration)(batch)
        return list(zip(*results, strict=True))

    def _open(self, network: Network, calibration: Calibration | None) -> Loaded:
        if calibration is not None and self.device.largest_batch > 1:
            self._calibrate(network, calibration)
        session = self.device.open(network)
        probe(session, network)
        return lambda batch: (run_checked(session, network, batch[0]),)

    def _calibrate(self, network: Network, calibration: Calibration) -> None:
        """With a session of its own: it keeps the memory that its largest batches took."""
        if (known := calibration.known(self.device, network)) is not None:
            self.pace[network] = known * network.tile**2
            return
        session = self.device.open(network)
        probe(session, network)
        self._measure(session, network, calibration)

    def _measure(self, session: Session, network: Network, calibration: Calibration) -> None:
        pixels = network.tile**2
        try:
            self.pace[network] = calibration.batch(self.device, session, network) * pixels
        except DeviceOutOfMemoryError:  # smaller tiles may fit
            self.room[network] = Room(pixels // 2, self.began)
