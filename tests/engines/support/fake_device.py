"""A device that does what a test tells it: wait, run out of memory, fail, be lost."""

import threading
from dataclasses import dataclass, field

import numpy as np

from engines.activity import Memory
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError

WAIT = 60  # seconds, to fail rather than hang


class FakeDevice:
    """Enlarges by repeating pixels, `scale` times; keeps what it ran.

    Attributes:
        memory: the most input pixels a run may have; None is no limit.
        go: runs wait until it is set. It is, unless the test holds the device.
        error: what runs raise, if anything.
        released: counts how often memory was given back.
        release_error: what that raises, if anything.
        warmed_up, batches_when_warmed_up: how many sessions were, and how many runs there had been.
    """

    kind = "fake"

    def __init__(self, name="fake", *, largest_batch=3, memory=None, scale=1, held=False):
        self.is_side_by_side = False
        self.name, self.largest_batch, self.memory, self.scale = name, largest_batch, memory, scale
        self.opened, self.batches, self.sizes = [], [], []
        self.warmed_up, self.batches_when_warmed_up = 0, 0
        self.began, self.go, self.error = threading.Semaphore(0), threading.Event(), None
        self.released, self.release_error = threading.Semaphore(0), None
        if not held:
            self.go.set()

    def side_by_side(self, _network):
        return self.is_side_by_side

    def memory_use(self):
        return Memory(used=1, size=2)

    def open(self, network):
        if network.path.name == "broken.onnx":
            raise ModelError("broken.onnx cannot be loaded")
        self.opened.append(network.path)
        return FakeSession(self)

    def lose(self, _path):
        raise lost(self.name)


class FakeSession:
    def __init__(self, device):
        self.device, self.probed = device, False

    def run(self, tiles):
        device = self.device
        if not self.probed:
            self.probed = True
            return enlarged(tiles, device.scale)
        device.batches.append(tiles[:, 0, 0, 0].tolist())
        device.sizes.append(tiles.shape[:3])
        device.began.release()
        assert device.go.wait(WAIT)
        if device.error is not None:
            raise device.error
        if device.memory is not None and tiles[..., 0].size > device.memory:
            raise DeviceOutOfMemoryError(f"no memory for {tiles.shape}")
        return enlarged(tiles, device.scale)

    def warm_up(self):
        self.device.warmed_up += 1
        self.device.batches_when_warmed_up = len(self.device.batches)

    def release_memory(self):
        self.device.released.release()
        if self.device.release_error is not None:
            raise self.device.release_error


def enlarged(tiles, scale):
    return tiles.repeat(scale, 1).repeat(scale, 2)


def lost(name="fake"):
    return DeviceLostError(f"{name}: an illegal memory access was encountered")


@dataclass(eq=False)
class FakeTile:
    """A tile of one value; 99 cannot be kept, and a negative one cannot be read."""

    value: int
    side: int = 2
    told: list = field(default_factory=list)
    seconds: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def read(self):
        if self.value < 0:
            raise MemoryError
        return (np.full((self.side, self.side, 3), self.value, np.uint8),)

    def finish(self, result):
        (upscaled,) = result
        if self.value == 99:
            raise OSError("no room")
        self.told.append(int(upscaled[0, 0, 0]))
        self.ended.set()

    def expect(self, seconds):
        pass

    def took(self, seconds):
        self.seconds += seconds

    def fail(self, error):
        self.told.append(error)
        self.ended.set()


def wait_for(*tiles):
    assert all(tile.ended.wait(WAIT) for tile in tiles)
