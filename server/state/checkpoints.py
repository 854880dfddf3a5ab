"""Brings what SQLite's journal holds into the database, beside the transactions (sqlite.org/wal.html).

Left to itself SQLite does so within the commit that makes the journal too long, with two flushes of the disk:
whoever waits for that one waits for them, and so did one task in 25. Without that the slowest hundredth of
small tasks takes 0.6 to 0.7 of the time (measured).
"""

import contextlib
import threading
from sqlite3 import Error
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

__all__ = ["Checkpoints"]

_EVERY: Final = 50
"""Functions: those of 25 small tasks write 4 MB, to which SQLite lets it grow. With a journal of 20 MB all
transactions are slower: tasks took 1.1 times as long."""


class Checkpoints:
    """A thread that does most of it, and a little that is left to the one that writes. Close it when done."""

    def __init__(self, engine: Engine) -> None:
        """Wait until there is something to do.

        Args:
            engine: of a SQLite database.
        """
        self._engine = engine
        self._count = 0
        self._is_wanted = threading.Event()
        self._is_under_way = self._is_nearly_done = self._closed = False
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def take_over(self, connection: Connection) -> None:
        """Have a connection leave it to this."""
        _run(connection, "PRAGMA wal_autocheckpoint=0")

    def note(self, connection: Connection, count: int) -> None:
        """So many functions were run on a connection that is in no transaction now."""
        self._count += count
        if self._is_nearly_done:
            # What came meanwhile is little. Once nothing is left the journal begins anew.
            self._is_nearly_done = self._is_under_way = False
            _checkpoint(connection)
        elif self._count >= _EVERY and not self._is_under_way:
            self._count, self._is_under_way = 0, True
            self._is_wanted.set()

    def close(self) -> None:
        """Finish what is under way. Blocks."""
        self._closed = True
        self._is_wanted.set()
        self._thread.join()

    def _work(self) -> None:
        while self._is_wanted.wait() and not self._closed:
            self._is_wanted.clear()
            with contextlib.suppress(SQLAlchemyError, Error), self._engine.connect() as connection:
                _checkpoint(connection)
            self._is_nearly_done = True


def _checkpoint(connection: Connection) -> None:
    """Do as much as can be done without waiting for anybody; what fails is done the next time."""
    with contextlib.suppress(Error):  # such as a full disk
        _run(connection, "PRAGMA wal_checkpoint(PASSIVE)")


def _run(connection: Connection, statement: str) -> None:
    """Run a statement outside of any transaction; SQLAlchemy would begin one."""
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute(statement)
