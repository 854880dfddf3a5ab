"""What only the server's own user may read: webhook secrets in the database, customers' images."""

import logging
import os
from pathlib import Path
from typing import Final

__all__ = ["private_directory", "private_file"]

log = logging.getLogger(__name__)

_OTHERS: Final = 0o077
"""What the group and everyone else may do."""


def private_directory(path: Path) -> Path:
    """A directory that is there, and closed to other users.

    One that was open is closed, with a line in the log. On Windows only the directory is made.

    Args:
        path: where; its parents are made as well, as the umask has it.

    Raises:
        OSError: if it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    _close(path)
    return path


def private_file(path: Path) -> Path:
    """A file that is there, empty if it is new, and closed to other users; as `private_directory`.

    Raises:
        OSError: if it cannot be made.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    _close(path)
    return path


def _close(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if os.name != "posix" or not mode & _OTHERS:
        return
    try:
        path.chmod(mode & ~_OTHERS)
    except PermissionError:
        log.warning("other users can read %s, and its owner is not this one", path)
    else:
        log.warning("other users could read %s; it is closed to them now", path)
