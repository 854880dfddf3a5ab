"""Replies that wait until their session takes them, in order."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select

from server.state.accounts import AccountId
from server.state.tables import outbox

__all__ = [
    "UndeliveredReply",
    "count_undelivered",
    "delivered",
    "forget_outcome",
    "keep_outcome",
    "keep_undelivered",
    "purge_undelivered",
    "sessions_with_mail",
    "undelivered",
]


class UndeliveredReply(NamedTuple):
    """A reply in the outbox: a MessagePack frame, or the outcome of a task."""

    id: int
    frame: bytes | None
    task_uuid: str | None


def keep_undelivered(
    connection: Connection, account: AccountId, session: str, now: float, frame: bytes
) -> None:
    """Put a MessagePack frame into the outbox of a session."""
    connection.execute(insert(outbox).values(account_id=account, session=session, frame=frame, created=now))


def keep_outcome(
    connection: Connection, account: AccountId, session: str, now: float, task_uuid: str
) -> None:
    """Put the outcome of a task into the outbox of a session."""
    connection.execute(
        insert(outbox).values(account_id=account, session=session, task_uuid=task_uuid, created=now)
    )


def forget_outcome(connection: Connection, account: AccountId, task_uuid: str) -> None:
    """Take the outcome of a task out of the outbox, whoever it waits for."""
    connection.execute(delete(outbox).where(outbox.c.account_id == account, outbox.c.task_uuid == task_uuid))


def undelivered(connection: Connection, account: AccountId, session: str) -> list[UndeliveredReply]:
    """The outbox of a session, oldest first."""
    query = (
        select(outbox.c.id, outbox.c.frame, outbox.c.task_uuid)
        .where(outbox.c.account_id == account, outbox.c.session == session)
        .order_by(outbox.c.id)
    )
    return [UndeliveredReply(*row) for row in connection.execute(query)]


def sessions_with_mail(connection: Connection) -> list[tuple[AccountId, str]]:
    """The sessions whose outbox is not empty."""
    query = select(outbox.c.account_id, outbox.c.session).distinct()
    return [(AccountId(row.account_id), row.session) for row in connection.execute(query)]


def count_undelivered(connection: Connection) -> int:
    """How many replies wait in the outboxes of all sessions."""
    return connection.scalar(select(func.count()).select_from(outbox)) or 0


def delivered(connection: Connection, outbox_ids: Collection[int]) -> None:
    """Take replies out of the outbox."""
    connection.execute(delete(outbox).where(outbox.c.id.in_(outbox_ids)))


def purge_undelivered(connection: Connection, before: float) -> int:
    """Drop replies that nobody came for; returns how many."""
    return connection.execute(delete(outbox).where(outbox.c.created < before)).rowcount
