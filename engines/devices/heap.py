"""Memory that this process holds and has no use for at the moment."""

import ctypes
import sys
from pathlib import Path
from typing import Final

__all__ = ["drop_mapped", "trim_heap"]

_MADV_DONTNEED: Final = 4  # <asm-generic/mman-common.h>


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
