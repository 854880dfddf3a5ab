"""Functions that wait for the database together share a transaction, and nothing else."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, insert, select
from sqlalchemy.exc import OperationalError

from server.protocol.errors import DatabaseUnavailableError
from server.state import checkpoints
from server.state.database import Database
from server.state.loose_files import note_loose
from server.state.tables import loose_files


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{tmp_path / 'state.db'}")) as database:
        yield database


class Blocked:
    """Holds the database's thread up while the others come."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._go_on = threading.Event()

    async def __aenter__(self) -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def block(_connection: Connection) -> None:
            loop.call_soon_threadsafe(begun.set)
            self._go_on.wait()

        self._first = asyncio.create_task(self._database.run(block))
        await begun.wait()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # those that came have asked by now
        self._go_on.set()
        await self._first


def commits(database: Database) -> list[object]:
    seen: list[object] = []
    event.listen(database._engine, "commit", seen.append)
    return seen


async def names(database: Database) -> list[str]:
    return await database.run(lambda connection: list(connection.scalars(select(loose_files.c.name))))


def note_and_fail(connection: Connection, name: str) -> None:
    note_loose(connection, name, 1.0)
    raise KeyError(name)


async def test_what_waits_is_committed_together(database: Database) -> None:
    seen = commits(database)
    async with Blocked(database):
        waiting = [asyncio.create_task(database.run(note_loose, str(n), 1.0)) for n in range(10)]
    await asyncio.gather(*waiting)
    assert len(seen) == 2
    assert len(await names(database)) == 10


async def test_one_that_raises_takes_nothing_of_the_others_back(database: Database) -> None:
    async with Blocked(database):
        good = [asyncio.create_task(database.run(note_loose, name, 1.0)) for name in "ab"]
        bad = asyncio.create_task(database.run(note_and_fail, "c"))
        last = asyncio.create_task(database.run(note_loose, "d", 1.0))
    with pytest.raises(KeyError):
        await bad
    await asyncio.gather(*good, last)
    assert sorted(await names(database)) == ["a", "b", "d"]


async def test_an_error_of_the_database_is_only_that_of_the_function_it_came_to(database: Database) -> None:
    def corrupt(connection: Connection) -> None:
        note_loose(connection, "corrupt", 1.0)
        connection.exec_driver_sql("SELECT * FROM nowhere")

    async with Blocked(database):
        first = asyncio.create_task(database.run(note_loose, "a", 1.0))
        bad = asyncio.create_task(database.run(corrupt))
        last = asyncio.create_task(database.run(note_loose, "b", 1.0))
    with pytest.raises(DatabaseUnavailableError):
        await bad
    await asyncio.gather(first, last)
    assert sorted(await names(database)) == ["a", "b"]


async def test_what_is_cancelled_while_it_waits_is_not_run(database: Database) -> None:
    async with Blocked(database):
        given_up = asyncio.create_task(database.run(note_loose, "a", 1.0))
        await asyncio.sleep(0)
        given_up.cancel()
        kept = asyncio.create_task(database.run(note_loose, "b", 1.0))
    await kept
    assert await names(database) == ["b"]


async def test_what_waits_when_the_database_is_closed_is_still_committed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    database = Database(url)
    async with Blocked(database):
        waiting = asyncio.create_task(database.run(note_loose, "a", 1.0))
    await asyncio.to_thread(database.close)
    await waiting
    with closing(Database(url)) as again:
        again.run_sync(lambda connection: connection.execute(insert(loose_files).values(name="b", since=1.0)))
        assert sorted(await names(again)) == ["a", "b"]


async def test_the_journal_begins_anew_again_and_again(database, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_EVERY", 20)
    for number in range(2000):  # of two pages and more each: 16 MB
        await database.run(note_loose, f"{number}.png", 1.0)
    assert len(await names(database)) == 2000
    assert (tmp_path / "state.db-wal").stat().st_size < 8 * 2**20


async def test_transactions_go_on_where_the_journal_cannot_be_emptied(database, monkeypatch):
    def fail(_connection, statement):
        raise OperationalError(statement, None, sqlite3.OperationalError("the disk is full"))

    await database.run(note_loose, "first.png", 1.0)
    monkeypatch.setattr(checkpoints, "_EVERY", 1)
    monkeypatch.setattr(checkpoints, "run_by_driver", fail)
    for number in range(20):
        await database.run(note_loose, f"{number}.png", 1.0)
    assert len(await names(database)) == 21
