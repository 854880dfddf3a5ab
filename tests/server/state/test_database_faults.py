"""A database that cannot be used for a while: tasks get a clear error, and then all is well again."""

import asyncio
import base64
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event

from server.serving import EmbeddedServer
from server.state.audit import audit
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    KEY,
    PATIENCE,
    Item,
    Peer,
    connected,
    make_image,
    new_uuid,
    open_account,
    upscale,
)
from tests.server.support.postgresql import PostgreSQL
from tests.server.support.web import Web

Fault = Callable[[EmbeddedServer], AbstractContextManager[None]]


@contextmanager
def locked(server: EmbeddedServer) -> Iterator[None]:
    """Another process holds the database's lock."""
    with other_process(server) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def other_process(server: EmbeddedServer) -> Iterator[sqlite3.Connection]:
    path = server.services.settings.effective_database_url.removeprefix("sqlite:///").partition("?")[0]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        yield other


@contextmanager
def full(server: EmbeddedServer) -> Iterator[None]:
    """The disk has no room for another page of the database."""
    with other_process(server) as other:
        other.execute("VACUUM")  # pages of tables that earlier steps of the migration have dropped are free
    engine = server.services.database._engine
    pages = [1]  # SQLite takes the number that are there instead

    def limit(connection: Connection) -> None:
        connection.connection.cursor().execute(f"PRAGMA max_page_count={pages[0]}")

    event.listen(engine, "begin", limit)
    yield
    pages[0] = 2**30


async def failing(peer: Peer, image: str, host: str) -> Item:
    """The error that tasks get: the first one, as the last pages of a full disk may still hold something."""
    for _ in range(200):
        await peer.send(upscale(image, webhookURL=f"{host}/{'x' * 1500}"))
        item = await peer.receive_item()
        if "code" in item:
            return item
    raise AssertionError("no task failed")


@pytest.mark.parametrize("fault", [locked, full])
async def test_tasks_are_refused_while_the_database_cannot_be_used(
    start_server: StartServer, tmp_path: Any, web: Web, fault: Fault
) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}?timeout=0.5"
    server = start_server(database_url=url, private_networks=True)
    account = open_account(server)
    async with connected(server, key=account.key) as peer:
        upload = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": _data_uri()}
        image = (await peer.ask(upload))[0]["imageUUID"]
        with fault(server):
            error = await failing(peer, image, web.url)
            assert (error["code"], error["retryAfter"]) == ("serviceUnavailable", 5)
            assert "database" in error["message"]
        (result,) = await peer.ask(upscale(image))
        assert "imageURL" in result
    assert server.services.database.snapshot(audit).mistakes == []


async def test_a_task_whose_end_cannot_be_recorded_gets_it_when_the_database_is_back(
    start_server: StartServer, web: Web, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}?timeout=0.5"
    server = start_server(database_url=url, private_networks=True)
    account = open_account(server)
    task = upscale(web.hold("/input.png", make_image()))
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        await web.receive()
        with locked(server):
            web.release("/input.png")
            other = upscale(web.hold("/other.png", make_image()))
            (refused,) = await peer.ask(other)
            assert refused["code"] == "serviceUnavailable"
            running = server.services.runner.find(account.id, task["taskUUID"])
            assert running is not None
            async with asyncio.timeout(PATIENCE):
                while not running.is_recording:  # noqa: ASYNC110 - it is another thread's
                    await asyncio.sleep(0.01)
        error = await peer.receive_item()
        assert (error["taskUUID"], error["code"]) == (task["taskUUID"], "serviceUnavailable")
        (result,) = await peer.ask(task)
        assert "imageURL" in result
    found = server.services.database.snapshot(audit)
    assert (found.charges, found.mistakes) == (1, [])


async def test_a_client_that_cannot_be_authenticated_for_now_is_asked_to_come_again(
    start_server: StartServer, tmp_path: Any
) -> None:
    """Runware's SDK gives up for good at an error here; a connection that ends it makes anew."""
    server = start_server(database_url=f"sqlite:///{tmp_path / 'state.db'}?timeout=0.5")
    async with connected(server, key=None) as peer:
        with locked(server):
            await peer.send({"taskType": "authentication", "apiKey": KEY})
            await peer.socket.wait_closed()
        assert peer.socket.close_code == 1013
    async with connected(server) as peer:
        await peer.nothing_more()


async def test_a_server_survives_the_loss_of_all_its_connections(
    start_server: StartServer, web: Web, postgresql: PostgreSQL
) -> None:
    server = start_server(database_url=postgresql.new_database(), private_networks=True)
    account = open_account(server)
    tasks = [upscale(web.hold(f"/{n}.png", make_image(seed=n))) for n in range(3)]
    async with connected(server, key=account.key) as peer:
        await peer.send(*tasks)
        for _ in tasks:
            await web.receive()
        await asyncio.to_thread(postgresql.disconnect_all)
        for n in range(3):
            web.release(f"/{n}.png")
        for _ in tasks:
            assert "imageURL" in await peer.receive_item()
    found = server.services.database.snapshot(audit)
    assert (found.charges, found.mistakes) == (3, [])


def _data_uri() -> str:
    return f"data:image/png;base64,{base64.b64encode(make_image()).decode()}"


async def test_a_stop_does_not_wait_for_a_database_that_is_away(
    start_server: StartServer, web: Web, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}?timeout=600"
    server = start_server(database_url=url, private_networks=True, drain_timeout=0.1)
    task = upscale(web.hold("/input.png", make_image()))
    async with connected(server) as peer:
        await peer.send(task)
        await web.receive()
        with locked(server):
            web.release("/input.png")
            async with asyncio.timeout(PATIENCE):
                await asyncio.to_thread(server.stop)
    server = start_server(database_url=url, private_networks=True)
    async with connected(server) as peer:
        assert "imageURL" in await peer.finished(task["taskUUID"])
    assert server.services.database.snapshot(audit).mistakes == []
