"""Memory that this process holds and has no use for at the moment."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["bound_heaps", "drop_mapped", "dropping_mapped", "trim_heap"]

_EVERY: Final = 0.05
"""Seconds: a disk, or the cache of one, gives some hundred megabytes in that time."""

_MADV_DONTNEED: Final = 4  # <asm-generic/mman-common.h>

_M_ARENA_MAX: Final = -8  # <malloc.h>


def bound_heaps(count: int) -> None:
    """Have the C library share so many heaps among all threads, where it is glibc.

    It makes up to eight for each core, and what a run has freed lies about in all of them
    (mallopt(3), M_ARENA_MAX). To be called before the threads begin; `MALLOC_ARENA_MAX` has the last word.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(_M_ARENA_MAX, count)


def trim_heap() -> None:
    """Give freed memory back to the system, where the C library is glibc, which keeps it otherwise."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def drop_mapped(directory: Path) -> None:
    """Have the files in a directory that are mapped to be read take no memory until they are read again.

    The system would take it when it has no other (madvise(2), MADV_DONTNEED); until then it counts as used.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
        addresses, rights, _, _, _, *path = line.split(maxsplit=5)
        if path and rights.startswith("r--") and Path(path[0]).is_relative_to(directory):
            start, end = (int(address, 16) for address in addresses.split("-"))
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


@contextmanager
def dropping_mapped(directory: Path) -> Iterator[None]:
    """Drop what is mapped time and again, while all of it is read once."""
    ended = threading.Event()

    def drop() -> None:
        while not ended.wait(_EVERY):
            drop_mapped(directory)

    dropper = threading.Thread(target=drop, name="drops mapped files", daemon=True)
    dropper.start()
    try:
        yield
    finally:
        ended.set()
        dropper.join()
        drop_mapped(directory)
