"""The processor, and how many of its cores there are for this process."""

import math
import os
import platform
from contextlib import suppress
from pathlib import Path

__all__ = ["processor", "usable_cores"]


def processor() -> str:
    """What the processor calls itself, such as "AMD EPYC 9555"; its architecture where it does not."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use, by its affinity and by the CPU quota of its container.

    Args:
        cgroup: where the process's control group is mounted.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cpu_quota(cgroup))))


def _cpu_quota(cgroup: Path) -> float:
    """How many cores' time the control group grants; infinite without a limit, or without control groups.

    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), and version 1's cpu.cfs_quota_us.
    """
    try:
        if (limit := cgroup / "cpu.max").exists():
            quota, period = limit.read_text("utf-8").split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text("utf-8")
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text("utf-8")
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number: no limit
        return math.inf
    return share if share > 0 else math.inf  # -1 in version 1: no limit
