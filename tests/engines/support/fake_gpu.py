"""A GPU whose memory is the computer's, so that ONNX Runtime's CPU provider can stand in for CUDA's."""

import ctypes
from contextlib import contextmanager

from engines.devices.cuda.graphs import CaptureGate

_PINNED = []
"""What every one of them has pinned: arrays may outlive what stands for the GPU, as they do the real one."""


class FakeGpuMemory:
    """See `gpu_memory.GpuMemory`.

    Attributes:
        size: bytes there are; None is no limit.
        gate: a `RecordingGate`; what is freed outside of it, or during a capture, is an error.
        pieces, pinned: what is allocated now, by address.
    """

    def __init__(self, size=None, gate=None):
        self.size, self.gate, self.pieces, self.pinned = size, gate, {}, {}
        _PINNED.append(self.pinned)

    def allocate(self, size):
        used = sum(len(piece) for piece in self.pieces.values())
        if self.size is not None and used + size > self.size:
            raise RuntimeError("CUDA failure 2: out of memory ; expr=cuMemAlloc_v2")
        return _new(self.pieces, size)

    def free(self, address):
        assert self.gate is None or self.gate.allows_freeing
        del self.pieces[address]

    def allocate_pinned(self, size):
        return _new(self.pinned, size)

    def free_pinned(self, address):
        assert self.gate is None or self.gate.allows_freeing
        del self.pinned[address]

    def copy_in(self, address, pinned, size):
        _copy(address, self.pieces, pinned, self.pinned, size)

    def copy_out(self, pinned, address, size):
        _copy(pinned, self.pinned, address, self.pieces, size)


def _new(pieces, size):
    piece = (ctypes.c_uint8 * size)()
    pieces[ctypes.addressof(piece)] = piece
    return ctypes.addressof(piece)


def _copy(to, pieces, source, sources, size):
    assert _inside(to, pieces, size)
    assert _inside(source, sources, size)
    ctypes.memmove(to, source, size)


def _inside(address, pieces, size):
    return any(begin <= address and address + size <= begin + len(piece) for begin, piece in pieces.items())


class RecordingGate(CaptureGate):
    """A gate that knows how many are in it.

    Attributes:
        recording: whether a graph is being captured; a fake session sets it.
        ended: for each session that has ended, whether it might.
    """

    def __init__(self):
        super().__init__()
        self.inside, self.recording, self.ended = 0, False, []

    @property
    def allows_freeing(self):
        return self.inside > 0 and not self.recording

    @contextmanager
    def use(self, *, capture=False):
        self.inside += 1  # on the way in what waits is freed
        try:
            with super().use(capture=capture) as alone:
                yield alone
        finally:
            self.inside -= 1
