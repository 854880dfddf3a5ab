"""A thread that runs functions in transactions: whatever waits for it goes into the next one, together.

SQLite has one writer at a time: with one thread nobody ever waits for its lock. The more there is to do, the
fewer commits each function costs.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from server.state.checkpoints import Checkpoints

__all__ = ["GroupCommit"]

T = TypeVar("T")

_MOST: Final = 64
"""Functions in one transaction: those behind them wait for its end."""


class _Job(NamedTuple):
    function: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class _Outcome(NamedTuple):
    future: "asyncio.Future[Any]"
    result: Any
    error: BaseException | None

    def tell(self) -> None:
        """Wake who waits, on its event loop."""
        if self.future.done():  # cancelled
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class GroupCommit:
    """Runs functions of a connection to SQLite. Close it when done."""

    def __init__(self, engine: Engine, repeat: Callable[[Callable[[], object]], object]) -> None:
        """Start the thread.

        Args:
            engine: of a SQLite database.
            repeat: calls what it is given, again if that met another transaction.
        """
        self._engine = engine
        self._repeat = repeat
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._connection: Connection | None = None
        self._closed = False
        self._checkpoints = Checkpoints(engine)
        self._thread = threading.Thread(target=self._work, name="database", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[Connection], T]) -> "asyncio.Future[T]":
        """The result of `function(connection)`, once it is committed.

        It is called again, alone, if the transaction fails. To cancel the future has it not called, unless it
        has begun.

        Raises:
            RuntimeError: if this is closed.
        """
        if self._closed:
            raise RuntimeError("the database is closed")
        loop = asyncio.get_running_loop()
        job = _Job(function, loop, loop.create_future())
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Finish what waits. Blocks."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._checkpoints.close()

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs = [first, *self._waiting()]
            for loop, outcomes in self._run(jobs).items():
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any longer
                    loop.call_soon_threadsafe(_tell, outcomes)
            if self._connection is not None:
                self._checkpoints.note(self._connection, len(jobs))
        self._disconnect()

    def _waiting(self) -> Iterator[_Job]:
        """What waits beside the first one; nothing is behind the end."""
        for _ in range(_MOST - 1):
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            if job is None:
                self._jobs.put(None)
                return
            yield job

    def _run(self, jobs: list[_Job]) -> dict[asyncio.AbstractEventLoop, list[_Outcome]]:
        jobs = [job for job in jobs if not job.future.cancelled()]
        try:
            outcomes = self._together(jobs) if len(jobs) > 1 else list(map(self._alone, jobs))
        except DBAPIError:  # it may have undone what others had done
            outcomes = list(map(self._alone, jobs))
        by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
        for job, outcome in zip(jobs, outcomes, strict=True):
            by_loop.setdefault(job.loop, []).append(outcome)
        return by_loop

    def _together(self, jobs: list[_Job]) -> list[_Outcome]:
        """Run all in one transaction; what one of them raises undoes what that one did.

        Raises:
            DBAPIError: if the database fails one of them; nothing is done then.
        """
        with self._transaction() as connection:
            return [self._member(connection, job) for job in jobs]

    def _member(self, connection: Connection, job: _Job) -> _Outcome:
        # By the driver: SQLAlchemy's own savepoints take thirty times as long.
        cursor = connection.connection.cursor()
        cursor.execute("SAVEPOINT member")
        try:
            outcome = _Outcome(job.future, job.function(connection), None)
        except DBAPIError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            cursor.execute("ROLLBACK TO member")
            outcome = _Outcome(job.future, None, error)
        cursor.execute("RELEASE member")
        return outcome

    def _alone(self, job: _Job) -> _Outcome:
        def attempt() -> object:
            with self._transaction() as connection:
                return job.function(connection)

        try:
            return _Outcome(job.future, self._repeat(attempt), None)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            return _Outcome(job.future, None, error)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._connection is None:
            self._connection = self._engine.connect()
            self._checkpoints.take_over(self._connection)
        try:
            with self._connection.begin():
                yield self._connection
        except DBAPIError:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):
                connection.close()


def _tell(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.tell()
