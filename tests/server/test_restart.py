"""What was accepted is finished, whatever happens to the server in between, and charged once."""

import asyncio
import base64
import signal
from pathlib import Path

import httpcore
import msgspec
import pytest

from server.serving import EmbeddedServer
from server.state import ledger
from server.state.accounts import DEFAULT_ACCOUNT, account_named
from server.state.audit import audit
from server.state.database import Database
from tests.server.conftest import StartServer
from tests.server.harness import (
    Address,
    Item,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    upscale,
)
from tests.server.process import serving
from tests.server.web import Web

pytestmark = pytest.mark.each_database

SHORT = {"drain_timeout": 0.01, "private_networks": True}


async def begin_and_stop(server: EmbeddedServer, web: Web, key: str, session: str, tasks: list[Item]) -> None:
    """Stop the server while the inputs of the tasks are still waited for."""
    async with connected(server, key=key, session=session) as peer:
        await peer.send(*tasks)
        for _ in tasks:
            await web.receive()
        await asyncio.to_thread(server.stop)


def held_tasks(web: Web, count: int, **parameters: object) -> list[Item]:
    return [upscale(web.hold(f"/{n}.png", make_image(seed=n)), **parameters) for n in range(count)]


def release(web: Web, count: int) -> None:
    for number in range(count):
        web.release(f"/{number}.png")


async def test_tasks_that_were_under_way_are_finished_after_the_next_start(
    start_server: StartServer, web: Web
) -> None:
    server, session = start_server(**SHORT), new_uuid()
    account = open_account(server)
    tasks = held_tasks(web, 4, includeCost=True)
    await begin_and_stop(server, web, account.key, session, tasks)
    release(web, 4)
    server = start_server(**SHORT)
    async with connected(server, key=account.key) as peer:
        told = {task["taskUUID"]: await peer.finished(task["taskUUID"]) for task in tasks}
    assert all(item["imageURL"].startswith(server.url) and item["cost"] > 0 for item in told.values())
    async with connected(server, key=account.key, session=session) as peer:
        came = [await peer.receive_item() for _ in tasks]
        await peer.nothing_more()
    assert {item["taskUUID"]: item["imageURL"] for item in came} == {
        uuid: item["imageURL"] for uuid, item in told.items()
    }
    assert charges(server, account.id)[1] == 4


async def test_a_task_sent_again_after_a_restart_is_the_same_task(
    start_server: StartServer, web: Web
) -> None:
    server, session = start_server(**SHORT), new_uuid()
    account = open_account(server)
    (task,) = held_tasks(web, 1)
    await begin_and_stop(server, web, account.key, session, [task])
    server = start_server(**SHORT)
    async with connected(server, key=account.key, session=session) as peer:
        await peer.send(task)
        await peer.nothing_more()
        release(web, 1)
        assert "imageURL" in await peer.receive_item()
        await peer.nothing_more()
    assert charges(server, account.id)[1] == 1


async def test_results_and_replies_survive_a_restart(start_server: StartServer, web: Web) -> None:
    server, session = start_server(**SHORT), new_uuid()
    (task,) = held_tasks(web, 1, outputType="base64Data")
    async with connected(server, session=session) as peer:
        await peer.send(task)
        await web.receive()
        await peer.cut()
    release(web, 1)
    async with connected(server) as other:
        told = await other.finished(task["taskUUID"])
    server.stop()
    server = start_server()
    async with connected(server, session=session) as peer:
        result = await peer.receive_item()
        assert result["imageBase64Data"] == told["imageBase64Data"]
        assert open_image(base64.b64decode(result["imageBase64Data"])).size == (48, 32)


async def test_what_a_stopped_task_had_reserved_is_reserved_once_more_not_twice(
    start_server: StartServer, web: Web
) -> None:
    server, session = start_server(**SHORT), new_uuid()
    account = open_account(server, ledger.to_usd(1_500))
    (task,) = held_tasks(web, 1)
    await begin_and_stop(server, web, account.key, session, [task])
    database = Database(server.services.settings.effective_database_url)
    assert database.run_sync(ledger.reserve, account.id, task["taskUUID"], 1_000, 0.0), "killed a bit later"
    database.close()
    release(web, 1)
    server = start_server(**SHORT)
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in await peer.finished(task["taskUUID"])
    assert charges(server, account.id) == (1_000, 1)
    assert server.services.database.run_sync(ledger.statement, account.id).available == 500


async def test_clients_are_told_that_the_server_goes_away(start_server: StartServer) -> None:
    server = start_server()
    async with connected(server) as peer:
        await asyncio.to_thread(server.stop)
        await peer.socket.wait_closed()
        assert peer.socket.close_code == 1012


async def test_a_stop_waits_for_what_is_nearly_done(start_server: StartServer, web: Web) -> None:
    server, session = start_server(private_networks=True), new_uuid()
    (task,) = held_tasks(web, 1)
    async with connected(server, session=session) as peer:
        await peer.send(task)
        await web.receive()
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        await peer.socket.wait_closed()
        assert not stopping.done()
        release(web, 1)
        await stopping
    server = start_server()
    async with connected(server, session=session) as peer:
        assert "imageURL" in await peer.receive_item()
    assert web.waiting() == 0, "the input was fetched once"


async def test_a_request_that_waits_is_told_that_the_server_stops(
    start_server: StartServer, web: Web
) -> None:
    server = start_server(**SHORT)
    account = open_account(server)
    (task,) = held_tasks(web, 1)
    async with httpcore.AsyncConnectionPool() as pool:
        headers = [("Authorization", f"Bearer {account.key}")]
        body = msgspec.json.encode([task])
        waiting = asyncio.create_task(pool.request("POST", f"{server.url}/v1", headers=headers, content=body))
        await web.receive()
        await asyncio.to_thread(server.stop)
        response = await waiting
    (error,) = msgspec.json.decode(response.content)["errors"]
    assert (response.status, error["taskUUID"]) == (500, task["taskUUID"])
    assert "next start" in error["message"]
    release(web, 1)
    server = start_server(**SHORT)
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in await peer.finished(task["taskUUID"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_in_order(
    tmp_path: Path, model_directory: Path, number: signal.Signals
) -> None:
    with serving(tmp_path, model_directory) as server:
        async with connected(server) as peer:
            await peer.nothing_more()
            server.process.send_signal(number)
            await peer.socket.wait_closed()
            assert peer.socket.close_code == 1012
        status, errors = await asyncio.to_thread(server.ended)
    assert status == 0
    assert "Traceback" not in errors
    assert "Error" not in errors


async def test_a_killed_server_finishes_what_it_accepted_after_the_next_start(
    tmp_path: Path, model_directory: Path, web: Web, server_database: str | None
) -> None:
    session = new_uuid()
    tasks = held_tasks(web, 5, deliveryMethod="async")
    quick = upscale(base64.b64encode(make_image(seed=9)).decode())
    url = server_database or f"sqlite:///{tmp_path / 'tilewire.db'}"
    more = {
        "TILEWIRE_PRIVATE_NETWORKS": "true",
        "TILEWIRE_ACKNOWLEDGE_AFTER": "0.01",
        "TILEWIRE_DATABASE_URL": url,
    }
    with serving(tmp_path, model_directory, **more) as server:
        async with connected(server, session=session) as peer:
            await peer.send(*tasks)
            acknowledged = {(await peer.receive_item())["taskUUID"] for _ in tasks}
            assert acknowledged == {task["taskUUID"] for task in tasks}
            async with connected(server) as other:
                assert "imageURL" in (await other.ask(quick))[0]
            server.process.kill()
            await asyncio.to_thread(server.ended)
    release(web, 5)
    with serving(tmp_path, model_directory, **more) as server:
        await _all_are_answered(server, session, tasks)
        server.process.terminate()
        status, errors = await asyncio.to_thread(server.ended)
        assert (status, "Traceback" in errors) == (0, False)
    database = Database(url)
    account = database.run_sync(account_named, DEFAULT_ACCOUNT, 0.0)
    assert database.run_sync(ledger.spent, account) == (6 * 1_000, 6)
    assert database.snapshot(audit).mistakes == []
    database.close()


async def _all_are_answered(server: Address, session: str, tasks: list[Item]) -> None:
    async with connected(server) as peer:
        for task in tasks:
            assert "imageURL" in await peer.finished(task["taskUUID"])
    async with connected(server, session=session) as peer:
        came = [await peer.receive_item() for _ in tasks]
        assert {item["taskUUID"] for item in came} == {task["taskUUID"] for task in tasks}
        assert all("imageURL" in item for item in came)
        await peer.nothing_more()
