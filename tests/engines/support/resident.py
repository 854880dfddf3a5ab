"""What a large run leaves in memory, in a process of its own: other tests leave room to be used again."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from engines import find_devices
from engines.devices.heap import trim_heap

__all__ = ["memory_of_a_large_run"]


def memory_of_a_large_run(runtime, network):
    """Resident bytes before a large run, after it, and once its memory is given back; whether it works on."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_measure, runtime, network).result()


def _measure(runtime, network):
    session = find_devices("cpu", runtime)[0].open(network)
    picture = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), np.uint8)
    small = session.run(picture[:, :16, :16])
    trim_heap()
    before = _resident()
    session.run(picture)
    after = _resident()
    session.release_memory()
    trim_heap()
    left = _resident()
    return before, after, left, np.array_equal(session.run(picture[:, :16, :16]), small)


def _resident():
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
