"""Who is at the other end of a connection, as far as the system knows."""

import asyncio
import socket
import struct
from typing import Final

from uvicorn.protocols.utils import get_remote_addr

__all__ = ["is_local_user", "peer_of"]

_UNIX: Final = "unix"
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


def peer_of(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    """The address of a client and its port.

    All clients of a Unix socket are on this machine and have no address: their users take its place, as
    `unix:1000`, with 0 as the port. So the limits that others have by address hold for each user.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family != getattr(socket, "AF_UNIX", None):
        return get_remote_addr(transport)  # type: ignore[arg-type]  # it only asks for extra information
    return f"{_UNIX}:{_user(connection)}", 0


def is_local_user(address: str) -> bool:
    """Whether an address stands for a user of this machine."""
    return address.startswith(f"{_UNIX}:")


def _user(connection: socket.socket) -> str:
    """The number of the user who connected; elsewhere than on Linux all are counted as one."""
    if not hasattr(socket, "SO_PEERCRED"):
        return "any"
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return str(_CREDENTIALS.unpack(found)[1])
