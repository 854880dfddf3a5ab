"""`accountManagement`: what an account may know about itself."""

import base64
import time
from datetime import datetime
from decimal import Decimal

import pytest
from sqlalchemy import Connection

from server.serving import EmbeddedServer
from server.state import tasks
from server.state.accounts import create_key, revoke_key
from server.state.records import Attempt, StoredResult
from tests.server.support.harness import (
    KEY,
    Account,
    Item,
    connected,
    make_image,
    new_uuid,
    open_account,
    upscale,
)

pytestmark = pytest.mark.each_database

DAY = 86400


async def details(server: EmbeddedServer, key: str = KEY) -> Item:
    async with connected(server, key=key) as peer:
        task = {"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "getDetails"}
        return (await peer.ask(task))[0]


def charge(server: EmbeddedServer, account: Account, amount: int, when: float) -> None:
    attempt = Attempt.of(account.id, new_uuid())
    result = StoredResult(image_uuid="i", image_name="i.png", input_image_uuid="j")

    def charged(connection: Connection) -> None:  # at once: the server would take over a task that waits
        tasks.accept(connection, attempt, b"{}", None, when)
        assert tasks.reserve(connection, attempt, amount, when)
        tasks.succeed(connection, attempt, result, when)

    server.services.database.run_sync(charged)


async def test_the_balance_is_what_can_still_be_spent(server: EmbeddedServer) -> None:
    account = open_account(server, Decimal("12.5"))
    told = await details(server, account.key)
    assert (told["operation"], told["organizationUUID"]) == ("getDetails", account.id)
    assert told["balance"] == {"amount": 12.5, "currency": "USD"}
    async with connected(server, key=account.key) as peer:
        image = base64.b64encode(make_image(100, 100)).decode()
        (result,) = await peer.ask(upscale(image, includeCost=True))
    told = await details(server, account.key)
    assert result["cost"] == 0.000004
    assert told["balance"]["amount"] == 12.499996
    assert told["usage"]["total"] == {"credits": 0.000004, "requests": 1}


async def test_an_account_without_a_limit_has_no_amount(server: EmbeddedServer) -> None:
    assert (await details(server))["balance"] == {"amount": None, "currency": "USD"}


async def test_money_is_written_exactly(server: EmbeddedServer) -> None:
    account = open_account(server, Decimal("100000000.000000001"))
    async with connected(server, key=account.key) as peer:
        await peer.send({"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "getDetails"})
        received = await peer.socket.recv()
        frame = received.encode() if isinstance(received, str) else received
    assert b'"amount":100000000.000000001' in frame


async def test_usage_is_summed_over_spans_of_time(server: EmbeddedServer) -> None:
    account, now = open_account(server), time.time()
    midnight = now - now % DAY
    for when in (midnight + 0.5, midnight - 3 * DAY, midnight - 20 * DAY, midnight - 200 * DAY):
        charge(server, account, 1_000, when)
    usage = (await details(server, account.key))["usage"]
    assert usage == {
        "total": {"credits": 0.000004, "requests": 4},
        "today": {"credits": 0.000001, "requests": 1},
        "last7Days": {"credits": 0.000002, "requests": 2},
        "last30Days": {"credits": 0.000003, "requests": 3},
    }


async def test_keys_are_listed_without_their_secrets(server: EmbeddedServer) -> None:
    account, run = open_account(server), server.services.database.run_sync
    lost = run(create_key, account.id, "lost", time.time())
    run(revoke_key, lost)
    told = await details(server, account.key)
    used, revoked = told["apiKeys"]
    assert (used["name"], used["enabled"]) == ("test", True)
    assert (revoked["name"], revoked["enabled"], revoked["lastUsedAt"]) == ("lost", False, None)
    for key, secret in ((used, account.key), (revoked, lost)):
        assert secret.startswith(key["apiKey"].rstrip("…"))
        assert len(key["apiKey"]) < 12
    for moment in (used["createdAt"], used["lastUsedAt"]):
        age = time.time() - datetime.fromisoformat(moment).timestamp()
        assert -2 < age < 120
    assert datetime.fromisoformat(used["createdAt"]).tzinfo is not None


async def test_nothing_of_other_accounts_is_told(server: EmbeddedServer) -> None:
    account, other = open_account(server, Decimal(3)), open_account(server, Decimal(5))
    charge(server, other, 1_000_000_000, time.time())
    told = await details(server, account.key)
    assert told["balance"]["amount"] == 3
    assert told["usage"]["total"] == {"credits": 0, "requests": 0}
    assert len(told["apiKeys"]) == 1


async def test_other_operations_are_refused_with_what_is_offered(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        task = {"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "deleteEverything"}
        (error,) = await peer.ask(task)
    assert (error["code"], error["parameter"]) == ("unsupportedOperation", "operation")
    assert "getDetails" in error["message"]
