"""Names of files that are recorded before they are needed."""

import asyncio

import pytest

from server.images.names import Names
from server.protocol.errors import DatabaseUnavailableError
from server.state.database import Database
from server.state.images import known_files
from server.state.loose_files import condemn_stale, condemned
from tests.server.images.conftest import Clock


@pytest.fixture
def names(database: Database, clock: Clock) -> Names:
    return Names(database, clock)


async def test_each_name_is_given_once_and_recorded_before(names: Names, database: Database) -> None:
    taken = await asyncio.gather(*(names.take(extension) for extension in ("png", "jpg") * 100))
    assert len(set(taken)) == 200
    assert set(taken) <= await database.run(known_files)
    assert {name.rpartition(".")[2] for name in taken} == {"png", "jpg"}


async def test_several_that_wait_for_names_have_them_recorded_together(
    names: Names, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = database.run, []

    async def counted(function: object, *arguments: object) -> object:
        calls.append(function)
        return await run(function, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "run", counted)
    await asyncio.gather(*(names.take("png") for _ in range(40)))
    assert len(calls) == 1


async def test_an_old_name_is_not_used_any_more(names: Names, database: Database, clock: Clock) -> None:
    old = await names.take("png")
    before = await database.run(known_files)
    clock.now += 3600
    new = await names.take("png")
    assert old in before
    assert new not in before


async def test_what_was_not_used_is_forgotten_after_a_day(
    names: Names, database: Database, clock: Clock
) -> None:
    taken = await names.take("png")
    await database.run(condemn_stale, clock.now + 86_400)
    assert taken in await database.run(condemned, "", 1000)


async def test_names_that_could_not_be_recorded_are_not_given(
    names: Names, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise DatabaseUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(database, "run", fail)
        with pytest.raises(DatabaseUnavailableError):
            await names.take("png")
    assert await names.take("png") in await database.run(known_files)
