"""The audit finds what is wrong, whatever it is, and nothing where nothing is."""

import pytest
from sqlalchemy import text

from server.protocol.errors import ErrorItem
from server.state import tasks
from server.state.accounts import account_named
from server.state.audit import audit
from server.state.database import Database
from server.state.records import StoredResult
from tests.server.support.harness import new_uuid
from tests.server.support.records import accepted, attempt_of

NOW = 1_000_000.0
RESULT = StoredResult(image_uuid="i", image_name="i.png", input_image_uuid="j")
FAILURE = ErrorItem(code="taskCancelled", message="the task was cancelled")


@pytest.fixture
def busy(database: Database) -> Database:
    """Two accounts, one without a limit; of each one task that succeeded, one that failed, one that runs."""
    for name, balance in (("ada", 1_000), ("bob", None)):
        account = database.run_sync(account_named, name, NOW, balance=balance)
        done, failed, runs = (new_uuid() for _ in range(3))
        for task in (done, failed, runs):
            accepted(database, account, NOW, task=task)
            database.run_sync(tasks.reserve, attempt_of(database, account, task), 100, NOW)
        database.run_sync(tasks.succeed, attempt_of(database, account, done), RESULT, NOW)
        database.run_sync(tasks.fail, attempt_of(database, account, failed), FAILURE, NOW)
    return database


def tamper(database: Database, *statements: str) -> None:
    for statement in statements:
        database.run_sync(lambda connection, sql: connection.execute(text(sql)), statement)


def disarm(database: Database) -> None:
    """Take the ledger's protection away, as who has the database's password could."""
    if database.run_sync(lambda connection: connection.dialect.name) == "sqlite":
        tamper(database, "DROP TRIGGER ledger_no_delete", "DROP TRIGGER ledger_no_update")
    else:
        tamper(database, "DROP TRIGGER ledger_append_only ON ledger")
    tamper(database, "DROP INDEX one_end_per_attempt")


def test_nothing_is_wrong_with_what_the_server_does(busy: Database) -> None:
    found = busy.snapshot(audit)
    assert found.mistakes == []
    # the deposit; of each account 3 reservations, a charge, a release
    assert (found.accounts, found.entries, found.charges) == (2, 1 + 2 * 5, 2)


def test_an_empty_database_has_no_mistakes(database: Database) -> None:
    assert database.snapshot(audit) == (0, 0, 0, [])


@pytest.mark.parametrize(
    ("statement", "mistake"),
    [
        (
            "UPDATE accounts SET balance = balance + 1 WHERE name = 'ada'",
            "account 'ada': balance is kept as 801",
        ),
        ("UPDATE accounts SET reserved = 99 WHERE name = 'bob'", "account 'bob': reserved is kept as 99"),
        ("UPDATE tasks SET price = 7 WHERE status = 'accepted'", "7 is kept as reserved"),
        ("UPDATE tasks SET price = 7 WHERE status = 'succeeded'", "100 is kept as charged, its price is 7"),
        (
            "UPDATE ledger SET amount = 50 WHERE destination = 'reserved' AND attempt IN "
            "(SELECT attempt FROM tasks WHERE status = 'succeeded')",
            "was charged 100; its attempt reserved 50",
        ),
        (
            "UPDATE ledger SET attempt = substr(attempt, 2) WHERE destination = 'revenue'",
            "was charged 100; its attempt reserved 0",
        ),
        (
            "UPDATE accounts SET charged = 7, charges = 1 WHERE name = 'bob'",
            "account 'bob': charged is kept as 7, its entries sum to 100",
        ),
        ("UPDATE usage SET charges = 3", "account 'ada': it was charged 100, the sum of its days is 100"),
        ("UPDATE tasks SET charged = 7 WHERE status = 'failed'", "(failed): 0 is kept as reserved"),
        ("UPDATE tasks SET charged = 7, price = 7 WHERE status = 'succeeded'", "7 is kept as charged"),
        ("UPDATE tasks SET status = 'failed' WHERE status = 'succeeded'", "(failed): 0 is kept"),
        ("UPDATE tasks SET status = 'succeeded' WHERE status = 'failed'", "it has 0 charges"),
        (
            "UPDATE tasks SET status = 'succeeded' WHERE status = 'accepted'",
            "(succeeded): 0 is kept",
        ),
        ("DELETE FROM tasks WHERE status = 'succeeded'", "(unknown): 0 is kept as reserved"),
        ("DELETE FROM tasks WHERE status = 'accepted'", "(unknown): 0 is kept as reserved"),
        ("DELETE FROM ledger WHERE destination = 'revenue'", "it has 0 charges"),
        ("DELETE FROM ledger WHERE source = 'issued'", "all books sum to 1000"),
        ("UPDATE ledger SET amount = 50 WHERE destination = 'revenue'", "reserved is kept as 100"),
        (
            "INSERT INTO ledger (account_id, task_uuid, amount, source, destination, created) "
            "SELECT account_id, task_uuid, 0, 'reserved', 'revenue', 0 FROM tasks WHERE status = 'succeeded'",
            "it has 2 charges",
        ),
    ],
)
def test_what_was_tampered_with_is_found(busy: Database, statement: str, mistake: str) -> None:
    disarm(busy)
    tamper(busy, statement)
    mistakes = busy.snapshot(audit).mistakes
    assert any(mistake in found for found in mistakes), mistakes
