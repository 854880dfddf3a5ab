"""What the server listens on: the addresses of a host, and a Unix socket.

All are taken before anything else is done, so that a second server that is started by mistake is refused at
once; none is listened on before the services run.
"""

import errno
import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from server.settings import Settings

__all__ = ["ListenError", "take_port", "taken_unix_socket"]

_MODE: Final = 0o660
"""Connecting to a Unix socket takes the right to write to its file (unix(7))."""

_LONGEST_PATH: Final = 107 if sys.platform == "linux" else 103
"""Bytes that `sun_path` holds beside the final zero."""


class ListenError(Exception):
    """An address cannot be listened on; the message says which and why, in one line."""


def take_port(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a host, bound and not yet listening.

    Raises:
        ListenError: if the host is not ours or the port is taken.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sockets.append(taken := socket.socket(family, kind, protocol))
            if os.name == "posix":  # elsewhere the option lets several servers have one port
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            own_port = sockets[0].getsockname()[1] or port  # the first one's, where any will do
            taken.bind((address[0], own_port, *address[2:]))
    except OSError as error:
        for taken in sockets:
            taken.close()
        raise ListenError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return sockets


@contextmanager
def taken_unix_socket(settings: Settings) -> Iterator[socket.socket]:
    """The Unix socket of the settings, bound and not yet listening; its file is gone after the block.

    A lock beside it tells a server that starts or runs from one that was killed: the file of the latter is
    replaced.

    Raises:
        ListenError: if the path cannot be had, or its owner cannot be set.
    """
    path = settings.uds
    assert path is not None
    _check_path(path)
    lock = FileLock(path.with_name(f"{path.name}.lock"), mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _failure(path, "another server uses it") from error
    except OSError as error:
        raise _failure(
            path, _no_rights_in(path) if error.errno == errno.EACCES else error.strerror
        ) from error
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    own: os.stat_result | None = None
    try:
        _remove_left_over(path)
        own = _bind(taken, path, settings)
        yield taken
    finally:
        taken.close()
        with suppress(OSError):  # it may be gone, or another one's by now
            if own is not None and os.path.samestat(own, path.lstat()):
                path.unlink()
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _check_path(path: Path) -> None:
    if not hasattr(socket, "AF_UNIX"):
        raise _failure(path, "this system has no Unix sockets")
    if (size := len(os.fsencode(path))) > _LONGEST_PATH:
        raise _failure(path, f"its path has {size} bytes, and may have {_LONGEST_PATH}")
    if not path.parent.is_dir():
        raise _failure(path, f"there is no directory {path.parent}")


def _remove_left_over(path: Path) -> None:
    """Remove what a server that was killed has left; whoever listens keeps it."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failure(path, error.strerror) from error
    if not stat.S_ISSOCK(kind):
        raise _failure(path, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            pass
        except (TimeoutError, BlockingIOError) as error:  # its queue of connections is full
            raise _failure(path, "another program listens there") from error
        except OSError as error:
            reason = f"a socket is there that cannot be tried: {error.strerror}"
            raise _failure(path, reason) from error
        else:
            raise _failure(path, "another program listens there")
    try:
        path.unlink()
    except OSError as error:
        raise _failure(path, f"the socket of a server that was killed is there: {error.strerror}") from error


def _bind(taken: socket.socket, path: Path, settings: Settings) -> os.stat_result:
    """Make the file; until the socket listens nobody can connect, so its rights can be set in peace."""
    try:
        taken.bind(os.fspath(path))
    except OSError as error:
        reason = _no_rights_in(path) if error.errno == errno.EACCES else error.strerror
        raise _failure(path, reason) from error
    try:
        if settings.uds_group is not None:
            shutil.chown(path, group=_number_or_name(settings.uds_group))
        if settings.uds_owner is not None:
            shutil.chown(path, _number_or_name(settings.uds_owner))
        path.chmod(_MODE)
        return path.lstat()
    except LookupError as error:
        path.unlink(missing_ok=True)
        raise _failure(path, f"uds_owner, uds_group: {error.args[0]}") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _failure(path, f"it cannot be given to uds_owner, uds_group: {error.strerror}") from error


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _no_rights_in(path: Path) -> str:
    return f"no right to make files in {path.parent}"


def _failure(path: Path, reason: str | None) -> ListenError:
    return ListenError(f"cannot listen on the Unix socket {path}: {reason}")
