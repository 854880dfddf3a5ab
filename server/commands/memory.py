"""How much memory a command may take."""

import os
from pathlib import Path
from typing import Final

from msgspec import Struct

from server.settings import Settings

__all__ = ["Limit", "largest_result"]

_BYTES_PER_PIXEL: Final = 16
"""Memory that a result takes at most, while it is made, encoded and handed over."""

_CGROUP: Final = Path("/sys/fs/cgroup")


class Limit(Struct, frozen=True):
    """The largest result.

    Attributes:
        megapixels: width × height / 1e6.
        name: what sets it, for messages.
    """

    megapixels: float
    name: str


def largest_result(settings: Settings) -> Limit:
    """The largest result of an embedded server: not that of a server for everybody, but what memory takes."""
    memory = _available()
    megapixels = settings.max_output_megapixels if memory is None else memory / _BYTES_PER_PIXEL / 1e6
    return Limit(max(megapixels, settings.max_output_megapixels), "the limit of this machine's memory")


def _available() -> int | None:
    """Bytes that are free or can be freed, within the limit of the cgroup; None where that is unknown."""
    known = [each for each in (_of_machine(), _of_cgroup()) if each is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # how much is free is not known
    except (AttributeError, OSError, ValueError):
        return None


def _of_cgroup() -> int | None:
    """What is left of the limit of this process's cgroup, version 2.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    try:
        own = Path("/proc/self/cgroup").read_text("utf-8", "replace").rpartition("::")[2].strip().lstrip("/")
        limit = (_CGROUP / own / "memory.max").read_text("utf-8").strip()
        used = (_CGROUP / own / "memory.current").read_text("utf-8")
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
