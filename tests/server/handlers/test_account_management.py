"""`accountManagement`: what an account may know about itself."""

import base64
import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import Connection

from server.serving import EmbeddedServer
from server.state import tasks
from server.state.accounts import create_key, list_keys, revoke_key
from server.state.records import Attempt, StoredResult
from server.state.usage import Amounts, UsageKey, add, bucket_of, quarter_of
from tests.server.support.harness import (
    FAST_MODEL,
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
    (member,) = told["team"]
    assert (member["name"], member["roles"]) == (told["organizationName"], ["Owner"])
    assert abs(datetime.fromisoformat(member["joinedAt"]).timestamp() - time.time()) < 600


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


async def usage(server: EmbeddedServer, account: Account, operation: str, **wanted: object) -> Item:
    async with connected(server, key=account.key) as peer:
        task = {"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": operation, **wanted}
        return (await peer.ask(task))[0]


NEW_YEAR = datetime.fromisoformat("2026-01-01T00:00:00+00:00").timestamp()
SPAN = {"startDate": "2026-01-01", "endDate": "2026-01-03"}


def use_two_keys(server: EmbeddedServer) -> Account:
    """An account with tasks of two keys and models, on both sides of midnight in Kolkata (18:30 UTC)."""
    account, run = open_account(server), server.services.database.run_sync
    run(create_key, account.id, "laptop", time.time())
    first, laptop = run(list_keys, account.id)

    def used(key: str, hours: float, model: str, code: str = "", milliseconds: int = 0) -> UsageKey:
        quarter = quarter_of(NEW_YEAR + 3600 * hours)
        return UsageKey(account.id, quarter, key, model, code, bucket_of(milliseconds))

    run(
        add,
        {
            used(first.id, 18, FAST_MODEL, "", 1000): Amounts(tasks=9, inference=9000, charged=9_000_000),
            used(first.id, 18.5, FAST_MODEL, "", 3000): Amounts(tasks=1, inference=3000, charged=1_000_000),
            used(laptop.id, 19, "gone", "internalServerError"): Amounts(tasks=2, charged=0),
            used(laptop.id, 19, FAST_MODEL, "downloadFailed"): Amounts(tasks=3),
            used("", 19, FAST_MODEL, "taskCancelled"): Amounts(tasks=1),
            used(first.id, 24 * 40, FAST_MODEL): Amounts(tasks=100),
        },
    )
    return account


async def test_usage_is_broken_down_by_day_model_and_key(server: EmbeddedServer) -> None:
    account = use_two_keys(server)
    groups = {"groupBy": ["date", "model", "apiKey"]}
    found = await usage(server, account, "getUsageActivity", **SPAN, **groups)
    assert (found["startDate"], found["endDate"], found["timezone"]) == (*SPAN.values(), "UTC")
    days = found["usage"]["timeseries"]
    assert [(day["date"], day["count"], day["spend"]) for day in days["data"]] == [
        ("2026-01-01", 16, 0.01),
        ("2026-01-02", 0, 0),
        ("2026-01-03", 0, 0),
    ]
    assert days["meta"].items() >= {"totalRequests": 16, "totalResults": 10, "totalSpend": 0.01}.items()
    assert days["meta"]["projectedSpend"] == pytest.approx(10 * days["meta"]["totalSpend"])
    models = {row["modelName"]: row for row in found["usage"]["model"]["data"]}
    assert models.pop("gone")["model"] == "gone", "a model need not be installed any more"
    ((_, fast),) = models.items()
    assert (fast["model"], fast["count"]) == (server.services.catalogue.get(FAST_MODEL).air, 14)
    assert {row["apiKey"]: row["count"] for row in found["usage"]["apiKey"]["data"]} == {
        "test": 10,
        "laptop": 5,
        None: 1,
    }
    found = await usage(
        server, account, "getUsageActivity", **SPAN, timezone="Asia/Kolkata", groupBy=["date"]
    )
    assert list(found["usage"]) == ["timeseries"]
    assert [day["count"] for day in found["usage"]["timeseries"]["data"]] == [9, 7, 0]


async def test_usage_is_of_the_models_and_keys_that_are_named(server: EmbeddedServer) -> None:
    account = use_two_keys(server)
    air = server.services.catalogue.get(FAST_MODEL).air
    hint = (await details(server, account.key))["apiKeys"][0]["apiKey"]
    for wanted, count in (
        ({"models": [air]}, 14),
        ({"models": ["gone", FAST_MODEL]}, 16),
        ({"apiKeys": ["laptop"]}, 5),
        ({"apiKeys": [hint, "laptop"]}, 15),
        ({"apiKeys": ["laptop"], "models": ["gone"]}, 2),
    ):
        found = await usage(server, account, "getUsageActivity", **SPAN, groupBy=["model"], **wanted)
        assert found["usage"]["model"]["meta"]["totalRequests"] == count, wanted
        assert all("date" not in row for row in found["usage"]["model"]["data"])


async def test_performance_and_errors_are_reported(server: EmbeddedServer) -> None:
    account = use_two_keys(server)
    found = await usage(server, account, "getUsagePerformance", **SPAN, groupBy=["model"])
    gone, fast = sorted(found["usage"]["model"]["data"], key=lambda row: row["model"] != "gone")
    assert gone["avgInferenceTime"] is None
    assert gone["p99InferenceTime"] is None
    assert fast["avgInferenceTime"] == 1.2
    for name, seconds in (("p50", 1), ("p90", 1), ("p99", 3)):
        assert fast[f"{name}InferenceTime"] == pytest.approx(seconds, rel=0.03)
    found = await usage(server, account, "getUsageErrors", **SPAN)
    meta = found["usage"]["timeseries"]["meta"]
    assert (meta["totalErrors"], meta["clientErrors"], meta["serverErrors"]) == (5, 3, 2)
    assert meta["errorRate"] == pytest.approx(100 * 5 / 16)
    assert meta["codes"] == {"downloadFailed": 3, "internalServerError": 2}


async def test_what_has_just_ended_is_in_the_usage_with_its_key_and_time(server: EmbeddedServer) -> None:
    account = open_account(server)
    image = base64.b64encode(make_image(40, 40)).decode()
    async with connected(server, key=account.key) as peer:
        (result,) = await peer.ask(upscale(image, includeCost=True))
    today = {"startDate": f"{datetime.now(UTC):%Y-%m-%d}", "endDate": f"{datetime.now(UTC):%Y-%m-%d}"}
    found = await usage(server, account, "getUsageActivity", **today, apiKeys=["test"])
    (row,) = found["usage"]["model"]["data"]
    assert (row["count"], row["spend"]) == (1, result["cost"])
    found = await usage(server, account, "getUsagePerformance", **today)
    assert found["usage"]["model"]["data"][0]["avgInferenceTime"] >= 0
    assert found["usage"]["model"]["meta"]["p50InferenceTime"] > 0


WRONG: list[tuple[Item, str]] = [
    ({}, "missingStartDate"),
    ({"startDate": "2026-01-01"}, "missingEndDate"),
    ({"startDate": "yesterday", "endDate": "2026-01-01"}, "invalidStartDate"),
    ({"startDate": "2026-01-02", "endDate": "2026-01-01"}, "invalidEndDate"),
    ({"startDate": "2026-01-01", "endDate": "2026-02-01"}, "invalidEndDate"),
    ({"startDate": "0001-01-01", "endDate": "0001-01-01"}, "invalidStartDate"),
    ({"startDate": "9999-12-31", "endDate": "9999-12-31"}, "invalidStartDate"),
    (SPAN | {"timezone": "Europe"}, "invalidTimezone"),
    (SPAN | {"timezone": "../../etc/passwd"}, "invalidTimezone"),
    (SPAN | {"groupBy": ["hour"]}, "invalidGroupBy"),
    (SPAN | {"groupBy": []}, "invalidGroupBy"),
    (SPAN | {"apiKeys": ["nobody"]}, "invalidApiKeys"),
    (SPAN | {"operation": "getDetails"}, "unsupportedStartDate"),
]


async def test_what_usage_cannot_be_asked_for_is_refused(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        for wanted, code in WRONG:
            task = {"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "getUsageActivity"}
            (error,) = await peer.ask(task | wanted)
            assert error["code"] == code, wanted
            assert error["parameter"] in error["message"]
