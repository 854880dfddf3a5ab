"""How much memory there is for this process."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["memory_size"]

_GROUPS: Final = Path("/sys/fs/cgroup")
_GROUPS_OF_THIS: Final = Path("/proc/self/cgroup")


def memory_size() -> int:
    """Bytes of memory of the machine, or of the control group that the process is in."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**32
    for file in _limits(_GROUPS, _GROUPS_OF_THIS):
        try:
            size = min(size, int(file.read_text("ascii")))
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
    return size


def _limits(groups: Path, of_this: Path) -> Iterator[Path]:
    """The files with the limits of control groups that hold for this process, in both versions of these.

    In a container the group is the root of what is seen; under systemd it is one below it.
    """
    try:
        lines = of_this.read_text("ascii").splitlines()
    except (OSError, ValueError):
        lines = []
    v1, v2 = groups / "memory" / "memory.limit_in_bytes", groups / "memory.max"
    yield from (v1, v2)
    for line in lines:
        _, controllers, path = line.split(":", 2)
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            if not controllers:
                yield groups / group / v2.name
            elif "memory" in controllers.split(","):
                yield v1.parent / group / v1.name
