"""What was accepted is finished, whatever happens to the server in between, and charged once."""

import asyncio
import base64
import signal
from pathlib import Path

import httpcore
import msgspec
import pytest
from sqlalchemy import select, update
from websockets.exceptions import InvalidHandshake

from server.money import to_usd
from server.serving import EmbeddedServer
from server.state import ledger
from server.state import tasks as recorded
from server.state.accounts import DEFAULT_ACCOUNT, account_named
from server.state.audit import audit
from server.state.database import Database
from server.state.outbox import undelivered
from server.state.tables import outbox, tasks
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    Address,
    Item,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    until,
    upscale,
)
from tests.server.support.process import serving
from tests.server.support.records import attempt_of
from tests.server.support.web import Web

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


async def finish_while_away(
    server: EmbeddedServer, web: Web, key: str, session: str, order: tuple[int, ...]
) -> list[str]:
    """Have tasks end in an order, with nobody there to be told; their UUIDs in that order."""
    tasks = held_tasks(web, len(order))
    async with connected(server, key=key, session=session) as peer:
        await peer.send(*tasks)
        for _ in tasks:
            await web.receive()
        await peer.cut()
    async with connected(server, key=key) as other:
        for number in order:
            web.release(f"/{number}.png")
            await other.finished(tasks[number]["taskUUID"])
    return [tasks[number]["taskUUID"] for number in order]


async def test_after_a_restart_missed_replies_come_in_order_once_and_to_their_account_only(
    start_server: StartServer, web: Web
) -> None:
    server, session = start_server(**SHORT), new_uuid()
    account, stranger = open_account(server), open_account(server)
    order = await finish_while_away(server, web, account.key, session, (2, 0, 1))
    server.stop()
    server = start_server(**SHORT)
    async with connected(server, key=stranger.key, session=session) as peer:
        await peer.nothing_more()
    async with connected(server, key=account.key, session=session) as peer:
        assert [(await peer.receive_item())["taskUUID"] for _ in order] == order
        await peer.nothing_more()
    async with connected(server, key=account.key, session=session) as peer:
        await peer.nothing_more()


async def test_replies_that_nobody_came_for_in_time_are_dropped_results_are_kept(
    start_server: StartServer, web: Web
) -> None:
    server, session = start_server(**SHORT), new_uuid()
    account = open_account(server)
    (old, recent) = await finish_while_away(server, web, account.key, session, (0, 1))
    server.stop()
    database = Database(server.services.settings.effective_database_url)
    database.run_sync(
        lambda connection: connection.execute(
            update(outbox).where(outbox.c.task_uuid == old).values(created=outbox.c.created - 1_000)
        )
    )
    database.close()
    server = start_server(**SHORT, undelivered_ttl=900)

    async def swept() -> bool:
        left = await asyncio.to_thread(server.services.database.run_sync, undelivered, account.id, session)
        return [reply.task_uuid for reply in left] == [recent]

    await until(swept)
    async with connected(server, key=account.key, session=session) as peer:
        assert (await peer.receive_item())["taskUUID"] == recent
        await peer.nothing_more()
        assert "imageURL" in await peer.finished(old), "whoever asks still gets the result"


async def test_a_task_that_failed_long_ago_is_forgotten(start_server: StartServer, web: Web) -> None:
    server = start_server(**SHORT)
    old, recent = upscale(f"{web.url}/old.png"), upscale(f"{web.url}/recent.png")
    async with connected(server) as peer:
        for error in await peer.ask(old, recent):
            assert error["code"] == "downloadFailed"

        async def is_known_to_have_arrived() -> bool:
            return not server.services.database.run_sync(lambda connection: connection.execute(waiting).all())

        waiting = select(outbox.c.id)  # an error that its session may not have is not forgotten
        await until(is_known_to_have_arrived)
    server.stop()
    database = Database(server.services.settings.effective_database_url)
    long_ago = update(tasks).where(tasks.c.task_uuid == old["taskUUID"]).values(finished=1.0)
    database.run_sync(lambda connection: connection.execute(long_ago))
    database.close()
    server = start_server(**SHORT)
    async with connected(server) as peer:

        async def is_forgotten() -> bool:
            return bool((await peer.finished(old["taskUUID"]))["code"] == "taskNotFound")

        await until(is_forgotten)
        assert (await peer.finished(recent["taskUUID"]))["code"] == "downloadFailed"


async def test_what_a_stopped_task_had_reserved_is_reserved_once_more_not_twice(
    start_server: StartServer, web: Web
) -> None:
    server, session = start_server(**SHORT), new_uuid()
    account = open_account(server, to_usd(1_500))
    (task,) = held_tasks(web, 1)
    await begin_and_stop(server, web, account.key, session, [task])
    database = Database(server.services.settings.effective_database_url)
    attempt = attempt_of(database, account.id, task["taskUUID"])
    assert database.run_sync(recorded.reserve, attempt, 1_000, 0.0), "killed a bit later"
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


async def test_a_stop_waits_for_what_is_nearly_done_and_tells_it(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True)
    (task,) = held_tasks(web, 1)
    async with connected(server) as peer:
        await peer.send(task)
        await web.receive()
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        await until(lambda: refuses_connections(server))
        assert not stopping.done()
        release(web, 1)
        assert "imageURL" in await peer.receive_item()
        await peer.socket.wait_closed()
        assert peer.socket.close_code == 1012
        await stopping


async def test_what_is_sent_during_a_stop_is_accepted_and_runs_after_the_next_start(
    start_server: StartServer, web: Web
) -> None:
    server, session = start_server(private_networks=True), new_uuid()
    (task,) = held_tasks(web, 1)
    late = upscale(base64.b64encode(make_image(seed=9)).decode())
    async with connected(server, session=session) as peer:
        await peer.send(task)
        await web.receive()
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        await until(lambda: refuses_connections(server))
        await peer.send(late)

        async def accepted() -> bool:
            await peer.send({"taskType": "getResponse", "taskUUID": late["taskUUID"]})
            return (await peer.receive_item()).get("status") == "processing"

        await until(accepted)
        release(web, 1)
        assert (await peer.receive_item())["taskUUID"] == task["taskUUID"]
        await peer.socket.wait_closed()
        await stopping
    server = start_server()
    async with connected(server, session=session) as peer:
        result = await peer.receive_item()
        assert (result["taskUUID"], "imageURL" in result) == (late["taskUUID"], True)
        await peer.nothing_more()


async def test_a_load_balancer_is_told_of_a_stop_on_connections_that_are_open(
    start_server: StartServer, web: Web
) -> None:
    server = start_server(private_networks=True)
    (task,) = held_tasks(web, 1)
    async with httpcore.AsyncConnectionPool(max_connections=1) as pool, connected(server) as peer:
        assert (await pool.request("GET", f"{server.url}/readyz")).status == 200
        await peer.send(task)
        await web.receive()
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        await until(lambda: refuses_connections(server))
        response = await pool.request("GET", f"{server.url}/readyz")
        assert (response.status, response.content) == (503, b"the server is stopping\n")
        release(web, 1)
        await stopping


async def refuses_connections(server: Address) -> bool:
    try:
        async with connected(server, key=None):
            return False
    except (OSError, InvalidHandshake):  # it may have been let in, and is not listened to
        return True


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
    assert (response.status, error["taskUUID"]) == (503, task["taskUUID"])
    assert (error["code"], error["retryAfter"]) == ("serviceUnavailable", 10)
    assert "next start" in error["message"]
    release(web, 1)
    server = start_server(**SHORT)
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in await peer.finished(task["taskUUID"])


async def test_ctrl_c_ends_the_process_in_order(tmp_path: Path, model_directory: Path) -> None:
    with serving(tmp_path, model_directory) as server:
        async with connected(server) as peer:
            await peer.nothing_more()
            server.process.send_signal(signal.SIGINT)
            await peer.socket.wait_closed()
            assert peer.socket.close_code == 1012
        status, errors = await asyncio.to_thread(server.ended)
    assert status == 0
    assert "Traceback" not in errors
    assert "Error" not in errors


async def test_a_second_signal_ends_the_process_at_once_and_nothing_is_lost(
    tmp_path: Path, model_directory: Path, web: Web
) -> None:
    session = new_uuid()
    (task,) = held_tasks(web, 1)
    more = {"TILEWIRE_PRIVATE_NETWORKS": "true", "TILEWIRE_DRAIN_TIMEOUT": "600"}
    with serving(tmp_path, model_directory, **more) as server:
        async with connected(server, session=session) as peer:
            await peer.send(task)
            await web.receive()
            server.process.send_signal(signal.SIGTERM)
            await until(lambda: refuses_connections(server))
            assert server.process.poll() is None, "it waits for the task"
            server.process.send_signal(signal.SIGINT)
            status, errors = await asyncio.to_thread(server.ended)
    assert status == -signal.SIGINT
    assert "Traceback" not in errors
    release(web, 1)
    with serving(tmp_path, model_directory, **more) as server:
        await _all_are_answered(server, session, [task])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_lets_a_task_finish_that_is_under_way(
    tmp_path: Path, model_directory: Path, web: Web, number: signal.Signals
) -> None:
    (task,) = held_tasks(web, 1)
    with serving(tmp_path, model_directory, TILEWIRE_PRIVATE_NETWORKS="true") as server:
        async with connected(server) as peer:
            await peer.send(task)
            await web.receive()
            server.process.send_signal(number)
            await until(lambda: refuses_connections(server))
            release(web, 1)
            assert "imageURL" in await peer.receive_item()
            await peer.socket.wait_closed()
            assert peer.socket.close_code == 1012
        status, errors = await asyncio.to_thread(server.ended)
    assert (status, "Traceback" in errors) == (0, False)


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
