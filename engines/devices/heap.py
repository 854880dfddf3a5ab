"""The memory that this process has freed, and its C library keeps."""

import ctypes
import sys

__all__ = ["trim_heap"]


def trim_heap() -> None:
    """Give freed memory back to the system, where the C library is glibc, which keeps it otherwise."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
