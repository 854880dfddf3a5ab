"""What is to be done on the devices: runs of tiles and of parts of models, and loads of networks."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from engines.devices.parts import Arrays, Part
from engines.devices.sessions import Network
from engines.errors import EngineError
from engines.scheduling.scheduler import Batch

__all__ = ["Job", "Key", "Load", "PartKey", "Room", "TileKey", "TileWork"]


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

    def expect(self, seconds: float) -> None:
        """Take note that the run that begins now should take so long."""

    def took(self, seconds: float) -> None:
        """Take note of how long a device worked for it, whatever came of that; one thread at a time."""

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


@dataclass(slots=True, eq=False)
class Load:
    """A network that is to be loaded on one device."""

    network: Network | Part
    joins: bool = False
    """Whether the device has come to others that run this network: if it cannot, it is of no use."""
    done: Future[None] = field(default_factory=Future)


Job: TypeAlias = Batch[Key, TileWork] | Load
"""What a worker is at."""
