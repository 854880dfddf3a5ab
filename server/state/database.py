"""The one way to run something in a transaction."""

import asyncio
import contextlib
import logging
import secrets
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
from server.state.migrations import upgrade
from server.state.tables import loose_files

__all__ = ["Database"]

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 4
_TRY_AGAIN_AFTER = 1.0
_CONFLICTS = frozenset({"40001", "40P01"})  # www.postgresql.org/docs/current/errcodes-appendix.html
# Internal errors are of a transaction that PostgreSQL has ended, or of a server that only reads for now.
_UNUSABLE = OperationalError, InterfaceError, InternalError
_READS = "tilewire_reads"  # an execution option of ours

log = logging.getLogger(__name__)


class Database:
    """Runs functions over a connection, each in one transaction, in threads beside the event loop."""

    def __init__(self, url: str, *, synchronous: str = "NORMAL") -> None:
        """
        Args:
            url: SQLAlchemy's. A SQLite file's directory must exist; `?timeout=` says how many seconds to wait
                for another process's lock, by default 5. The tables are made, or brought to this version's.
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
            event.listen(self._engine, "connect", partial(_prepare_sqlite, synchronous))
            event.listen(self._engine, "begin", _begin_sqlite)
            self._unhurried = self._engine
        else:
            from server.state.postgresql import bound_waiting  # noqa: PLC0415 - needs the extra

            bound_waiting(self._engine)
            self._unhurried = create_engine(address, hide_parameters=True, poolclass=NullPool)
        # SQLite has one writer at a time: with one thread nobody ever waits for its lock.
        self._threads = ThreadPoolExecutor(max_workers=1 if sqlite else 8, thread_name_prefix="database")
        with self._unhurried.connect() as connection:
            _migrate(connection)

    async def run(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The result of `function(connection, …)`, committed; rolled back if it raises.

        A transaction that has begun is finished even if the caller is cancelled.

        Raises:
            DatabaseUnavailableError: if the database is locked, full or cannot be reached.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: self.run_sync(function, *args, **kwargs))
        except _UNUSABLE as error:
            log.warning("the database cannot be used: %s", error.orig)
            raise DatabaseUnavailableError from error

    async def insist(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`run`, again and again until the database can be used.

        A cancellation that comes while the transaction runs comes too late: its result is given.
        """
        while True:
            transaction = asyncio.ensure_future(self.run(function, *args, **kwargs))
            try:
                try:
                    return await asyncio.shield(transaction)
                except asyncio.CancelledError:
                    return await transaction
            except DatabaseUnavailableError:
                await asyncio.sleep(_TRY_AGAIN_AFTER)

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
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._attempt(function, *args, **kwargs)
            except DBAPIError as error:
                if not _is_conflict(error):
                    raise
        return self._attempt(function, *args, **kwargs)

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
        """Finish what runs, close all connections."""
        self._threads.shutdown()
        self._engine.dispose()


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
            upgrade(connection)
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            assert not broken, f"a step of the migration broke references: {broken}"
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _prepare_sqlite(synchronous: str, connection: Any, _record: Any) -> None:
    """Readers beside the writer, commits that survive a crash of the process, foreign keys that hold."""
    # Transactions begin where `_begin_sqlite` says, not where Python guesses.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock first, so that what a transaction has read is still so when it writes."""
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
