"""What is forgotten after a while, and what never is."""

import pytest
from sqlalchemy import Connection

from server.protocol.errors import ErrorItem
from server.state import ledger, tasks, webhooks
from server.state.accounts import AccountId, account_named
from server.state.audit import audit
from server.state.database import Database
from server.state.outbox import delivered, undelivered
from server.state.records import StoredResult
from server.state.requests import Destination
from server.state.retention import forget_failed, forget_webhooks
from server.state.webhooks import WebhookStatus
from tests.server.support.records import accepted as record_accepted
from tests.server.support.records import attempt_of

NOW = 1_000_000.0
LATER = NOW + 1
HOOK = Destination("https://shop.example/hook", "http://us")


@pytest.fixture
def account(database: Database) -> AccountId:
    return database.run_sync(account_named, "ada", NOW, balance=1_000)


def accepted(database: Database, account: AccountId, session: str | None = None) -> str:
    attempt = record_accepted(database, account, NOW, session=session)
    assert database.run_sync(tasks.reserve, attempt, 100, NOW)
    return attempt.task_uuid


def failed(
    database: Database,
    account: AccountId,
    when: float = NOW,
    session: str | None = None,
    webhook: Destination | None = None,
) -> str:
    task = accepted(database, account, session)
    error = ErrorItem(code="downloadFailed", message="no", task_uuid=task)
    database.run_sync(tasks.fail, attempt_of(database, account, task), error, when, webhook=webhook)
    return task


def forget_ended(connection: Connection, before: float) -> tuple[int, int]:
    return forget_webhooks(connection, before), forget_failed(connection, before)


def is_known(database: Database, account: AccountId, task: str) -> bool:
    return database.run_sync(tasks.find, account, task) is not None


def test_failed_tasks_are_forgotten_once_they_are_old(database: Database, account: AccountId) -> None:
    old, recent = failed(database, account), failed(database, account, LATER)
    assert database.run_sync(forget_ended, LATER) == (0, 1)
    assert not is_known(database, account, old)
    assert is_known(database, account, recent)
    assert database.snapshot(audit).mistakes == []


def test_what_succeeded_or_has_no_outcome_is_never_forgotten(database: Database, account: AccountId) -> None:
    waiting, done = accepted(database, account), accepted(database, account)
    database.run_sync(
        tasks.succeed, attempt_of(database, account, done), StoredResult("image", "image.png", "input"), NOW
    )
    assert database.run_sync(forget_ended, NOW * 2) == (0, 0)
    assert is_known(database, account, waiting)
    assert is_known(database, account, done)
    assert database.run_sync(ledger.spent, account) == (100, 1)
    assert database.snapshot(audit).mistakes == []


def test_an_error_that_waits_for_its_session_is_not_forgotten(database: Database, account: AccountId) -> None:
    task = failed(database, account, session="session")
    assert database.run_sync(forget_ended, LATER) == (0, 0)
    (reply,) = database.run_sync(undelivered, account, "session")
    database.run_sync(delivered, [reply.id])
    assert database.run_sync(forget_ended, LATER) == (0, 1)
    assert not is_known(database, account, task)


@pytest.mark.parametrize("status", [WebhookStatus.DELIVERED, WebhookStatus.FAILED])
def test_a_webhook_is_forgotten_some_time_after_its_end_and_its_task_not_before(
    database: Database, account: AccountId, status: WebhookStatus
) -> None:
    task = failed(database, account, webhook=HOOK)
    assert database.run_sync(forget_ended, NOW * 2) == (0, 0), "it is yet to be sent"
    claimed = database.run_sync(webhooks.claim_due, [], [], NOW, 60.0)
    assert claimed is not None
    assert database.run_sync(forget_ended, NOW * 2) == (0, 0), "it is under way"
    database.run_sync(webhooks.finish, claimed, status, LATER)
    assert database.run_sync(forget_ended, LATER) == (0, 0), "it has just ended"
    assert is_known(database, account, task)
    assert database.run_sync(forget_ended, LATER + 1) == (1, 1)
    assert database.run_sync(webhooks.find_webhook, account, task) is None


def test_the_webhook_of_a_task_that_stays_is_forgotten(database: Database, account: AccountId) -> None:
    task = accepted(database, account)
    result = StoredResult("image", "image.png", "input")
    database.run_sync(tasks.succeed, attempt_of(database, account, task), result, NOW, webhook=HOOK)
    claimed = database.run_sync(webhooks.claim_due, [], [], NOW, 60.0)
    assert claimed is not None
    database.run_sync(webhooks.finish, claimed, WebhookStatus.DELIVERED, NOW)
    assert database.run_sync(forget_ended, LATER) == (1, 0)
    assert is_known(database, account, task)
