"""The network between the server and its database, or its object store, fails; nothing is charged twice."""

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

from server.protocol.errors import DatabaseUnavailableError
from server.state.audit import audit
from tests.server.conftest import StartServer
from tests.server.crash import SETTINGS, SOME_TASKS, judge, run_of, work_through
from tests.server.harness import connected, open_account, upscale
from tests.server.network import Connect, Faults, Network, running_network, to_socket
from tests.server.postgresql import PostgreSQL
from tests.server.web import Web

pytestmark = pytest.mark.usefixtures("pictures")

SEED = 7


def server_of(url: str) -> Connect:
    """The PostgreSQL server of a database."""
    return to_socket(f"{make_url(url).query['host']}/.s.PGSQL.5432")


def through(network: Network, url: str) -> str:
    """The database's URL, by way of the network."""
    changed = make_url(url).set(host="127.0.0.1", port=network.port, query={})
    return changed.render_as_string(hide_password=False)


async def test_connections_to_the_database_that_are_cut_lose_nothing_and_charge_nothing_twice(
    start_server: StartServer, postgresql: PostgreSQL, tmp_path: Path, web: Web
) -> None:
    url = postgresql.new_database()
    with running_network(server_of(url), SEED) as network:
        server = start_server(**SETTINGS, database_url=through(network, url))
        network.faults = Faults(cut_within=30_000)
        network.cut_all()
        run = run_of([server.url], web, SEED, database_url=url, data=tmp_path)
        await work_through(run, network)
        report = await judge(run, server.url)
        server.stop()
    assert report.accepted >= SOME_TASKS
    assert network.cuts > 5


async def test_a_silent_database_is_given_up_after_a_while_and_used_again_when_it_speaks(
    start_server: StartServer, postgresql: PostgreSQL, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.state.postgresql._PATIENCE", 0.5)
    url = postgresql.new_database()
    with running_network(server_of(url), SEED) as network:
        server = start_server(**SETTINGS, database_url=through(network, url))
        account = open_account(server)
        task = upscale(f"{web.url}/0.png")
        async with connected(server, key=account.key) as peer:
            assert "imageURL" in (await peer.ask(upscale(f"{web.url}/0.png")))[0]
            network.silent = True
            began = time.monotonic()
            (refused,) = await peer.ask(task)
            assert refused["code"] == "serviceUnavailable"
            assert time.monotonic() - began < 20
            network.silent = False
            while (result := (await peer.ask(task))[0]).get("code") == "serviceUnavailable":
                await asyncio.sleep(0.1)
            assert "imageURL" in result
        found = server.services.database.snapshot(audit)
        assert (found.charges, found.mistakes) == (2, [])
        server.stop()


async def test_a_task_that_was_refused_and_recorded_all_the_same_is_withdrawn(
    start_server: StartServer, postgresql: PostgreSQL, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to COMMIT is lost."""
    server = start_server(**SETTINGS, database_url=postgresql.new_database())
    account, task = open_account(server), upscale(f"{web.url}/0.png")
    database = server.services.database
    run = database.run

    async def lose_one_answer(function, *arguments):  # type: ignore[no-untyped-def]
        answer = await run(function, *arguments)
        if function.__name__ == "accept":
            monkeypatch.setattr(database, "run", run)
            raise DatabaseUnavailableError
        return answer

    monkeypatch.setattr(database, "run", lose_one_answer)
    async with connected(server, key=account.key) as peer:
        (refused,) = await peer.ask(task)
        assert refused["code"] == "serviceUnavailable"
        await server_loop(server, server.services.runner.take_over)
        await peer.send({"taskType": "getResponse", "taskUUID": task["taskUUID"]})
        assert (await peer.receive_item())["code"] == "taskNotFound"
        assert "imageURL" in (await peer.ask(task))[0]
    found = database.snapshot(audit)
    assert (found.charges, found.mistakes) == (1, [])
