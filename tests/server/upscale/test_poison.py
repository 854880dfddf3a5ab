"""Whatever error a task meets, it ends, and nothing of others waits for it."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import DataError

from server.serving import EmbeddedServer
from server.state import ledger, tasks
from server.state.audit import audit
from server.state.records import Attempt
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    until,
    upscale,
)
from tests.server.support.records import accepted, record_of
from tests.server.support.web import Web

pytestmark = pytest.mark.each_database


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a function of a module fail, as one that the database refuses, a number of times."""

    def fail(module: Any, name: str, times: int) -> None:
        real, left = getattr(module, name), [times]

        def call(*arguments: Any, **more: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise DataError("INSERT", {}, Exception("what the database takes amiss"))
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, call)

    return fail


def image() -> str:
    return base64.b64encode(make_image()).decode()


@pytest.mark.parametrize(
    ("module", "name", "times"),
    [(ledger, "charge", 1), (tasks, "record_webhook", 10_000), (tasks, "keep_outcome", 3)],
    ids=["the charge", "the webhook", "all of the outcome, until it is tried again"],
)
async def test_a_task_whose_outcome_cannot_be_recorded_fails(
    start_server: StartServer,
    fail_at: Callable[..., None],
    web: Web,
    module: Any,
    name: str,
    times: int,
) -> None:
    server = start_server(private_networks=True)
    account = open_account(server)
    task = upscale(image(), webhookURL=f"{web.url}/hook")
    fail_at(module, name, times)
    async with connected(server, key=account.key) as peer:
        (error,) = await peer.ask(task)
        assert error["code"] == "internalServerError"
        await until(lambda: server.services.runner.count == 0)
        assert "imageURL" in (await peer.ask(upscale(image())))[0]
    assert charges(server, account.id)[1] == 1
    assert server.services.database.snapshot(audit).mistakes == []


async def test_a_request_that_this_version_cannot_read_fails_alone(
    start_server: StartServer, web: Web
) -> None:
    server = start_server(private_networks=True, drain_timeout=0.01)
    account = open_account(server)
    held = upscale(web.hold("/input.png", make_image()))
    async with connected(server, key=account.key) as peer:
        await peer.send(held)
        await web.receive()
    await asyncio.to_thread(server.stop)
    database = server.services.database.__class__(server.services.settings.effective_database_url)
    unread = accepted(database, account.id, 0.0, request=b'{"task_type":"upscale","from_a_newer":1}')
    database.close()
    web.release("/input.png")
    server = start_server(private_networks=True)
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in await peer.finished(held["taskUUID"])
        assert (await peer.finished(unread.task_uuid))["code"] == "internalServerError"
        cancel = {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": unread.task_uuid}
        assert (await peer.ask(cancel))[0]["code"] == "taskNotFound"


async def test_a_task_that_another_version_accepted_can_be_cancelled(server: EmbeddedServer) -> None:
    account, database = open_account(server), server.services.database
    attempt = Attempt.of(account.id, new_uuid())

    def accept_and_cancel(connection: Any) -> None:
        now = server.services.clock()
        tasks.accept(connection, attempt, b"{}", None, now)
        assert tasks.cancel(connection, account.id, attempt.task_uuid, "http://us", now) is not None

    database.run_sync(accept_and_cancel)
    error = record_of(database, account.id, attempt.task_uuid).error
    assert error is not None
    assert (error.code, error.task_uuid) == ("taskCancelled", attempt.task_uuid)
