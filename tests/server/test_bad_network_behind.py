"""The network between the server and its database, or its object store, fails; nothing is charged twice."""

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from inspect import unwrap
from pathlib import Path
from typing import Any

import httpcore
import msgspec
import pytest
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DBAPIError

from server.protocol.errors import DatabaseUnavailableError
from server.serving import EmbeddedServer
from server.state import ledger, tasks
from server.state import postgresql as postgresql_connections
from server.state.accounts import account_named
from server.state.audit import audit
from server.state.database import Database
from server.state.records import Attempt
from server.state.takeover import take_over
from tests.server.conftest import StartServer
from tests.server.support.crash import SETTINGS, SOME_TASKS, judge, run_of, work_through
from tests.server.support.customers import PICTURES
from tests.server.support.harness import (
    PATIENCE,
    Item,
    Peer,
    connected,
    make_image,
    new_uuid,
    open_account,
    until,
    upscale,
)
from tests.server.support.network import Connect, Faults, Network, running_network, to_socket, to_url
from tests.server.support.postgresql import PostgreSQL
from tests.server.support.records import accepted
from tests.server.support.s3 import BUCKET, running_s3
from tests.server.support.web import Web

pytestmark = pytest.mark.usefixtures("pictures")


@pytest.fixture(autouse=True)
def _looks_for_webhooks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where claims were left behind by a database that failed."""
    monkeypatch.setattr("server.delivery.webhooks._LOOK_EVERY", 0.5)


def server_of(url: str) -> Connect:
    """The PostgreSQL server of a database."""
    return to_socket(f"{make_url(url).query['host']}/.s.PGSQL.5432")


def through(network: Network, url: str) -> str:
    """The database's URL, by way of the network."""
    changed = make_url(url).set(host="127.0.0.1", port=network.port, query={})
    return changed.render_as_string(hide_password=False)


async def test_connections_to_the_database_that_are_cut_lose_nothing_and_charge_nothing_twice(
    start_server: StartServer, postgresql: PostgreSQL, tmp_path: Path, web: Web, seed: int
) -> None:
    url = postgresql.new_database()
    with running_network(server_of(url), seed) as network:
        server = start_server(**SETTINGS, database_url=through(network, url))
        network.faults = Faults(cut_within=30_000)
        network.cut_all()
        run = run_of([server.url], web, seed, database_url=url, data=tmp_path)
        await work_through(run, network)
        report = await judge(run, server.url)
        server.stop()
    assert report.accepted >= SOME_TASKS // 4  # what cannot be paid leaves no record
    assert network.cuts > 5


async def test_a_silent_database_is_given_up_after_a_while_and_used_again_when_it_speaks(
    start_server: StartServer, postgresql: PostgreSQL, web: Web, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    url = postgresql.new_database()
    with running_network(server_of(url), seed) as network:
        server = start_server(**SETTINGS, database_url=through(network, url))
        account = open_account(server)
        task = upscale(f"{web.url}/0.png")
        async with connected(server, key=account.key) as peer:

            async def is_done() -> bool:
                return "imageURL" in await told_of(peer, task)

            with monkeypatch.context() as patch:
                patch.setattr(server.services.database._patience, "_seconds", 1.0)
                patch.setitem(postgresql_connections._CONNECT, "connect_timeout", 2)
                network.silent = True
                assert (await told_of(peer, task))["code"] == "serviceUnavailable"
                network.silent = False
                await until(is_done)
        found = server.services.database.snapshot(audit)
        assert (found.charges, found.mistakes) == (1, [])
        server.stop()


async def test_a_silent_database_answers_in_time_however_much_waits_for_it(
    start_server: StartServer, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    url = postgresql.new_database()
    with running_network(server_of(url), seed) as network:
        server = start_server(**SETTINGS, database_url=through(network, url))
        account = open_account(server)
        headers = [("Authorization", f"Bearer {account.key}")]
        body = msgspec.json.encode([upscale(make_image())])
        with monkeypatch.context() as patch:
            patch.setattr("server.state.database._ANSWER_WITHIN", 1.0)
            # Each statement would wait for ever.
            patch.setattr(server.services.database._patience, "_seconds", 10 * PATIENCE)
            patch.setitem(postgresql_connections._CONNECT, "connect_timeout", round(10 * PATIENCE))
            network.silent = True
            async with httpcore.AsyncConnectionPool() as pool, asyncio.timeout(PATIENCE):
                post = partial(pool.request, "POST", f"{server.url}/v1", headers=headers, content=body)
                answers = await asyncio.gather(*(post() for _ in range(30)))
            assert {answer.status for answer in answers} == {503}
            network.silent = False
            network.cut_all()
        server.stop()


async def test_a_stop_does_not_wait_for_a_database_that_fell_silent(
    start_server: StartServer, postgresql: PostgreSQL, web: Web, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    url = postgresql.new_database()
    with running_network(server_of(url), seed) as network:
        server = start_server(**SETTINGS, database_url=through(network, url), drain_timeout=0.1)
        async with connected(server) as peer:
            await peer.send(upscale(web.hold("/held.png", make_image())))
            await web.receive()
            monkeypatch.setattr(server.services.database._patience, "_seconds", 10 * PATIENCE)
            network.silent = True
            web.release("/held.png")
            async with asyncio.timeout(PATIENCE):
                await asyncio.to_thread(server.stop)
        network.silent = False


async def told_of(peer: Peer, task: Item) -> Item:
    """Send a task; the answer to it."""
    await peer.send(task)
    while True:
        item = await peer.receive_item()
        if item["taskUUID"] == task["taskUUID"]:
            return item


def test_locks_of_a_client_that_fell_silent_are_given_up(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("server.state.postgresql._SET", "SET idle_in_transaction_session_timeout = '1s'")
    url = postgresql.new_database()
    with (
        running_network(server_of(url), seed) as network,
        closing(Database(through(network, url))) as silent,
        closing(Database(url)) as other,
    ):
        account = other.run_sync(account_named, "ada", 0.0, balance=1000)

        def fall_silent(connection: Connection) -> None:
            ledger.deposit(connection, account, 1, 0.0)
            network.silent = True
            other.run_sync(ledger.deposit, account, 10, 0.0)  # waits for the lock that this transaction has
            network.silent = False

        with pytest.raises(DBAPIError):
            silent.run_sync(fall_silent)
        assert other.run_sync(ledger.statement, account).available == 1010
        assert silent.run_sync(ledger.statement, account).available == 1010
        assert other.snapshot(audit).mistakes == []


@pytest.mark.parametrize("recorded_by", [tasks.accept, tasks.accept_with_inputs])
async def test_a_task_that_was_refused_and_recorded_all_the_same_is_withdrawn(
    start_server: StartServer, web: Web, monkeypatch: pytest.MonkeyPatch, recorded_by: Callable[..., Any]
) -> None:
    server = start_server(**SETTINGS)
    inline = base64.b64encode(PICTURES[0]).decode()
    image = inline if recorded_by is tasks.accept_with_inputs else f"{web.url}/0.png"
    account, task = open_account(server), upscale(image)
    with losing_the_answer(server, recorded_by, monkeypatch):
        async with connected(server, key=account.key) as peer:
            assert (await told_of(peer, task))["code"] == "serviceUnavailable"

    database = server.services.database
    await until(lambda: database.run_sync(tasks.find, account.id, task["taskUUID"]) is None)
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in await told_of(peer, task)
    found = database.snapshot(audit)
    assert (found.charges, found.mistakes) == (1, [])


async def test_a_refused_task_that_is_recorded_while_the_server_looks_for_others_is_not_begun(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(**SETTINGS)
    runner, account = server.services.runner, open_account(server)
    task = upscale(base64.b64encode(PICTURES[0]).decode())
    database, late = server.services.database, Attempt.of(account.id, new_uuid())
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in await told_of(peer, task)
    record = database.run_sync(tasks.find, account.id, task["taskUUID"])
    assert record is not None
    withdraw, looks = runner._withdraw, 0

    async def record_late() -> None:
        nonlocal looks
        await withdraw()
        if not looks:
            request, owner = record.encoded_request, runner._lock.server
            await database.run(tasks.accept, late, request, None, 0.0, owner)
            runner._in_doubt[late] = time.monotonic()
        looks += 1

    monkeypatch.setattr(runner, "_withdraw", record_late)
    await until(lambda: looks > 1)
    assert database.run_sync(tasks.find, account.id, late.task_uuid) is None
    found = database.snapshot(audit)
    assert (found.charges, found.mistakes) == (1, [])


async def test_a_task_that_was_taken_over_without_the_server_being_told_is_run(
    start_server: StartServer, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(**SETTINGS)
    account, done, orphan = open_account(server), upscale(f"{web.url}/0.png"), new_uuid()
    database = server.services.database
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in await told_of(peer, done)
        record = database.run_sync(tasks.find, account.id, done["taskUUID"])
        assert record is not None
        with losing_the_answer(server, take_over, monkeypatch) as lost:
            accepted(database, account.id, 0.0, task=orphan, request=record.encoded_request)
            assert await asyncio.to_thread(lost.wait, PATIENCE)
        assert "imageURL" in await peer.finished(orphan)
    found = database.snapshot(audit)
    assert (found.charges, found.mistakes) == (2, [])


@contextmanager
def losing_the_answer(
    server: EmbeddedServer, function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[threading.Event]:
    """The connection fails just after a transaction of this function was committed; tells when it did."""
    database, lost = server.services.database, threading.Event()
    run = database.run

    async def lose(called: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        answer = await run(called, *arguments, **more)
        if unwrap(getattr(called, "func", called)) is function and not lost.is_set() and answer != 0:
            lost.set()
            raise DatabaseUnavailableError
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(database, "run", lose)
        yield lost


async def test_connections_to_the_object_store_that_are_cut_lose_no_image_and_charge_nothing_twice(
    start_server: StartServer, tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    storage = f"s3://{BUCKET}/images"
    with running_s3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        with running_network(to_url(s3.url), seed) as network:
            monkeypatch.setenv("AWS_ENDPOINT_URL", network.url)
            server = start_server(**SETTINGS, storage_url=storage)
            network.faults = Faults(cut_within=15_000)
            network.cut_all()
            url = server.services.settings.effective_database_url
            run = run_of([server.url], web, seed, database_url=url, data=tmp_path, storage_url=storage)
            await work_through(run, network)
            report = await judge(run, server.url)
            server.stop()
    assert report.accepted >= SOME_TASKS // 4  # what cannot be paid leaves no record
    assert network.cuts > 5
