"""Every transaction of the hot path on a database that has seen a million tasks.

    python -m benchmarks.state [--tasks 1000000] [--database postgresql://...]

The history is inserted in bulk, as a server would have left it: tasks that succeeded, some that failed, their
ledger, replies that nobody came for, webhooks that were delivered, and one host that takes none, with a long
queue. Then each transaction runs many times; the median and the slowest tenth are printed.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Connection, Table, text

from benchmarks.report import Report, median, percentile
from server.handlers.account_management import account_details
from server.protocol.errors import ErrorItem
from server.state import images, ledger, outbox, retention, takeover, tasks, webhooks
from server.state.accounts import account_named, authenticate, create_key
from server.state.books import day_of
from server.state.database import Database
from server.state.records import Attempt, StoredResult
from server.state.requests import Destination
from server.state.tables import accounts as accounts_table
from server.state.tables import images as images_table
from server.state.tables import ledger as ledger_table
from server.state.tables import outbox as outbox_table
from server.state.tables import tasks as tasks_table
from server.state.tables import usage as usage_table
from server.state.tables import webhooks as webhooks_table

PRICE = 1_000
REPEATS = 200
DAYS = 365
REQUEST = b'{"task_type":"upscale","model":"realesrgan-x4plus",' + b'"parameter":"inputImage"' * 10 + b"}"
RESULT = StoredResult(image_uuid="i" * 36, image_name="n" * 26, input_image_uuid="j" * 36)
FAILURE = ErrorItem(code="taskCancelled", message="the task was cancelled")
SESSIONS = 1_000


def main() -> None:
    """Fill, measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--database", help="the URL of an empty database; default: SQLite in a new file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(chosen.database or f"sqlite:///{Path(folder) / 'state.db'}")
        began = time.perf_counter()
        history = History(database, chosen.tasks)
        kind = "PostgreSQL" if chosen.database else "SQLite"
        report = Report(f"state-{kind.lower()}", "transaction", "median ms", "p90 ms")
        report.say(f"{kind}, {chosen.tasks} tasks, filled in {time.perf_counter() - began:.0f} s")
        for name, function in transactions(database, history):
            report.row(name, *measured(database, function))
        report.say(f"each {REPEATS} times, one after the other, committed")
        report.keep()
        database.close()


class History:
    """What the database holds: one account's tasks, and those of a hundred others."""

    def __init__(self, database: Database, count: int) -> None:
        self.now = time.time()
        self.count = count
        run = database.run_sync
        self.accounts = [
            run(account_named, f"account {number}", self.now, balance=10**15) for number in range(100)
        ]
        self.account = self.accounts[0]
        self.key = run(create_key, self.account, "benchmark", self.now)
        self.session = _uuid(0)
        for table, rows in (
            (tasks_table, self._tasks),
            (ledger_table, self._ledger),
            (outbox_table, self._outbox),
            (webhooks_table, self._webhooks),
            (images_table, self._images),
            (usage_table, self._usage),
        ):
            run(_insert, table, rows)
        run(self._keep_totals)
        if run(lambda connection: connection.dialect.name) == "postgresql":
            run(lambda connection: connection.execute(text("ANALYZE")))

    def of(self, number: int) -> str:
        """Whose the task of a number is: every second one is of the first account."""
        return self.account if number % 2 else self.accounts[number // 2 % 100]

    def _tasks(self, number: int) -> dict[str, Any] | None:
        if number >= self.count:
            return None
        failed = number % 20 == 0
        return {
            "account_id": self.of(number),
            "task_uuid": _uuid(number),
            "request": REQUEST,
            "session": _uuid(number % SESSIONS),
            "status": "failed" if failed else "succeeded",
            "result": None if failed else msgspec.json.encode(RESULT),
            "error": msgspec.json.encode(FAILURE) if failed else None,
            "price": None if failed else PRICE,
            "owner": "gone",
            "attempt": f"{number:032x}",
            "acceptance": f"{number:032x}",
            "created": self._time(number),
            "finished": self._time(number),
        }

    def _ledger(self, number: int) -> dict[str, Any] | None:
        task, is_end = divmod(number, 2)
        if task >= self.count:
            return None
        end = ("reserved", "balance" if task % 20 == 0 else "revenue")
        source, destination = end if is_end else ("balance", "reserved")
        return {
            "account_id": self.of(task),
            "task_uuid": _uuid(task),
            "attempt": f"{task:032x}",
            "amount": PRICE,
            "source": source,
            "destination": destination,
            "created": self._time(task),
        }

    def _outbox(self, number: int) -> dict[str, Any] | None:
        if number >= self.count // 10:
            return None
        session = _uuid(number % SESSIONS + 1)
        return {
            "account_id": self.of(number),
            "session": session,
            "task_uuid": _uuid(number),
            "frame": None,
            "created": self.now,
        }

    def _webhooks(self, number: int) -> dict[str, Any] | None:
        if number >= self.count // 5:
            return None
        waits = number % 2 == 0
        return {
            "id": f"msg_{number}",
            "account_id": self.of(number),
            "task_uuid": _uuid(number),
            "url": "http://slow.example/",
            "host": "slow.example" if waits else f"{number % 50}.example",
            "base_url": "http://us",
            "status": "pending" if waits else "delivered",
            "attempts": 1,
            "next_attempt": self.now - 1 if waits else None,
            "last_error": None,
            "ended": None if waits else self.now,
        }

    def _images(self, number: int) -> dict[str, Any] | None:
        if number >= self.count:
            return None
        return {
            "uuid": _uuid(number),
            "account_id": self.of(number),
            "name": f"{number:022x}.png",
            "size": 1,
            "width": 1,
            "height": 1,
            "expires": self.now + 7 * 86400,
        }

    def _usage(self, number: int) -> dict[str, Any] | None:
        account, day = divmod(number, DAYS)
        if account >= len(self.accounts):
            return None
        charges = self.count // (2 * DAYS if account == 0 else 200 * DAYS)
        return {
            "account_id": self.accounts[account],
            "day": day_of(self.now) - day,
            "charged": PRICE * charges,
            "charges": charges,
        }

    def _time(self, number: int) -> float:
        return self.now - 20 * 86400 * (self.count - number) / self.count

    def _keep_totals(self, connection: Connection) -> None:
        for name in ("charged", "charges"):
            query = (
                f"UPDATE accounts SET {name} = (SELECT sum({name}) FROM usage WHERE account_id = accounts.id)"  # noqa: S608
            )
            connection.execute(text(query))
        connection.execute(accounts_table.update().values(reserved=0))


Transaction = Callable[[Connection], object]


def transactions(database: Database, history: History) -> Iterator[tuple[str, Transaction]]:
    """What the server does for each task, and once a second, by name."""
    account, now, run = history.account, history.now, database.run_sync
    lock = database.server_lock()
    lock.hold()
    connected = [(account, _uuid(number)) for number in range(SESSIONS)]

    def new() -> Attempt:
        attempt = Attempt.of(account, str(uuid4()))
        run(tasks.accept, attempt, REQUEST, history.session, now, lock.server)
        return attempt

    waiting = [new() for _ in range(5 * REPEATS)]
    for number, attempt in enumerate(waiting):
        if number % 5 < 3:
            run(tasks.reserve, attempt, PRICE, now)
    done, failed, held, fresh = (iter(waiting[first::5]) for first in (0, 1, 2, 3))
    numbers = iter(range(1, history.count))
    yield "authenticate", lambda c: authenticate(c, history.key, now)
    yield (
        "accept a new task",
        lambda c: tasks.accept(c, Attempt.of(account, str(uuid4())), REQUEST, None, now),
    )
    yield (
        "accept one that was sent before",
        lambda c: tasks.accept(
            c, Attempt.of(account, _uuid(2 * next(numbers) + 1)), REQUEST, history.session, now
        ),
    )
    yield (
        "accept one that failed",
        lambda c: tasks.accept(
            c, Attempt.of(history.accounts[10], _uuid(20 + 200 * (next(numbers) % 4000))), REQUEST, None, now
        ),
    )
    yield "reserve", lambda c: tasks.reserve(c, next(fresh), PRICE, now)
    yield (
        "succeed",
        lambda c: tasks.succeed(c, next(done), RESULT, now, Destination("http://a/", "http://us")),
    )
    yield "fail", lambda c: tasks.fail(c, next(failed), FAILURE, now)
    yield "cancel", lambda c: tasks.cancel(c, account, next(held).task_uuid, "http://us", now)
    yield "getResponse", lambda c: tasks.find(c, account, _uuid(2 * next(numbers) + 1))
    yield "its webhook", lambda c: webhooks.find_webhook(c, account, _uuid(2 * next(numbers) + 1))
    yield "accountManagement", lambda c: account_details(c, account, now)
    yield "the outbox of a session", lambda c: outbox.undelivered(c, history.accounts[3], _uuid(7))
    yield "delivered", lambda c: outbox.delivered(c, [next(numbers)])
    yield f"mail for {SESSIONS} sessions", lambda c: outbox.sessions_with_mail(c, connected)
    yield "claim a webhook", lambda c: webhooks.claim_due(c, [], now, 90)
    yield "claim one, a host is busy", lambda c: webhooks.claim_due(c, ["slow.example"], now, 90)
    yield "the next one, a host is busy", lambda c: webhooks.next_due(c, ["slow.example"])
    yield "take over", lambda c: takeover.take_over(c, lock, now)
    yield "its own attempts", lambda c: takeover.attempts_of(c, lock.server)
    yield "extend an image", lambda c: images.extend(c, account, _uuid(2 * next(numbers) + 1), now + 8e5, now)
    yield "an image by name", lambda c: images.image_named(c, f"{next(numbers):022x}.png", now)
    yield "expired images", lambda c: images.condemn_expired(c, now, 100)
    yield "old failed tasks", lambda c: retention.forget_failed(c, now - 30 * 86400)
    yield "old webhooks", lambda c: retention.forget_webhooks(c, now - 30 * 86400)
    yield "old replies", lambda c: outbox.purge_undelivered(c, now - 86400)
    yield "metrics: what is reserved", ledger.reserved
    yield "metrics: replies", outbox.count_undelivered
    yield "metrics: webhooks", webhooks.count_pending


def measured(database: Database, transaction: Transaction) -> tuple[float, float]:
    """The median and the ninth decile of the seconds that a transaction takes, in milliseconds."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        database.run_sync(transaction)
        seconds.append(time.perf_counter() - began)
    return 1000 * median(seconds), 1000 * percentile(seconds, 0.9)


def _insert(connection: Connection, table: Table, row: Callable[[int], dict[str, Any] | None]) -> None:
    """All rows of a table, until there is none."""
    for first in itertools.count(step=10_000):
        made = [row(number) for number in range(first, first + 10_000)]
        rows = [one for one in made if one is not None]
        if rows:
            connection.execute(table.insert(), rows)
        if len(rows) < len(made):
            return


def _uuid(number: int) -> str:
    return str(UUID(int=number))


if __name__ == "__main__":
    main()
