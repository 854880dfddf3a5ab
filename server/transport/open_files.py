"""How many connections the system lets this process have: each is an open file."""

import logging
import os
from typing import Final

__all__ = ["room_for"]

log = logging.getLogger(__name__)

_OTHER_FILES: Final = 256
_FEWEST: Final = 128
"""Files without which the server itself cannot work."""


def room_for(connections: int) -> int:
    """Raise the process's limit of open files, as far as is wanted and allowed.

    Returns:
        how many connections there is room for, beside files of other kinds; at most `connections`.

    Raises:
        OSError: if there is not even room for those.
    """
    if os.name != "posix":
        return connections
    import resource  # noqa: PLC0415 - there only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else max(soft, min(wanted, hard))
    if allowed < _FEWEST:
        raise OSError(
            f"only {allowed} files may be open, {_FEWEST} are needed: see ulimit -n, or LimitNOFILE"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    room = max(1, min(connections, allowed - _OTHER_FILES))
    if room < connections:
        log.warning(
            "only %d files may be open: there is room for %d connections, not for max_connections, %d; see "
            "ulimit -n, or LimitNOFILE",
            allowed,
            room,
            connections,
        )
    return room
