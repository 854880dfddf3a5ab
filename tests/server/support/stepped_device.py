"""A device that waits for the test: a task is under way for as long as something is done meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import server.services
from tests.engines.support.fake_device import FakeDevice
from tests.server.support.harness import PATIENCE


class SteppedDevice(FakeDevice):
    """Enlarges four times by repeating pixels; while it is held, a tile for each `step`."""

    def __init__(self) -> None:
        super().__init__(scale=4, largest_batch=1)  # type: ignore[no-untyped-call]
        self.hold()

    def hold(self) -> None:
        self._steps = threading.Semaphore(0)
        self._free = False

    def step(self) -> None:
        self._steps.release()

    def run_freely(self) -> None:
        self._free = True
        self._steps.release()

    def open(self, path: Any) -> Any:
        session = super().open(path)  # type: ignore[no-untyped-call]
        run = session.run

        def stepped(tiles: Any) -> Any:
            if session.probed and not self._free:
                assert self._steps.acquire(timeout=PATIENCE)
            return run(tiles)

        session.run = stepped
        return session


@contextmanager
def stepped_device() -> Iterator[SteppedDevice]:
    """What servers that are started within the block run on; it is held."""
    device = SteppedDevice()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.services, "find_devices", lambda *_: [device])
        yield device
    device.run_freely()
