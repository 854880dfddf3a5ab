"""Memory for what goes to a GPU and comes back: allocated once, then reused."""

import ctypes
import math
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["FreeLater", "GpuBuffer", "GpuMemory", "PinnedMemory"]

FreeLater: TypeAlias = Callable[[Callable[[], object]], None]
"""Has memory freed when CUDA allows it; see `CaptureGate.free_later`. Finalizers come at any moment."""

_STEP = 1 << 20
_KEPT = 256 << 20  # bytes of pinned memory that may lie unused


class GpuMemory(Protocol):
    """Memory of one GPU, and of the computer where the GPU reaches it; sizes in bytes."""

    def allocate(self, size: int) -> int:
        """Give the address of memory on the GPU."""

    def free(self, address: int) -> None:
        """Give memory on the GPU back."""

    def allocate_pinned(self, size: int) -> int:
        """Give the address of memory that the GPU reaches at the full rate of the bus."""

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back."""

    def copy_in(self, address: int, pinned: int, size: int) -> None:
        """Copy from pinned memory to the GPU."""

    def copy_out(self, pinned: int, address: int, size: int) -> None:
        """Copy from the GPU to pinned memory."""


class PinnedMemory:
    """Arrays in main memory that a GPU copies from and to at the full rate of the bus.

    To pin memory takes milliseconds, so that of an array is used again once nothing refers to it, a view or
    the array itself. For one thread; the arrays may be dropped in any.
    """

    def __init__(self, memory: GpuMemory, free_later: FreeLater, kept: int = _KEPT) -> None:
        """Begin with nothing pinned.

        Args:
            memory: of the GPU.
            free_later: for what is left when this one goes.
            kept: bytes that may lie unused; more are given back.
        """
        self._memory = memory
        self._kept = kept
        self._unused: deque[tuple[int, int]] = deque()
        """Size and address, the oldest first; arrays that go are added, at any moment and in any thread."""
        weakref.finalize(self, free_later, partial(_give_back, memory, self._unused)).atexit = False

    def empty(self, shape: Sequence[int]) -> NDArray[np.uint8]:
        """An array of bytes of any value."""
        count = math.prod(shape)
        size = -(-max(count, 1) // _STEP) * _STEP
        piece = (ctypes.c_uint8 * size).from_address(self._take(size))
        weakref.finalize(piece, self._unused.append, (size, ctypes.addressof(piece))).atexit = False
        return np.frombuffer(memoryview(piece), np.uint8, count).reshape(shape)

    def _take(self, size: int) -> int:
        unused = [self._unused.popleft() for _ in range(len(self._unused))]
        found = next((piece for piece in reversed(unused) if piece[0] == size), None)
        if found is not None:
            unused.remove(found)
        while sum(known for known, _ in unused) > self._kept:
            self._memory.free_pinned(unused.pop(0)[1])
        self._unused.extend(unused)
        return self._memory.allocate_pinned(size) if found is None else found[1]


def _give_back(memory: GpuMemory, unused: deque[tuple[int, int]]) -> None:
    """Arrays that are still in use keep theirs for good."""
    while unused:
        memory.free_pinned(unused.popleft()[1])


class GpuBuffer:
    """Memory of a GPU that grows, and never moves: the larger piece is one more, as graphs need the old."""

    def __init__(self, memory: GpuMemory, free_later: FreeLater) -> None:
        self._memory = memory
        self._size = 0
        self._address = 0
        self._pieces: list[int] = []
        weakref.finalize(self, free_later, partial(_free_all, memory, self._pieces)).atexit = False

    def address(self, size: int) -> int:
        """Of at least `size` bytes; the same until more are wanted than ever before."""
        if size > self._size:
            self._address, self._size = self._memory.allocate(size), size
            self._pieces.append(self._address)
        return self._address

    def free(self) -> None:
        """Give all of it back; nothing may refer to an address that it gave."""
        self._address, self._size = 0, 0
        _free_all(self._memory, self._pieces)


def _free_all(memory: GpuMemory, pieces: list[int]) -> None:
    while pieces:
        memory.free(pieces.pop())
