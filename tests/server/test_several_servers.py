"""Several servers on one database: each task is run by one of them, whichever of them is left."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpcore
import msgspec
import pytest

from server.serving import EmbeddedServer
from server.state.audit import audit
from server.state.database import Database
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    Account,
    Item,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    request,
    until,
    upscale,
)
from tests.server.support.nginx import is_installed, running_nginx
from tests.server.support.process import serving
from tests.server.support.web import Web

pytestmark = pytest.mark.each_database

PRIVATE = {"private_networks": True}


def nothing_is_wrong(server: EmbeddedServer) -> bool:
    return server.services.database.snapshot(audit).mistakes == []


async def begin(server: EmbeddedServer, web: Web, account: Account, session: str) -> Item:
    """A task that is under way at a server, and waits for its input; its client is gone."""
    task = upscale(web.hold("/input.png", make_image()))
    async with connected(server, key=account.key, session=session) as peer:
        await peer.send(task)
        await web.receive()
        await peer.cut()
    return task


async def test_the_task_of_a_killed_server_is_answered_by_another_and_charged_once(
    tmp_path: Path, model_directory: Path, web: Web, server_database: str | None
) -> None:
    session = new_uuid()
    task = upscale(web.hold("/input.png", make_image()), includeCost=True)
    url = server_database or f"sqlite:///{tmp_path / 'tilewire.db'}"
    more = {"TILEWIRE_PRIVATE_NETWORKS": "true", "TILEWIRE_DATABASE_URL": url}
    with (
        serving(tmp_path, model_directory, **more) as first,
        serving(tmp_path, model_directory, **more) as second,
    ):
        async with connected(first, session=session) as peer:
            await peer.send(task)
            await web.receive()
            first.process.kill()
            await asyncio.to_thread(first.ended)
        async with connected(second, session=session) as peer:
            await web.receive()  # the second one fetches the input again
            web.release("/input.png")
            result = await peer.receive_item()
            assert (result["taskUUID"], result["cost"]) == (task["taskUUID"], 0.000001)
            await peer.nothing_more()
        second.process.terminate()
        status, errors = await asyncio.to_thread(second.ended)
        assert (status, "Traceback" in errors) == (0, False)
    database = Database(url)
    found = database.snapshot(audit)
    assert (found.charges, found.mistakes) == (1, [])
    database.close()


class Through(NamedTuple):
    """A server's address behind a proxy."""

    url: str


@pytest.mark.skipif(not is_installed(), reason="nginx is not installed")
async def test_behind_nginx_a_client_loses_nothing_when_its_server_is_killed(
    tmp_path: Path, model_directory: Path, web: Web, server_database: str | None
) -> None:
    session, task = new_uuid(), upscale(web.hold("/input.png", make_image()))
    url = server_database or f"sqlite:///{tmp_path / 'tilewire.db'}"
    more = {
        "TILEWIRE_PRIVATE_NETWORKS": "true",
        "TILEWIRE_DATABASE_URL": url,
        "TILEWIRE_TRUSTED_PROXIES": "127.0.0.1",
    }
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(tmp_path, model_directory, **more)) for _ in range(2)]
        urls = [server.url for server in servers]
        (tmp_path / "nginx").mkdir()
        proxy = Through(stack.enter_context(running_nginx(tmp_path / "nginx", urls)))
        await until(lambda: answers(proxy.url))
        assert (await request(f"{proxy.url}/metrics")).status == 404
        async with connected(proxy, session=session) as peer:
            await peer.send(task)
            await web.receive()
            (busy,) = [server for server in servers if b"task accepted" in server.logged()]
            busy.process.kill()
            await peer.socket.wait_closed()
        async with connected(proxy, session=session) as peer:  # nginx passes the dead one over
            await web.receive()
            web.release("/input.png")
            result = await peer.receive_item()
            assert result["imageURL"].startswith(f"{proxy.url}/images/")
            assert (await request(result["imageURL"])).status == 200
            await peer.nothing_more()


async def answers(url: str) -> bool:
    try:
        return (await request(f"{url}/readyz")).status == 200
    except httpcore.ConnectError:
        return False


async def test_a_second_server_leaves_the_tasks_of_the_first_alone(
    start_server: StartServer, web: Web
) -> None:
    first, session = start_server(**PRIVATE), new_uuid()
    account = open_account(first)
    await begin(first, web, account, session)
    second = start_server(**PRIVATE)
    assert await second.services.runner.reconcile(second.url) == 0
    web.release("/input.png")
    async with connected(first, key=account.key, session=session) as peer:
        assert "imageURL" in await peer.receive_item()
    assert web.waiting() == 0, "the input was fetched once"
    assert charges(first, account.id)[1] == 1
    assert nothing_is_wrong(first)


async def test_a_client_gets_the_answer_of_one_server_at_another(start_server: StartServer, web: Web) -> None:
    first, second, session = start_server(**PRIVATE), start_server(**PRIVATE), new_uuid()
    account = open_account(first)
    task = await begin(first, web, account, session)
    async with connected(second, key=account.key, session=session) as peer:
        await peer.send({"taskType": "getResponse", "taskUUID": task["taskUUID"]})
        assert (await peer.receive_item())["status"] == "processing"
        web.release("/input.png")
        result = await peer.receive_item()
        assert result["imageURL"].startswith(second.url)
        await peer.nothing_more()


async def test_a_task_sent_again_to_another_server_is_the_same_task(
    start_server: StartServer, web: Web
) -> None:
    first, second, session = start_server(**PRIVATE), start_server(**PRIVATE), new_uuid()
    account = open_account(first)
    task = await begin(first, web, account, session)
    async with connected(second, key=account.key) as peer, httpcore.AsyncConnectionPool() as pool:
        await peer.send(task)
        headers = [("Authorization", f"Bearer {account.key}")]
        body = msgspec.json.encode([task])
        posted = asyncio.create_task(pool.request("POST", f"{second.url}/v1", headers=headers, content=body))
        await peer.nothing_more()
        web.release("/input.png")
        assert "imageURL" in await peer.receive_item()
        (item,) = msgspec.json.decode((await posted).content)["data"]
        assert item["taskUUID"] == task["taskUUID"]
    assert web.waiting() == 0
    assert charges(first, account.id)[1] == 1


async def test_a_task_is_cancelled_at_another_server_and_costs_nothing(
    start_server: StartServer, web: Web
) -> None:
    first, second, session = start_server(**PRIVATE), start_server(**PRIVATE), new_uuid()
    account = open_account(first)
    task = await begin(first, web, account, session)
    cancel = {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": task["taskUUID"]}
    async with connected(second, key=account.key, session=session) as peer:
        await peer.send(cancel)
        items = {item["taskUUID"]: item for item in (await peer.receive_item(), await peer.receive_item())}
        assert items[cancel["taskUUID"]]["status"] == "cancelled"
        assert items[task["taskUUID"]]["code"] == "taskCancelled"
        (again,) = await peer.ask(cancel | {"taskUUID": new_uuid()})
        assert again["code"] == "taskNotFound"
    web.release("/input.png")
    await asyncio.to_thread(first.stop)
    assert charges(second, account.id) == (0, 0)
    assert nothing_is_wrong(second)
