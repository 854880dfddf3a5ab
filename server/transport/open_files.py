"""How many connections the system lets this process have: each is an open file."""

import os
from typing import Final

__all__ = ["room_for"]

_OTHER_FILES: Final = 256


def room_for(connections: int) -> int:
    """Raise the process's limit of open files, as far as is wanted and allowed.

    Returns:
        how many connections there is room for, beside files of other kinds; at most `connections`.
    """
    if os.name != "posix":
        return connections
    import resource  # noqa: PLC0415 - there only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else max(soft, min(wanted, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(connections, allowed - _OTHER_FILES))
