"""One thread per device, which takes batches of tiles from the scheduler and runs them.

The shell around `TileScheduler`: this is where the lock, the thread and the device are.
"""

import logging
import threading
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError, ModelError
from engines.scheduler import Batch, TileScheduler
from engines.sessions import Device, Session

__all__ = ["DeviceExecutor", "TileKey", "TileWork"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TileKey:
    """What tiles must share to run in one batch: the ONNX file, and their size in input pixels."""

    model: Path
    height: int
    width: int


class TileWork(Protocol):
    """A tile that waits for its run. The methods are called in the device's thread and must be quick."""

    def read(self) -> NDArray[np.uint8]:
        """The tile's pixels, (h, w, 3) uint8."""

    def finish(self, upscaled: NDArray[np.uint8]) -> None:
        """Take the result, (h × scale, w × scale, 3) uint8; the memory is the callee's to keep."""

    def fail(self, error: EngineError) -> None:
        """Take note that the tile was not run, and that those of its task that still wait never will be.

        Must not raise.
        """


class DeviceExecutor:
    """Runs tiles on a device, in fair order, in a thread of its own; may be used from any thread."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._scheduler: TileScheduler[TileKey, TileWork] = TileScheduler()
        self._sessions: dict[Path, Session] = {}
        self._loading = threading.Lock()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"device {device.name}", daemon=True)
        self._thread.start()

    def submit(self, account: Hashable, task: Hashable, key: TileKey, tiles: Iterable[TileWork]) -> None:
        """Queue the tiles of a task.

        Unless it is cancelled, either each tile is finished once, or at least one is failed; a tile is never
        both, and none is told anything twice.

        Raises:
            ModelError: if the executor is closed.
        """
        with self._changed:
            if self._closing:
                raise _closed()
            self._scheduler.add(account, task, key, tiles, key.height * key.width)
            self._changed.notify()

    def cancel(self, task: Hashable) -> None:
        """Drop the tiles of a task that have not begun; nothing more is heard of them."""
        with self._changed:
            self._scheduler.cancel(task)

    def load(self, model: Path) -> Session:
        """The session of an ONNX file, loaded on first use. Load before `submit`, and no other task waits.

        Raises:
            ModelError: if it cannot be loaded.
        """
        if (session := self._sessions.get(model)) is None:
            with self._loading:
                if (session := self._sessions.get(model)) is None:
                    session = self._sessions[model] = self.device.open(model)
        return session

    def close(self) -> None:
        """Let the batch that runs finish, fail the tiles that wait and end the thread. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            if self._closing:
                self._fail(batch.tiles, _closed())
            else:
                self._run(batch)

    def _next_batch(self) -> Batch[TileKey, TileWork] | None:
        """Wait for tiles; None when the executor is closed and none is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._scheduler)
            return self._scheduler.next_batch(self.device.largest_batch)

    def _run(self, batch: Batch[TileKey, TileWork]) -> None:
        """Run a batch. Whatever goes wrong, the thread lives on, and only the tasks concerned hear of it."""
        try:
            tiles = np.stack([tile.read() for _, tile in batch.tiles])
            results = list(zip(batch.tiles, self.load(batch.key.model).run(tiles), strict=True))
        except Exception as error:
            log.exception("a batch of %d tiles of %s failed", len(batch.tiles), batch.key.model.name)
            self._fail(batch.tiles, error)
            return
        for (task, tile), upscaled in results:
            try:
                tile.finish(upscaled)
            except Exception as error:
                log.exception("the result of a tile of %s could not be kept", batch.key.model.name)
                self._fail([(task, tile)], error)

    def _fail(self, tiles: list[tuple[Hashable, TileWork]], error: Exception) -> None:
        failure = error if isinstance(error, EngineError) else ModelError(f"the tile failed: {error!r}")
        for task, tile in tiles:
            self.cancel(task)
            tile.fail(failure)


def _closed() -> ModelError:
    return ModelError("the engine is shutting down")
