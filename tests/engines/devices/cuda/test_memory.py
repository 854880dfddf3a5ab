"""Memory for a GPU is allocated once and reused, and never while something refers to it."""

import gc

import numpy as np
import pytest

from engines.devices.cuda.memory import GpuBuffer, PinnedMemory
from tests.engines.support.fake_gpu import FakeGpuMemory

STEP = 1 << 20


def run(free):
    free()


@pytest.fixture
def memory():
    return FakeGpuMemory()


def test_an_array_has_the_wanted_shape_and_can_be_written(memory):
    array = PinnedMemory(memory, run).empty((2, 3, 5, 3))
    array[...] = 7
    assert (array.shape, array.dtype, int(array.sum())) == ((2, 3, 5, 3), np.uint8, 7 * 90)
    assert array.ctypes.data in memory.pinned


def test_memory_is_used_again_once_the_last_view_of_an_array_is_gone(memory):
    pinned = PinnedMemory(memory, run)
    array = pinned.empty((4, 4))
    first, view = array.ctypes.data, array[1:, 1:]
    del array
    gc.collect()
    second = pinned.empty((4, 4))
    assert second.ctypes.data != first
    del view
    gc.collect()
    third = pinned.empty((2, 2))
    assert third.ctypes.data == first
    assert len(memory.pinned) == 2


def test_what_lies_unused_beyond_a_limit_is_given_back(memory):
    pinned = PinnedMemory(memory, run, kept=3 * STEP)
    for size in (1, 2, 4):
        pinned.empty((size * STEP,))
        gc.collect()
    assert sorted(len(piece) // STEP for piece in memory.pinned.values()) == [1, 2, 4]
    pinned.empty((STEP,))
    assert sorted(len(piece) // STEP for piece in memory.pinned.values()) == [1]


def test_pinned_memory_that_nobody_uses_any_longer_is_given_back_and_none_is_taken_from_an_array(memory):
    pinned = PinnedMemory(memory, run)
    kept, dropped = pinned.empty((4,)), pinned.empty((4,))
    del dropped
    gc.collect()
    del pinned
    gc.collect()
    assert set(memory.pinned) == {kept.ctypes.data}


def test_a_buffer_keeps_its_address_until_it_has_to_grow_and_its_old_pieces_with_it(memory):
    buffer = GpuBuffer(memory, run)
    first = buffer.address(100)
    assert buffer.address(50) == buffer.address(100) == first
    larger = buffer.address(200)
    assert larger != first
    assert buffer.address(100) == larger
    assert set(memory.pieces) == {first, larger}
    buffer.free()
    assert not memory.pieces
    assert buffer.address(10) in memory.pieces
    del buffer
    gc.collect()
    assert not memory.pieces
