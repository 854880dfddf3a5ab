"""Other processes, as Linux tells of them in /proc."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 120.0


def children(of: int) -> set[int]:
    """The processes that a process has started."""
    return {
        int(pid)
        for thread in Path(f"/proc/{of}/task").iterdir()
        for pid in (thread / "children").read_text("utf-8").split()
    }


def status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()


def computed(pid: int) -> int:
    """How long a process has computed, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def ended(pid: int) -> bool:
    """Whether a process is no more, though it may not have been buried."""
    try:
        return "State:\tZ (zombie)" in status(pid)
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)
