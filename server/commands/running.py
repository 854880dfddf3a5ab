"""Which servers of this user run, and where their data is: other commands find them without being told."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
from filelock import FileLock, Timeout
from msgspec import Struct
from platformdirs import user_state_path

from server.private import private_directory, private_file
from server.settings import Settings

__all__ = ["RunningServer", "noted", "running_servers"]

_SUFFIX: Final = ".json"


class RunningServer(Struct, frozen=True):
    """A server that runs.

    Attributes:
        url: what it is reached as.
        data: its directory.
        database_url: of its database; None for the one in its directory.
        storage_url: of its images; None for those in its directory.
        added_models: the directory of the models that were added; None for the one in its directory.
    """

    url: str
    data: str
    database_url: str | None
    storage_url: str | None = None
    added_models: str | None = None


@contextmanager
def noted(url: str, settings: Settings) -> Iterator[None]:
    """Note that a server runs, for the time of the block; the note is a file that only this user can read.

    Whether it still runs is told by a lock, which the system releases when the process ends, however it does.
    """
    added = settings.added_models
    server = RunningServer(
        url,
        str(settings.data.resolve()),
        settings.database_url,
        settings.storage_url,
        None if added is None else str(added.resolve()),
    )
    try:
        note = private_file(private_directory(_directory()) / f"{uuid4()}{_SUFFIX}")
        lock = FileLock(note.with_suffix(".lock"))
        lock.acquire(timeout=0)
        note.write_bytes(msgspec.json.encode(server))
    except OSError:  # the state directory cannot be written: the others will not find this one
        yield
        return
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def running_servers() -> list[RunningServer]:
    """The servers of this user that run now; what others left behind is removed."""
    found: list[RunningServer] = []
    for note in sorted(_directory().glob(f"*{_SUFFIX}")):
        lock = FileLock(note.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with suppress(OSError, msgspec.DecodeError):
                found.append(msgspec.json.decode(note.read_bytes(), type=RunningServer))
            continue
        except OSError:
            continue
        note.unlink(missing_ok=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
    return found


def _directory() -> Path:
    return user_state_path("tilewire", appauthor=False) / "servers"
