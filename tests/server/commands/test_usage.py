"""`tilewire accounts usage`, and who used what by model and day."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import select

from server.money import to_usd
from server.serving import EmbeddedServer
from server.state.accounts import account_named
from server.state.books import Book, move
from server.state.database import Database
from server.state.tables import accounts
from server.state.usage import Amounts, Usage, UsageKey, add, find_usage
from tests.server.conftest import StartServer, Tilewire
from tests.server.support.harness import (
    FAST_MODEL,
    Account,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    until,
    upscale,
)
from tests.server.support.scrape import labels, metrics_of
from tests.server.support.web import Web

IMAGE = base64.b64encode(make_image(24, 16)).decode()
DAY = 20_000


def name_of(server: EmbeddedServer, account: Account) -> str:
    query = select(accounts.c.name).where(accounts.c.id == account.id)
    return str(server.services.database.run_sync(lambda connection: connection.scalar(query)))


@pytest.mark.each_database
async def test_what_an_account_did_is_reported_by_model_with_its_errors(
    start_server: StartServer, tilewire: Tilewire, tmp_path: Path, web: Web, server_database: str | None
) -> None:
    server = start_server(private_networks=True)
    account = open_account(server)
    async with connected(server, key=account.key) as peer:
        await peer.ask(upscale(IMAGE), upscale(IMAGE), upscale(f"{web.url}/none.png"))
        held = upscale(web.hold("/held.png", make_image()))
        await peer.send(held)
        await web.receive()
        await peer.send({"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": held["taskUUID"]})
        assert {(await peer.receive_item())["taskType"], (await peer.receive_item())["taskType"]} == {
            "cancel",
            "upscale",
        }
    charged, _ = charges(server, account.id)
    name = name_of(server, account)
    server.stop()  # what was added up since the last time is recorded
    environment = {"TILEWIRE_DATABASE_URL": server_database} if server_database else {}
    command = "accounts", "usage", name, "--data", tmp_path
    (line,) = json.loads((await asyncio.to_thread(tilewire, *command, "--json", **environment)).stdout)
    assert line.pop("deviceSeconds") > 0
    assert line.pop("taskSeconds") > 0
    assert line == {
        "account": name,
        "model": FAST_MODEL,
        "date": None,
        "tasks": 4,
        "failed": 1,
        "cancelled": 1,
        "megapixels": pytest.approx(2 * (24 * 2) * (16 * 2) / 1e6),
        "cost": pytest.approx(charged / 1e9),
        "errors": {"downloadFailed": 1},
    }
    table = (await asyncio.to_thread(tilewire, *command, "--since", "1d", "--by-day", **environment)).stdout
    heading, row, *_ = table.splitlines()
    assert heading.split()[:4] == ["account", "model", "day", "tasks"]
    assert f"{datetime.now(UTC):%Y}" in row
    assert f"{FAST_MODEL} {datetime.now(UTC):%Y-%m-%d}: 1 × downloadFailed" in " ".join(table.split())


def test_days_are_kept_apart_and_charges_without_a_model_are_not_forgotten(database: Database) -> None:
    account = database.run_sync(account_named, "ada", 0.0, balance=1000)
    for day in (DAY, DAY, DAY + 2):
        first, last = 96 * day, 96 * day + 95  # quarters of an hour
        used = {
            UsageKey(account, first, "key", "first", bucket=9): Amounts(
                1, pixels=100, device=7, elapsed=9, charged=40
            ),
            UsageKey(account, last, "", "first"): Amounts(1),
            UsageKey(account, last, "", "first", "internalServerError"): Amounts(1),
            UsageKey(account, last, "", "first", "taskCancelled"): Amounts(1),
            UsageKey(account, last, "", "other"): Amounts(1),
        }
        database.run_sync(add, used)
    for day in (DAY, DAY + 2):
        database.run_sync(move, account, 100, Book.BALANCE, Book.RESERVED, 0.0)
        database.run_sync(move, account, 100, Book.RESERVED, Book.REVENUE, day * 86400.0, new_uuid())
    twice = Amounts(
        tasks=8,
        failed=2,
        cancelled=2,
        pixels=200,
        device=14,
        elapsed=18,
        charged=80,
        errors={"internalServerError": 2},
    )
    assert database.snapshot(find_usage, DAY, DAY) == [
        Usage("ada", "first", None, twice),
        Usage("ada", "other", None, Amounts(2)),
        Usage("ada", None, None, Amounts(charged=20)),
    ]
    by_day = database.snapshot(find_usage, DAY, DAY + 9, account, by_day=True)
    assert [(used.model, used.day) for used in by_day] == [
        (model, day) for model in ("first", "other", None) for day in (DAY, DAY + 2)
    ]
    assert sum(used.amounts.charged for used in by_day) == 200
    other = database.run_sync(account_named, "bob", 0.0)
    assert database.snapshot(find_usage, DAY, DAY + 9, other) == []
    assert database.snapshot(find_usage, DAY + 3, DAY + 9) == []


def test_what_is_no_day_and_who_is_nobody_is_refused(tilewire: Tilewire) -> None:
    tilewire("keys", "create")
    for arguments, told in (
        (("--since", "yesterday"), "--since: 'yesterday' is not a time"),
        (("--until", "2026-13-01"), "--until: '2026-13-01' is not"),
        (("nobody",), "no account 'nobody'"),
    ):
        result = tilewire("accounts", "usage", *arguments)
        assert (result.exit_code, told in result.stderr) == (2, True)


async def test_the_largest_accounts_are_in_the_metrics_if_that_is_wanted(start_server: StartServer) -> None:
    server = start_server(metrics_accounts=1)
    small, large = open_account(server), open_account(server)
    for account, size in ((small, 24), (large, 240)):
        image = base64.b64encode(make_image(size, size)).decode()
        async with connected(server, key=account.key) as peer:
            await peer.ask(upscale(image))
    of_large = labels(account=name_of(server, large), model=FAST_MODEL)

    async def counted() -> bool:
        return f"tilewire_account_device_seconds_total{of_large}" in await metrics_of(server)

    await until(counted)
    metrics = await metrics_of(server)
    assert metrics[f"tilewire_account_output_pixels_total{of_large}"] == 480 * 480
    assert metrics["tilewire_account_charged_usd_total" + of_large] == pytest.approx(
        float(to_usd(charges(server, large.id)[0]))
    )
    done = labels(account=name_of(server, large), model=FAST_MODEL, outcome="succeeded")
    assert metrics[f"tilewire_account_tasks_total{done}"] == 1
    assert not [name for name in metrics if name_of(server, small) in name]
    assert Decimal(metrics[f"tilewire_account_device_seconds_total{of_large}"]) > 0
