"""Webhooks in the database: recorded with the outcome, claimed by one, signed with the account's secrets."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection

from server.protocol.errors import ErrorItem
from server.state import tasks, webhooks
from server.state.accounts import AccountId, account_named
from server.state.database import Database
from server.state.requests import Destination
from server.state.webhooks import ClaimedWebhook, WebhookRecord, WebhookStatus
from tests.server.support.harness import new_uuid
from tests.server.support.records import accepted, attempt_of

NOW = 1_000.0
LEASE = 90.0
FAILURE = ErrorItem(code="downloadFailed", message="no")
TO = Destination("http://a/hook", "http://us")


class UnexpectedError(Exception):
    """Ends a transaction."""


@pytest.fixture
def account(database: Database) -> AccountId:
    return database.run_sync(account_named, "ada", NOW)


def fail_task(database: Database, account: AccountId, url: str = "http://a/hook", now: float = NOW) -> str:
    """A task with an outcome and a webhook; its UUID."""
    task = new_uuid()
    accepted(database, account, now, task=task)
    database.run_sync(
        tasks.fail, attempt_of(database, account, task), FAILURE, now, webhook=Destination(url, "http://us")
    )
    return task


def claim(database: Database, now: float = NOW, busy: tuple[str, ...] = ()) -> ClaimedWebhook | None:
    return database.run_sync(webhooks.claim_due, list(busy), [], now, LEASE)


def claimed(database: Database, now: float = NOW) -> ClaimedWebhook:
    webhook = claim(database, now)
    assert webhook is not None
    return webhook


def test_a_webhook_is_recorded_with_the_outcome(database: Database, account: AccountId) -> None:
    task = fail_task(database, account)
    told = database.run_sync(webhooks.find_webhook, account, task)
    assert told == WebhookRecord(WebhookStatus.PENDING, 0, NOW, None)
    webhook = claimed(database)
    assert webhook[1:] == (account, task, "http://a/hook", "a", "http://us", 1)


def test_a_webhook_is_not_there_without_its_outcome(database: Database, account: AccountId) -> None:
    attempt = accepted(database, account, NOW)

    def interrupted(connection: Connection) -> None:
        tasks.fail(connection, attempt, FAILURE, NOW, webhook=TO)
        raise UnexpectedError

    with pytest.raises(UnexpectedError):
        database.run_sync(interrupted)
    assert claim(database) is None


def test_an_outcome_that_is_recorded_twice_is_told_once(database: Database, account: AccountId) -> None:
    task = fail_task(database, account)
    database.run_sync(tasks.fail, attempt_of(database, account, task), FAILURE, NOW, webhook=TO)
    claimed(database)
    assert claim(database) is None


def test_a_failed_task_that_is_sent_again_is_told_of_anew(database: Database, account: AccountId) -> None:
    task = fail_task(database, account)
    old = claimed(database)
    accepted(database, account, NOW, task=task)
    assert database.run_sync(webhooks.find_webhook, account, task) is None
    database.run_sync(tasks.fail, attempt_of(database, account, task), FAILURE, NOW, webhook=TO)
    new = claimed(database)
    assert new.id != old.id, "another message"
    database.run_sync(webhooks.finish, old, WebhookStatus.FAILED, NOW, "too late")
    told = database.run_sync(webhooks.find_webhook, account, task)
    assert told is not None
    assert told.status is WebhookStatus.PENDING


def test_the_one_that_is_due_longest_is_claimed_first(database: Database, account: AccountId) -> None:
    order = [fail_task(database, account, now=NOW + later) for later in (2, 0, 1)]
    assert claim(database, NOW - 1) is None
    assert [claimed(database, NOW + 2).task_uuid for _ in order] == [order[1], order[2], order[0]]


def test_a_claim_ends_by_itself(database: Database, account: AccountId) -> None:
    fail_task(database, account)
    first = claimed(database)
    assert claim(database, NOW + LEASE - 1) is None
    again = claimed(database, NOW + LEASE)
    assert (again.id, again.attempts) == (first.id, 2)


def test_whoever_was_slower_than_the_claim_changes_nothing(database: Database, account: AccountId) -> None:
    task = fail_task(database, account)
    slow = claimed(database)
    database.run_sync(webhooks.finish, claimed(database, NOW + LEASE), WebhookStatus.DELIVERED, NOW)
    database.run_sync(webhooks.postpone, slow, NOW + LEASE, "timeout")
    told = database.run_sync(webhooks.find_webhook, account, task)
    assert told == WebhookRecord(WebhookStatus.DELIVERED, 2, None, None)
    assert claim(database, NOW + 1e9) is None


def test_a_postponed_one_is_due_when_it_says(database: Database, account: AccountId) -> None:
    task = fail_task(database, account)
    database.run_sync(webhooks.postpone, claimed(database), NOW + 300, "status 500")
    assert database.run_sync(webhooks.find_webhook, account, task) == WebhookRecord(
        WebhookStatus.PENDING, 1, NOW + 300, "status 500"
    )
    assert database.run_sync(webhooks.next_due, []) == NOW + 300
    assert claim(database, NOW + 299) is None
    assert claimed(database, NOW + 300).attempts == 2


def test_one_that_is_given_back_counts_as_not_attempted(database: Database, account: AccountId) -> None:
    fail_task(database, account)
    database.run_sync(webhooks.unclaim, claimed(database), NOW)
    assert claimed(database).attempts == 1


def test_accounts_that_have_their_share_get_no_more_and_the_others_do(
    database: Database, account: AccountId
) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    fail_task(database, account, "http://a/1", NOW - 10)
    fail_task(database, other, "http://busy/1", NOW - 5)
    task = fail_task(database, other, "http://b/1")
    webhook = database.run_sync(webhooks.claim_due, ["busy"], [account], NOW, LEASE)
    assert webhook is not None
    assert webhook.task_uuid == task
    assert database.run_sync(webhooks.claim_due, ["busy"], [account], NOW, LEASE) is None


def test_busy_hosts_get_no_more_and_the_others_do(database: Database, account: AccountId) -> None:
    fail_task(database, account, "http://user:word@Slow:8000/1", NOW - 10)
    task = fail_task(database, account, "https://quick/1")
    assert database.run_sync(webhooks.next_due, ["slow:8000"]) == NOW
    webhook = claim(database, busy=("slow:8000",))
    assert webhook is not None
    assert webhook.task_uuid == task
    assert claim(database, busy=("slow:8000",)) is None


def test_of_several_servers_each_claims_others(database: Database, account: AccountId) -> None:
    count = 30
    for _ in range(count):
        fail_task(database, account)

    def claim_all(_: int) -> list[str]:
        found = []
        while (webhook := claim(database)) is not None:
            found.append(webhook.id)
        return found

    with ThreadPoolExecutor(4) as threads:
        ids = [webhook_id for found in threads.map(claim_all, range(4)) for webhook_id in found]
    assert len(ids) == len(set(ids)) == count


def test_each_account_has_a_secret_that_stays(database: Database, account: AccountId) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    (secret,) = database.run_sync(webhooks.signing_secrets, account, NOW)
    assert secret.startswith("whsec_")
    assert database.run_sync(webhooks.signing_secrets, account, NOW + 1e9) == [secret]
    assert database.run_sync(webhooks.signing_secrets, other, NOW) != [secret]


def test_for_a_day_after_a_rotation_both_secrets_sign(database: Database, account: AccountId) -> None:
    (old,) = database.run_sync(webhooks.signing_secrets, account, NOW)
    new = database.run_sync(webhooks.rotate_secret, account, NOW)
    day = webhooks.OLD_SECRET_SIGNS_FOR
    assert database.run_sync(webhooks.signing_secrets, account, NOW + day - 1) == [new, old]
    assert database.run_sync(webhooks.signing_secrets, account, NOW + day) == [new]


def test_a_secret_that_was_never_used_is_not_kept_after_a_rotation(
    database: Database, account: AccountId
) -> None:
    new = database.run_sync(webhooks.rotate_secret, account, NOW)
    assert database.run_sync(webhooks.signing_secrets, account, NOW) == [new]


def test_of_the_hosts_that_are_not_busy_the_one_that_waits_longest_is_next(
    database: Database, account: AccountId
) -> None:
    for number, host in enumerate(["a", "a", "b", "c", "b"]):
        fail_task(database, account, url=f"http://{host}/hook", now=NOW + number)
    assert database.run_sync(webhooks.next_due, ["a"]) == NOW + 2
    assert database.run_sync(webhooks.next_due, ["a", "b", "c"]) is None
    hosts = []
    while (webhook := claim(database, NOW + 10, busy=("a",))) is not None:
        hosts.append(webhook.host)
        database.run_sync(webhooks.finish, webhook, WebhookStatus.DELIVERED, NOW)
    assert hosts == ["b", "c", "b"]
