"""Webhooks that are to be delivered, and the secrets they are signed with.

A webhook is recorded in the transaction of its task's outcome. Whoever delivers it claims it first, for a
while: several servers may share the database, and one may stop in the middle of an attempt.
"""

import base64
import secrets
import uuid
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, func, insert, select, update

from server.protocol.text import printable
from server.state.accounts import AccountId
from server.state.requests import Destination
from server.state.tables import accounts, is_pending, webhooks

__all__ = [
    "OLD_SECRET_SIGNS_FOR",
    "ClaimedWebhook",
    "WebhookRecord",
    "WebhookStatus",
    "claim_due",
    "count_pending",
    "find_webhook",
    "finish",
    "forget_webhook",
    "next_due",
    "postpone",
    "record_webhook",
    "rotate_secret",
    "signing_secrets",
    "unclaim",
]

OLD_SECRET_SIGNS_FOR: Final = 86400.0
"""Seconds after a rotation for which webhooks are signed with the old secret too."""

_SECRET_BYTES: Final = 32  # Standard Webhooks: 24 to 64


class WebhookStatus(StrEnum):
    """Where a webhook stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookRecord(NamedTuple):
    """How far the delivery is; `next_attempt` is None when there will be none."""

    status: WebhookStatus
    attempts: int
    next_attempt: float | None
    last_error: str | None


class ClaimedWebhook(NamedTuple):
    """A webhook whose delivery is up to whoever claimed it. `attempts` counts this one too."""

    id: str
    account: AccountId
    task_uuid: str
    url: str
    host: str
    base_url: str
    attempts: int


_INSERT: Final = insert(webhooks)


def record_webhook(
    connection: Connection, account: AccountId, task_uuid: str, to: Destination, now: float
) -> None:
    """Have the outcome of a task sent, from now on."""
    webhook = {
        "id": f"msg_{uuid.uuid4().hex}",
        "account_id": account,
        "task_uuid": task_uuid,
        "url": to.url,
        "host": _host(to.url),
        "base_url": to.base_url,
        "status": WebhookStatus.PENDING,
        "attempts": 0,
        "next_attempt": now,
    }
    connection.execute(_INSERT, webhook)


def forget_webhook(connection: Connection, account: AccountId, task_uuid: str) -> None:
    """Drop the webhook of a task, delivered or not."""
    connection.execute(
        delete(webhooks).where(webhooks.c.account_id == account, webhooks.c.task_uuid == task_uuid)
    )


def find_webhook(connection: Connection, account: AccountId, task_uuid: str) -> WebhookRecord | None:
    """How far the delivery of a task's webhook is; None if it has none, or no outcome yet."""
    row = connection.execute(
        select(webhooks.c.status, webhooks.c.attempts, webhooks.c.next_attempt, webhooks.c.last_error).where(
            webhooks.c.account_id == account, webhooks.c.task_uuid == task_uuid
        )
    ).first()
    return None if row is None else WebhookRecord(WebhookStatus(row[0]), *row[1:])


def claim_due(
    connection: Connection,
    busy_hosts: list[str],
    busy_accounts: list[AccountId],
    now: float,
    lease: float,
) -> ClaimedWebhook | None:
    """The webhook that has been due longest, for the caller to deliver; None if none is due.

    Args:
        connection: of the transaction.
        busy_hosts: hosts that get no more for the moment.
        busy_accounts: accounts that get no more for the moment.
        now: the time in seconds since the epoch.
        lease: seconds after which it is due again, unless the caller has said before how the attempt ended.
    """
    due = select(webhooks.c.id).where(webhooks.c.next_attempt <= now)
    if busy_accounts:
        due = due.where(webhooks.c.account_id.not_in(busy_accounts), webhooks.c.host.not_in(busy_hosts))
    elif busy_hosts:
        host = _next_host(connection, busy_hosts)
        if host is None:
            return None
        due = due.where(webhooks.c.host == host)
    due = due.order_by(webhooks.c.next_attempt).limit(1)
    due = due.with_for_update(skip_locked=True)  # of two servers each claims another one; nothing on SQLite
    row = connection.execute(
        update(webhooks)
        .where(webhooks.c.id == due.scalar_subquery(), webhooks.c.next_attempt <= now)
        .values(attempts=webhooks.c.attempts + 1, next_attempt=now + lease)
        .returning(
            webhooks.c.id,
            webhooks.c.account_id,
            webhooks.c.task_uuid,
            webhooks.c.url,
            webhooks.c.host,
            webhooks.c.base_url,
            webhooks.c.attempts,
        )
    ).first()
    return None if row is None else ClaimedWebhook(*row)


def next_due(connection: Connection, busy_hosts: list[str]) -> float | None:
    """When the next webhook for any other host is due; None if none waits."""
    query = select(func.min(webhooks.c.next_attempt))
    if busy_hosts:
        host = _next_host(connection, busy_hosts)
        if host is None:
            return None
        query = query.where(webhooks.c.host == host, is_pending)
    due: float | None = connection.scalar(query)
    return due


def _next_host(connection: Connection, busy_hosts: list[str]) -> str | None:
    """Of the other hosts that webhooks wait for, the one whose first is due first.

    Looks at one webhook for each host, through the index, however many wait for it
    (wiki.postgresql.org/wiki/Loose_indexscan).
    """
    first = select(func.min(webhooks.c.host)).where(is_pending)
    hosts = select(first.scalar_subquery().label("host")).cte("hosts", recursive=True)
    following = first.where(webhooks.c.host > hosts.c.host).scalar_subquery()
    hosts = hosts.union_all(select(following).where(hosts.c.host.is_not(None)))
    due = (
        select(func.min(webhooks.c.next_attempt))
        .where(webhooks.c.host == hosts.c.host, is_pending)
        .scalar_subquery()
        .label("due")
    )
    others = (
        select(hosts.c.host, due)
        .where(hosts.c.host.is_not(None), hosts.c.host.not_in(busy_hosts))
        .order_by("due")
        .limit(1)
    )
    host: str | None = connection.scalar(others)
    return host


def count_pending(connection: Connection) -> int:
    """How many webhooks are neither delivered nor given up."""
    pending = select(func.count()).select_from(webhooks).where(is_pending)
    return connection.scalar(pending) or 0


def finish(
    connection: Connection,
    webhook: ClaimedWebhook,
    status: WebhookStatus,
    now: float,
    error: str | None = None,
) -> None:
    """Record that there will be no more attempts."""
    reason = None if error is None else printable(error)
    _set(connection, webhook, status=status, next_attempt=None, last_error=reason, ended=now)


def postpone(connection: Connection, webhook: ClaimedWebhook, until: float, error: str) -> None:
    """Record an attempt that failed, and when the next one is due."""
    _set(connection, webhook, next_attempt=until, last_error=printable(error))


def unclaim(connection: Connection, webhook: ClaimedWebhook, now: float) -> None:
    """Give a webhook back whose attempt was broken off, as if it had not begun."""
    _set(connection, webhook, attempts=webhook.attempts - 1, next_attempt=now)


def signing_secrets(connection: Connection, account: AccountId, now: float) -> list[str]:
    """The secrets that the account's webhooks are signed with: `whsec_…`, the newest first.

    The first call makes one.
    """
    query = select(
        accounts.c.webhook_secret, accounts.c.old_webhook_secret, accounts.c.old_webhook_secret_until
    ).where(accounts.c.id == account)
    row = connection.execute(query).one()
    if row.webhook_secret is None:
        connection.execute(
            update(accounts)
            .where(accounts.c.id == account, accounts.c.webhook_secret.is_(None))
            .values(webhook_secret=_new_secret())
        )
        row = connection.execute(query).one()  # another server may have been first
    old = [row.old_webhook_secret] if row.old_webhook_secret and now < row.old_webhook_secret_until else []
    return [row.webhook_secret, *old]


def rotate_secret(connection: Connection, account: AccountId, now: float) -> str:
    """A new secret for the account; for a day webhooks are signed with the one before as well."""
    secret = _new_secret()
    connection.execute(
        update(accounts)
        .where(accounts.c.id == account)
        .values(
            webhook_secret=secret,
            old_webhook_secret=accounts.c.webhook_secret,
            old_webhook_secret_until=now + OLD_SECRET_SIGNS_FOR,
        )
    )
    return secret


def _set(connection: Connection, webhook: ClaimedWebhook, **values: object) -> None:
    # By the attempt too: whoever was slower than the lease must not undo what the next one did.
    connection.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook.id, webhooks.c.attempts == webhook.attempts)
        .values(**values)
    )


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"


def _host(url: str) -> str:
    """Whom a URL leads to, with the port."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()[:255]
