"""Which server runs which task, where several share a database.

A task belongs to the server that accepted it. Each server holds a lock that dies with it: who can take the
lock of another knows that its tasks are orphaned, and may take them over. No clocks are compared. To lose the
lock while alive does no harm: an outcome is recorded only by the server that the task still belongs to.

PostgreSQL: an advisory lock of a session of its own. SQLite: a locked file beside the database.
"""

import contextlib
import secrets
import threading
from pathlib import Path
from typing import NewType, Protocol

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

__all__ = ["ServerId", "ServerLock", "lock_for"]

ServerId = NewType("ServerId", str)

_PATIENCE = 5.0


class ServerLock(Protocol):
    """The lock of this server, and a look at those of others.

    Attributes:
        server: what this server is known as, for as long as it runs.
    """

    server: ServerId

    def hold(self) -> bool:
        """Take the lock, or make sure that it is held; False if it is not for now. Raises DBAPIError."""

    def is_dead(self, connection: Connection, other: ServerId) -> bool:
        """Whether nobody holds the lock of another server; of two transactions at once one learns it."""

    def close(self) -> None:
        """Give the lock up."""


def lock_for(engine: Engine) -> ServerLock:
    """A lock of the kind that the database offers, not yet taken."""
    if engine.dialect.name == "postgresql":
        return _SessionLock(engine)
    database = engine.url.database
    if not database or database == ":memory:":
        return _FileLock(None)
    # By whichever link it was reached: servers that saw each other's locks in different folders would each
    # think that the other is gone.
    return _FileLock(Path(f"{Path(database).resolve()}-servers"))


class _SessionLock:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session: Connection | None = None
        self._using = threading.Lock()
        self._held = False
        self.server = ServerId(str(secrets.randbits(63)))

    def hold(self) -> bool:
        with self._using:
            try:
                if self._session is None:
                    connection = self._engine.connect()
                    self._session = connection.execution_options(isolation_level="AUTOCOMMIT")
                if self._held:
                    self._session.execute(select(1))
                else:
                    query = select(func.pg_try_advisory_lock(int(self.server)))
                    self._held = bool(self._session.scalar(query))
            except DBAPIError:
                self._drop()
                raise
            return self._held

    def is_dead(self, connection: Connection, other: ServerId) -> bool:
        return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(int(other)))))

    def close(self) -> None:
        with self._using:
            self._drop()

    def _drop(self) -> None:
        """Close the session; with it the lock is given up."""
        session, self._session, self._held = self._session, None, False
        if session is not None:
            with contextlib.suppress(DBAPIError):
                session.invalidate()
                session.close()


class _FileLock:
    """`folder` holds one file for each server; None for a database that no other server can reach."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.server = ServerId(secrets.token_hex(8))
        self._lock: FileLock | None = None

    def hold(self) -> bool:
        if self._folder is not None and self._lock is None:
            self._folder.mkdir(exist_ok=True)
            self._remove_dead(self._folder)
            lock = FileLock(self._folder / self.server, thread_local=False)
            lock.acquire(timeout=_PATIENCE)  # another that starts may just look whether it is held
            self._lock = lock
        return True

    def is_dead(self, connection: Connection, other: ServerId) -> bool:  # noqa: ARG002 - as ServerLock has it
        if self._folder is None:
            return True
        return _removed_if_dead(self._folder / other)

    def close(self) -> None:
        if self._lock is not None:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def _remove_dead(self, folder: Path) -> None:
        """Delete the files of servers that were killed: without tasks of theirs nobody asks for them."""
        for file in folder.iterdir():
            _removed_if_dead(file)


def _removed_if_dead(file: Path) -> bool:
    """Whether nobody holds a lock file; it is deleted then."""
    if not file.exists():
        return True
    try:
        with FileLock(file, blocking=False):
            file.unlink(missing_ok=True)
    except Timeout:
        return False
    return True
