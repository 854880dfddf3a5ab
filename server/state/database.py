"""The one way to run something in a transaction."""

import asyncio
import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, create_engine, delete, event, insert, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError
from sqlalchemy.pool import NullPool

from server.private import private_file
from server.protocol.errors import DatabaseUnavailableError
from server.state.claims import ServerLock, lock_for
from server.state.group_commit import GroupCommit
from server.state.migrations import upgrade
from server.state.patience import Patience
from server.state.prepared import run_by_driver
from server.state.tables import loose_files

__all__ = ["Database"]

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 4
_TRY_AGAIN_AFTER = 1.0
_LOCK_TIMEOUT = 5.0
_LOCK_TRY = 0.25
"""Seconds that SQLite waits for a lock by itself, when nothing can make it stop."""
_LAST_WAIT = 1.0
_CONNECTIONS = 8
_ANSWER_WITHIN = 25.0
"""Seconds that whoever runs a transaction waits for its end, with all that is before it."""
_CONFLICTS = frozenset({"40001", "40P01"})  # www.postgresql.org/docs/current/errcodes-appendix.html
# Internal errors are of a transaction that PostgreSQL has ended, or of a server that only reads for now.
_UNUSABLE = OperationalError, InterfaceError, InternalError
_BEGIN = "BEGIN IMMEDIATE"
_READS = "tilewire_reads"  # an execution option of ours

log = logging.getLogger(__name__)


class Database:
    """Runs functions over a connection, each in one transaction, in threads beside the event loop."""

    def __init__(self, url: str, *, synchronous: str = "NORMAL") -> None:
        """Connect to a database, and make its tables or bring them to this version's.

        Args:
            url: SQLAlchemy's. A SQLite file's directory must exist; `?timeout=` says how many seconds to wait
                for another process's lock, by default 5.
            synchronous: when SQLite waits for the disk, NORMAL or FULL; sqlite.org/pragma.html explains both.

        Raises:
            NewerDatabaseError: if a newer version made the tables.
            SQLAlchemyError: if the database cannot be used.
        """
        address = make_url(url)
        if address.drivername == "postgresql":
            address = address.set(drivername="postgresql+psycopg")  # the driver that the extra brings
        sqlite = self._sqlite = address.get_backend_name() == "sqlite"
        # A connection that was lost meanwhile is replaced before it is used, and a lost server noticed.
        more = {} if sqlite else {"pool_pre_ping": True, "pool_size": 10}
        self._engine = create_engine(address, hide_parameters=True, **more)  # they would be in the log
        if sqlite:
            _close_to_others(address.database or "")
            self._patience = Patience(float(str(address.query.get("timeout", _LOCK_TIMEOUT))))
            event.listen(self._engine, "connect", partial(_prepare_sqlite, synchronous))
            event.listen(self._engine, "begin", partial(_begin_sqlite, self._patience))
            self._unhurried = self._engine
        else:
            from server.state.postgresql import PATIENCE, bound_waiting  # noqa: PLC0415 - needs the extra

            self._patience = Patience(PATIENCE)
            bound_waiting(self._engine, self._patience)
            self._unhurried = create_engine(address, hide_parameters=True, poolclass=NullPool)
        with self._unhurried.connect() as connection:
            _migrate(connection)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reading")
        self._threads = GroupCommit(self._engine, _repeat) if sqlite else _Threads(self.run_sync)

    async def run(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The result of `function(connection, …)`, committed; rolled back if it raises.

        A transaction that has begun is finished even if the caller is cancelled.

        Raises:
            DatabaseUnavailableError: if the database is locked, full or cannot be reached, or does not answer
                within 25 seconds.
        """
        has_begun = is_given_up = False

        def begin(connection: Connection) -> T:
            nonlocal has_begun
            has_begun = True  # first: whoever gives up sees this, or is seen
            if is_given_up:
                raise _GivenUpError
            return function(connection, *args, **kwargs)

        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                return await self._threads.submit(begin)
        except TimeoutError as error:
            is_given_up = True
            log.warning("the database does not answer")
            raise DatabaseUnavailableError(may_be_done=has_begun) from error
        except _UNUSABLE as error:
            log.warning("the database cannot be used: %s", error.orig)
            raise DatabaseUnavailableError(may_be_done=has_begun) from error

    async def insist(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`run`, again and again until the database can be used.

        It may have been done when it seemed to fail, and is done again then: the function must bear it.
        """
        while True:
            try:
                return await self.run(function, *args, **kwargs)
            except DatabaseUnavailableError:
                await asyncio.sleep(_TRY_AGAIN_AFTER)

    def hurry(self, seconds: float) -> None:
        """Have nobody wait for the database any longer than so many seconds from now: the server stops."""
        self._patience.end_within(seconds)

    async def check(self) -> None:
        """See whether the database can be written to.

        Raises:
            DatabaseUnavailableError: if it cannot: it does not answer, is full, or only reads.
        """
        await self.run(_write_and_take_back)

    def run_sync(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`run`, for callers without an event loop; raises what SQLAlchemy does.

        A function that met another transaction is run again: it will see then what that one did.
        """
        return _repeat(partial(self._attempt, function, *args, **kwargs))

    async def read(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`snapshot`, beside the transactions of `run`: neither waits for the other. One at a time.

        Raises:
            DatabaseUnavailableError: as `run`.
        """
        work = partial(self.snapshot, function, *args, **kwargs)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                return await asyncio.get_running_loop().run_in_executor(self._reader, work)
        except TimeoutError as error:
            log.warning("the database does not answer")
            raise DatabaseUnavailableError from error
        except _UNUSABLE as error:
            log.warning("the database cannot be used: %s", error.orig)
            raise DatabaseUnavailableError from error

    def snapshot(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`run_sync`, reading only: all from one moment, and without making anybody wait. May take long."""
        options = {_READS: True} if self._sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._unhurried.execution_options(**options).begin() as connection:
            return function(connection, *args, **kwargs)

    def server_lock(self) -> ServerLock:
        """A lock by which other servers on this database know that this one runs."""
        return lock_for(self._engine)

    def _attempt(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with self._engine.begin() as connection:
            return function(connection, *args, **kwargs)

    def close(self) -> None:
        """Finish what runs, unless it waits; close all connections."""
        self.hurry(_LAST_WAIT)
        self._threads.close()
        self._reader.shutdown(cancel_futures=True)
        self._engine.dispose()


class _GivenUpError(Exception):
    """Nobody waits for the transaction any more, and it has not begun."""


class _Threads:
    """A few threads, each with a connection."""

    def __init__(self, run: Callable[[Callable[[Connection], Any]], Any]) -> None:
        self._run = run
        self._pool = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="database")

    def submit(self, function: Callable[[Connection], T]) -> "asyncio.Future[T]":
        """As `GroupCommit.submit`, each function in a transaction of its own."""
        return asyncio.get_running_loop().run_in_executor(self._pool, self._run, function)

    def close(self) -> None:
        """Finish what waits. Blocks."""
        self._pool.shutdown()


def _repeat(attempt: Callable[[], T]) -> T:
    """Run a transaction, and run it again if it met another one."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return attempt()
        except DBAPIError as error:
            if not _is_conflict(error):
                raise
    return attempt()


def _close_to_others(database: str) -> None:
    """Make a SQLite file private; its journals get the same mode (sqlite.org/src/file/src/os_unix.c)."""
    if database and not database.startswith((":memory:", "file:")):
        with contextlib.suppress(OSError):  # SQLite says what is wrong with it
            private_file(Path(database))


def _write_and_take_back(connection: Connection) -> None:
    """Write a row that is gone at the end of the transaction."""
    name = f"readiness {secrets.token_hex(8)}"
    connection.execute(insert(loose_files).values(name=name, since=0.0))
    connection.execute(delete(loose_files).where(loose_files.c.name == name))


def _is_conflict(error: DBAPIError) -> bool:
    """Whether two transactions met: a row that both add, a serialisation failure, a deadlock."""
    return isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in _CONFLICTS


def _migrate(connection: Connection) -> None:
    """Bring the tables to this version's, or leave them as they are."""
    if connection.dialect.name != "sqlite":
        with connection.begin():
            upgrade(connection)
        return
    # A step may put a new table in the place of one that others refer to (sqlite.org/lang_altertable.html).
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        with connection.begin():
            if not upgrade(connection):
                return
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            assert not broken, f"a step of the migration broke references: {broken}"
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _prepare_sqlite(synchronous: str, connection: Any, _record: Any) -> None:
    """Readers beside the writer, commits that survive a crash of the process, foreign keys that hold."""
    # Transactions begin where `_begin_sqlite` says, not where Python guesses.
    connection.isolation_level = None
    cursor = connection.cursor()
    busy = f"busy_timeout={round(1000 * _LOCK_TRY)}"
    for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON", busy):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(patience: Patience, connection: Connection) -> None:
    """Take the write lock first, so that what a transaction has read is still so when it writes."""
    if connection.get_execution_options().get(_READS, False):
        connection.exec_driver_sql("BEGIN")
        return
    deadline = patience.deadline()
    while True:
        try:
            run_by_driver(connection, _BEGIN)
        except OperationalError as error:
            is_busy = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or patience.is_over(deadline):
                raise
        else:
            return
