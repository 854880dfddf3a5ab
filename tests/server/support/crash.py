"""Customers use servers that are killed at random moments; afterwards every promise is looked at.

A run is drawn from its seed: what customers send, and how long after a start the server is killed. What it is
at by then is up to the machine: the report tells.
"""

import asyncio
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpcore
import numpy as np
import obstore
from sqlalchemy import Connection, create_engine, text

from server.images.bucket import Bucket, open_store
from server.images.store import ImageStore
from server.state import ledger
from server.state.accounts import AccountId, account_named, create_key
from server.state.audit import Audit, audit
from server.state.database import Database
from tests.server.support.customers import FACTOR, HEIGHT, WIDTH, Customer, Kind, Poster, Sent
from tests.server.support.harness import FAST_MODEL, PATIENCE, Account, new_uuid, open_image, until
from tests.server.support.killable import KillableServer
from tests.server.support.network import Faults, Network
from tests.server.support.web import Web

SETTINGS: Final[dict[str, Any]] = {
    "private_networks": True,  # where inputs come from and webhooks go to
    "acknowledge_after": 0.03,
    "prices": {FAST_MODEL: Decimal(1)},
}
"""What servers need for customers to see everything."""

SOME_TASKS = 60

_SHARE_IN_START = 0.25
_WORK_BEFORE_KILL = 1.2
_INITIAL = 10**12  # nanodollars
_POOR = 1000
_COST = str(WIDTH * HEIGHT * FACTOR**2 / 1e6)  # USD, at one for a megapixel
_SHADES = 1  # by which two runs of a network may differ

# What a kill finds tasks at: each query counts those that are.
_PHASES = {
    "accepted": "SELECT count(*) FROM tasks WHERE status = 'accepted' AND price IS NULL",
    "reserved, at work": "SELECT count(*) FROM tasks WHERE status = 'accepted' AND price IS NOT NULL",
    "recorded, not delivered": "SELECT count(*) FROM outbox",
    "webhook under way": """
        SELECT count(*) FROM webhooks  -- a claim is for 90 seconds
        WHERE status = 'pending' AND attempts > 0 AND next_attempt > :since + 90""",
}


@dataclass
class Run:
    """Customers of one server or several, and what happened to these.

    Attributes:
        database_url, data, storage_url: as the servers have them; but nothing bad happens on the way.
        tls: what customers know the servers' certificate by, if these speak TLS.
        kills: in all, and how many found tasks at what.
    """

    database_url: str
    data: Path
    accounts: list[Account]
    customers: list[Customer]
    posters: list[Poster]
    web: Web
    storage_url: str | None = None
    tls: ssl.SSLContext | None = None
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def everybody(self) -> list[Customer | Poster]:
        return [*self.customers, *self.posters]

    @property
    def finished(self) -> int:
        """How many tasks have an outcome."""
        return sum(bool(sent.outcomes) for sent in self.sent)

    @property
    def sent(self) -> list[Sent]:
        return [sent for one in self.everybody for sent in one.sent.values()]


@dataclass
class Report:
    """The figures of a run that kept its promises."""

    kills: Counter[str]
    sent: int
    accepted: int
    charged: int
    told_twice: int
    connections: int
    webhooks: int
    loose_files: int

    def __str__(self) -> str:
        phases = ", ".join(f"{name} {count}" for name, count in self.kills.items() if name != "all")
        return (
            f"{self.kills['all']} kills ({phases}); "
            f"{self.sent} tasks sent, {self.accepted} accepted, 0 lost; "
            f"{self.charged} charged, 0 twice; {self.told_twice} results told more than once; "
            f"{self.webhooks} webhooks; {self.connections} connections; {self.loose_files} loose files"
        )


def run_of(
    urls: Sequence[str],
    web: Web,
    seed: int,
    *,
    database_url: str,
    data: Path,
    storage_url: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Run:
    """Customers of all sorts: some have money, one has no limit, one can pay for nothing."""
    rich, unlimited, poor = accounts = _open_accounts(database_url)
    customers = [
        Customer(account.key, urls, web.url, f"{seed}/{number}", kinds, tls)
        for number, (account, kinds) in enumerate(
            [(rich, tuple(Kind)), (rich, tuple(Kind)), (unlimited, tuple(Kind)), (poor, (Kind.ASYNC,))]
        )
    ]
    posters = [Poster(rich.key, urls, f"{seed}/post", tls)]
    return Run(database_url, data, accounts, customers, posters, web, storage_url, tls)


def _open_accounts(database_url: str) -> list[Account]:
    with closing(Database(database_url)) as database:
        accounts = []
        for balance in (_INITIAL, None, _POOR):
            account = database.run_sync(account_named, new_uuid(), time.time(), balance=balance)
            accounts.append(Account(account, database.run_sync(create_key, account, "test", time.time())))
    return accounts


@asynccontextmanager
async def at_work(run: Run) -> AsyncIterator[None]:
    """Have everybody send tasks within the block; at its end all tasks come to theirs."""
    async with asyncio.TaskGroup() as group:
        for one in run.everybody:
            group.create_task(one.work())
        yield
        for one in run.everybody:
            one.drain()
    await _deliver_webhooks(run)


async def work_through(run: Run, network: Network) -> None:
    """Have some tasks done over a bad network, and all end over a good one."""

    async def enough() -> bool:
        return run.finished >= SOME_TASKS

    async with at_work(run):
        await until(enough)
        network.faults = Faults()
        network.cut_all()


async def crash(run: Run, servers: Sequence[KillableServer], kills: int, seed: int) -> None:
    """Kill one of the servers after the other, each at once replaced."""
    chance = random.Random(seed)
    for server in servers:
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.wait_until_ready)
    async with at_work(run):
        for _ in range(kills):
            await _kill_one(run, servers, chance)
        for server in servers:
            await asyncio.to_thread(server.wait_until_ready)


async def _kill_one(run: Run, servers: Sequence[KillableServer], chance: random.Random) -> None:
    """Wait, kill one of the servers, have it start again."""
    server = chance.choice(servers)
    share = chance.random()
    if chance.random() < _SHARE_IN_START:
        await asyncio.sleep(share * server.start_takes)
    else:
        await asyncio.to_thread(server.wait_until_ready)
        await asyncio.sleep(share * _WORK_BEFORE_KILL)
    was_ready = server.is_ready
    await asyncio.to_thread(server.kill)
    run.kills["all"] += 1
    if not was_ready:
        run.kills["starting"] += 1
    run.kills.update(await asyncio.to_thread(_phases, run, server.started))
    await asyncio.to_thread(server.start)


def _phases(run: Run, since: float) -> list[str]:
    """At what the kill found tasks. Only looks: what is left to recover is left to the next start."""
    database_url = run.database_url
    if database_url.startswith("sqlite:///"):
        path = database_url.removeprefix("sqlite:///")
        database_url = f"sqlite:///file:{path}?mode=ro&uri=true"
    engine = create_engine(database_url)
    with engine.connect() as connection:
        found = [name for name, query in _PHASES.items() if connection.scalar(text(query), {"since": since})]
        names = connection.scalars(
            text("SELECT name FROM loose_files WHERE since > :since"), {"since": since}
        )
        if any((run.data / "images" / f"{name}{end}").exists() for name in names for end in ("", "#1")):
            found.append("storing")
    engine.dispose()
    return found


async def _deliver_webhooks(run: Run) -> None:
    """Let the time pass for which whoever was killed had claimed webhooks."""
    with closing(Database(run.database_url)) as database:

        def hurry(connection: Connection) -> int:
            query = "UPDATE webhooks SET next_attempt = 0 WHERE status = 'pending' AND attempts > 0"
            connection.execute(text(query))
            query = "SELECT count(*) FROM webhooks WHERE status = 'pending'"
            return int(connection.scalar(text(query)) or 0)

        async with asyncio.timeout(PATIENCE):
            while await database.run(hurry):  # noqa: ASYNC110 - other processes do it
                await asyncio.sleep(1)


async def judge(run: Run, url: str) -> Report:
    """Look at every promise; `url` is of a server that runs.

    Raises:
        AssertionError: saying which was broken.
    """
    with closing(Database(run.database_url)) as database:
        rows = await database.run(_tasks)
        _each_task_has_one_outcome(run, rows)
        found = database.snapshot(audit)
        _nothing_is_charged_but_results(run, rows, found)
        await _balance_is_what_is_left(database, run.accounts[0], run)
        await _images_are_there(run, url)
        loose = await _store_is_what_the_database_knows(run, database)
    return Report(
        kills=run.kills,
        sent=len(run.sent),
        accepted=len(rows),
        charged=found.charges,
        told_twice=sum(sent.results > 1 for sent in run.sent),
        connections=sum(customer.connections for customer in run.customers),
        webhooks=await _webhooks_came(run, rows),
        loose_files=loose,
    )


def _tasks(connection: Connection) -> dict[str, str]:
    """What the database has for the outcome of each task."""
    return {
        row.task_uuid: row.status for row in connection.execute(text("SELECT task_uuid, status FROM tasks"))
    }


def _each_task_has_one_outcome(run: Run, rows: dict[str, str]) -> None:
    sent = {task.uuid: task for task in run.sent}
    assert set(rows) <= set(sent)
    lost = [task for task in run.sent if task.replies and not task.outcomes]
    assert not lost, f"LOST: {lost}"
    for uuid, status in rows.items():
        assert status != "accepted", f"LOST: {sent[uuid]} was accepted and has no outcome"
        assert len(sent[uuid].outcomes) == 1, f"{sent[uuid]} was told {sent[uuid].outcomes}"
        ((kind, *more),) = sent[uuid].outcomes
        assert (kind == "result") == (status == "succeeded"), f"{sent[uuid]} is recorded as {status}"
        if kind == "error":
            assert more[0] in _expected_errors(run, sent[uuid]), f"{sent[uuid]} failed"
    for uuid in set(sent) - set(rows):
        refused = {outcome[:2] for outcome in sent[uuid].outcomes} == {("error", "insufficientCredits")}
        assert refused or not sent[uuid].replies, f"LOST: {sent[uuid]} is not in the database"


def _expected_errors(run: Run, sent: Sent) -> set[str]:
    if sent.uuid in run.customers[-1].sent:
        return {"insufficientCredits"}
    return {Kind.CANCELLED: {"taskCancelled"}, Kind.MISSING: {"downloadFailed"}}.get(sent.kind, set())


def _nothing_is_charged_but_results(run: Run, rows: dict[str, str], found: Audit) -> None:
    assert found.mistakes == []
    results = sum(next(iter(sent.outcomes))[0] == "result" for sent in run.sent if sent.outcomes)
    costs = {outcome[2] for sent in run.sent for outcome in sent.outcomes if outcome[0] == "result"}
    assert costs == {_COST}, "a task cost more than its price"
    assert found.charges == results == sum(status == "succeeded" for status in rows.values())


async def _balance_is_what_is_left(database: Database, account: Account, run: Run) -> None:
    """What was told as `cost`, of each task once, is what is missing."""
    seen = sum(
        round(float(next(iter(sent.outcomes))[2]) * 1e9)
        for one in run.everybody
        if one.key == account.key
        for sent in one.sent.values()
        if sent.outcomes and next(iter(sent.outcomes))[0] == "result"
    )
    assert seen > 0
    assert await database.run(_available, account.id) == _INITIAL - seen


def _available(connection: Connection, account: AccountId) -> int:
    return ledger.statement(connection, account).available or 0


async def _images_are_there(run: Run, url: str) -> None:
    """Each result can be fetched, and is the same enlargement of its input as all others of it."""
    first: dict[int, np.ndarray] = {}
    async with httpcore.AsyncConnectionPool(ssl_context=run.tls) as pool:
        for sent in run.sent:
            if sent.image is None:
                assert not sent.outcomes or next(iter(sent.outcomes))[0] == "error"
                continue
            response = await pool.request("GET", f"{url}/images/{sent.image}")
            assert response.status == 200, sent
            pixels = np.asarray(open_image(response.content)).astype(int)
            assert pixels.shape == (HEIGHT * FACTOR, WIDTH * FACTOR, 3)
            assert abs(pixels - first.setdefault(sent.picture, pixels)).max() <= _SHADES


async def _webhooks_came(run: Run, rows: dict[str, str]) -> int:
    """Each webhook came, whenever it did under the same id; returns how many came, repeated ones too.

    One that tells of a database that could not be used is of a task that was then sent again, as a new one.
    """
    ids: dict[str, set[str]] = {}
    count = 0
    while run.web.waiting():
        received = await run.web.receive()
        if received.method == "POST" and b'"serviceUnavailable"' not in received.body:
            count += 1
            ids.setdefault(received.path.rpartition("/")[2], set()).add(received.headers["webhook-id"])
    wanted = {sent.uuid for sent in run.sent if sent.kind is Kind.WEBHOOK and sent.uuid in rows}
    assert set(ids) == wanted
    assert all(len(of_task) == 1 for of_task in ids.values()), ids
    return count


async def _store_is_what_the_database_knows(run: Run, database: Database) -> int:
    """No file is unknown, no image without its file; after a day what crashes left is gone. Returns that."""
    left = await asyncio.to_thread(_files, run)
    images = await database.run(_names, "SELECT name FROM images")
    loose = await database.run(_names, "SELECT name FROM loose_files")
    assert images <= left, f"{len(images - left)} images have no file"
    assert {name.removesuffix("#1") for name in left - images} <= loose, "a file that nobody knows"
    files = open_store(run.storage_url, run.data / "images")
    bucket = Bucket(files)
    await ImageStore(bucket, database, clock=lambda: time.time() + 2 * 86400).sweep()
    bucket.close()
    assert await asyncio.to_thread(_files, run) == images
    return len(left - images)


def _files(run: Run) -> set[str]:
    """The names of what is in the store, but for the object by which a start sees that it works."""
    if run.storage_url is None:
        names = {file.name for file in (run.data / "images").iterdir()}
    else:
        names = {file["path"] for file in obstore.list(open_store(run.storage_url, run.data)).collect()}
    return {name for name in names if not name.startswith("readiness")}


def _names(connection: Connection, query: str) -> set[str]:
    return set(connection.scalars(text(query)))
