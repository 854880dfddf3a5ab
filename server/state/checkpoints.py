"""Brings what SQLite's journal holds into the database, beside the transactions (sqlite.org/wal.html).

Left to itself SQLite does so within the commit that makes the journal too long, with two flushes of the disk:
whoever waits for that one waits for them, and so did one task in 25. Without that the slowest hundredth of
small tasks takes 0.6 to 0.7 of the time (measured).
"""

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from server.state.prepared import run_by_driver

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._under_way: Future[None] | None = None

    def take_over(self, connection: Connection) -> None:
        """Have a connection leave it to this."""
        run_by_driver(connection, "PRAGMA wal_autocheckpoint=0")

    def note(self, connection: Connection, count: int) -> None:
        """So many functions were run on a connection that is in no transaction now."""
        self._count += count
        if self._under_way is not None and self._under_way.done():
            # What came meanwhile is little. Once nothing is left the journal begins anew.
            self._under_way = None
            _checkpoint(connection)
        elif self._count >= _EVERY and self._under_way is None:
            self._count, self._under_way = 0, self._thread.submit(self._do_most)

    def close(self) -> None:
        """Finish what is under way. Blocks."""
        self._thread.shutdown()

    def _do_most(self) -> None:
        with self._engine.connect() as connection:  # what that raises nobody has to hear of
            _checkpoint(connection)


def _checkpoint(connection: Connection) -> None:
    """Do as much as can be done without waiting for anybody; what fails is done the next time."""
    with contextlib.suppress(DBAPIError):  # such as a full disk
        run_by_driver(connection, "PRAGMA wal_checkpoint(PASSIVE)")
