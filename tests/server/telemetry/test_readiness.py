"""What a load balancer is told."""

import asyncio
import shutil
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest
from sqlalchemy import event

from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.telemetry.readiness import Readiness
from tests.server.conftest import StartServer
from tests.server.support.harness import Address, until


class Part:
    """A database or an image store that works, fails, or does not answer."""

    def __init__(self, outcome: Exception | None = None) -> None:
        self.outcome = outcome
        self.checks = 0

    async def check(self) -> None:
        self.checks += 1
        if self.outcome is not None:
            raise self.outcome


class Hanging(Part):
    async def check(self) -> None:
        self.checks += 1
        await asyncio.Event().wait()


def readiness(
    *,
    usable: bool = True,
    stand_in: str | None = None,
    database: Part | None = None,
    images: Part | None = None,
    patience: float = 5,
) -> Readiness:
    upscaler: Any = SimpleNamespace(
        usable=usable, nodes=None, stand_in=None if stand_in is None else SimpleNamespace(name=stand_in)
    )
    parts: list[Any] = [database or Part(), images or Part()]
    return Readiness(upscaler, *parts, patience=patience, clock=count(0, 10).__next__)


async def test_the_server_is_ready_while_all_its_parts_work() -> None:
    assert await readiness().obstacle() is None


async def test_it_is_not_ready_without_a_device() -> None:
    assert await readiness(usable=False).obstacle() == "no device is left to run tasks on"


async def test_it_is_ready_where_the_cpu_has_taken_over_and_says_so() -> None:
    restricted = readiness(stand_in="CPU, 2 threads")
    assert await restricted.obstacle() is None
    assert restricted.restriction() == "CPU, 2 threads has taken over, all other devices are lost"
    assert readiness().restriction() is None


async def test_it_is_not_ready_without_its_database() -> None:
    database = Part(DatabaseUnavailableError())
    assert await readiness(database=database).obstacle() == "the database cannot be used"


async def test_it_is_not_ready_without_its_image_store_and_ready_when_that_is_back() -> None:
    images = Part(UnavailableError("gone"))
    parts = readiness(images=images)
    assert await parts.obstacle() == "the image store cannot be used"
    images.outcome = None
    assert await parts.obstacle() is None


async def test_it_is_not_ready_while_a_part_does_not_answer_which_is_asked_only_once() -> None:
    database = Hanging()
    parts = readiness(database=database, patience=0.01)
    for _ in range(3):
        assert await parts.obstacle() == "the database does not answer"
    assert database.checks == 1


@pytest.mark.parametrize(
    ("cause", "what"),
    [
        ("database or disk is full", "is full"),
        ("could not extend file: No space left on device", "is full"),
        ("attempt to write a readonly database", "is read-only"),
        ("cannot execute INSERT in a read-only transaction", "is read-only"),
        ("connection refused", "cannot be used"),
    ],
)
async def test_what_is_full_or_read_only_is_named(cause: str, what: str) -> None:
    error = DatabaseUnavailableError()
    error.__cause__ = OSError(cause)
    assert await readiness(database=Part(error)).obstacle() == f"the database {what}"


async def test_however_often_it_is_asked_it_looks_once_a_second() -> None:
    now, database = [0.0], Part()
    upscaler: Any = SimpleNamespace(usable=True)
    parts: list[Any] = [database, Part()]
    often = Readiness(upscaler, *parts, clock=lambda: now[0])
    for now[0], looks in ((0.0, 1), (0.5, 1), (0.9, 1), (1.0, 2)):
        assert await often.obstacle() is None
        assert database.checks == looks


async def test_a_store_that_fails_is_told_over_http_and_its_return_too(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server()
    images = tmp_path / "images"
    assert await _ready(server) == (200, "ready\n")
    shutil.rmtree(images)
    images.touch()  # a file where the directory should be
    await until(lambda: _is_ready(server, (503, "the image store cannot be used\n")))
    images.unlink()
    await until(lambda: _is_ready(server, (200, "ready\n")))


async def test_a_database_that_only_reads_is_told_over_http(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    engine = server.services.database._engine

    only_reads = ["ON"]

    def switch(connection: Any, *_: Any) -> None:
        connection.cursor().execute(f"PRAGMA query_only={only_reads[0]}")

    event.listen(engine, "begin", lambda connection: switch(connection.connection))
    event.listen(engine, "checkout", switch)  # one that cannot be written to is given back
    await until(lambda: _is_ready(server, (503, "the database is read-only\n")))
    only_reads[0] = "OFF"
    await until(lambda: _is_ready(server, (200, "ready\n")))


async def _is_ready(server: Address, expected: tuple[int, str]) -> bool:
    return await _ready(server) == expected


async def _ready(server: Address) -> tuple[int, str]:
    async with httpcore.AsyncConnectionPool() as pool:
        response = await pool.request("GET", f"{server.url}/readyz")
    return response.status, response.content.decode()
