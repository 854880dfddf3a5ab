"""A device that tells what ran on it."""

import threading
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from engines import DeviceOutOfMemoryError
from engines.devices.cpu import CpuDevice
from engines.devices.ort import OrtSession, open_ort
from engines.devices.parts import Arrays, Part


class BatchingDevice(CpuDevice):
    """The CPU as a device that takes several at once; tells of the batches, and can be held.

    It has memory for a decoder's run of so many latents, if it is told.
    """

    largest_batch = 8
    memory: int | None
    batches: list[tuple[str, int]]
    pixels: list[tuple[str, int]]
    """Elements of one plane of the first array of each batch, of parts that see windows."""
    go: threading.Event

    def __init__(self, memory: int | None = None) -> None:
        super().__init__(1)
        object.__setattr__(self, "memory", memory)
        object.__setattr__(self, "batches", [])
        object.__setattr__(self, "pixels", [])
        object.__setattr__(self, "go", threading.Event())
        self.go.set()

    def open_part(self, part: Part) -> "_RecordingSession":
        session = open_ort(part.path, self.name, 1, "CPUExecutionProvider")
        return _RecordingSession(self, part.path.stem, session)


class _RecordingSession:
    def __init__(self, device: BatchingDevice, name: str, session: OrtSession) -> None:
        self._device, self._name, self._session = device, name, session

    def run_part(self, arrays: Sequence[NDArray[Any]]) -> Arrays:
        assert self._device.go.wait(10)
        memory = self._device.memory
        if self._name == "vae_decoder" and memory and arrays[0][:, 0].size > memory:
            raise DeviceOutOfMemoryError("no memory for it")
        self._device.batches.append((self._name, len(arrays[0])))
        self._device.pixels.append((self._name, arrays[0][:, 0].size))
        return self._session.run_part(arrays)

    def release_memory(self) -> None:
        self._session.release_memory()
