"""Tasks from acceptance to outcome, and the outbox of replies that wait for their session.

A task is recorded before anything is said about it. Its outcome, its charge and the reply to its session are
one transaction, so that none of them is there without the others.
"""

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, func, insert, select, update

from server.protocol.errors import ErrorItem
from server.state import ledger
from server.state.accounts import AccountId
from server.state.database import outbox, tasks

__all__ = [
    "Status",
    "StoredResult",
    "TaskRecord",
    "UndeliveredReply",
    "accept",
    "count_undelivered",
    "delivered",
    "fail",
    "find",
    "keep_undelivered",
    "purge_undelivered",
    "succeed",
    "undelivered",
    "unfinished",
    "watch",
]


class Status(StrEnum):
    """Where a task stands."""

    ACCEPTED = "accepted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class StoredResult(Struct, frozen=True, omit_defaults=True):
    """What a finished upscale is rebuilt from: the image is in the store. `cost` in nanodollars."""

    image_uuid: str
    image_name: str
    input_image_uuid: str
    cost: int = 0


class TaskRecord(NamedTuple):
    """A task as recorded. `request` is the JSON it was accepted with."""

    account: AccountId
    task_uuid: str
    request: bytes
    session: str | None
    status: Status
    result: StoredResult | None
    error: ErrorItem | None


class UndeliveredReply(NamedTuple):
    """A reply in the outbox: a JSON frame, or the outcome of a task."""

    id: int
    frame: bytes | None
    task_uuid: str | None


_COLUMNS = (
    tasks.c.account_id,
    tasks.c.task_uuid,
    tasks.c.request,
    tasks.c.session,
    tasks.c.status,
    tasks.c.result,
    tasks.c.error,
)


def accept(
    connection: Connection,
    account: AccountId,
    task_uuid: str,
    request: bytes,
    session: str | None,
    now: float,
) -> TaskRecord | None:
    """Record a new task; if the account used the UUID before, change nothing and return that record.

    A failed task is an exception: the same request may be sent again, and is then a new one.
    """
    previous = find(connection, account, task_uuid)
    if previous is not None:
        if previous.status is not Status.FAILED or previous.request != request:
            return previous
        # An answer that still waits for its session would now tell of the new one.
        connection.execute(
            delete(outbox).where(outbox.c.account_id == account, outbox.c.task_uuid == task_uuid)
        )
        connection.execute(delete(tasks).where(*_is(account, task_uuid)))
    connection.execute(
        insert(tasks).values(
            account_id=account,
            task_uuid=task_uuid,
            request=request,
            session=session,
            status=Status.ACCEPTED,
            reserved=0,
            created=now,
        )
    )
    return None


def find(connection: Connection, account: AccountId, task_uuid: str) -> TaskRecord | None:
    """The record of a task."""
    row = connection.execute(select(*_COLUMNS).where(*_is(account, task_uuid))).first()
    return None if row is None else _record(row)


def unfinished(connection: Connection) -> list[TaskRecord]:
    """The tasks that were accepted and have no outcome, oldest first."""
    query = select(*_COLUMNS).where(tasks.c.status == Status.ACCEPTED).order_by(tasks.c.created)
    return [_record(row) for row in connection.execute(query)]


def watch(connection: Connection, account: AccountId, task_uuid: str, session: str) -> bool:
    """Have the outcome sent to this session; False if there is an outcome already."""
    changed = connection.execute(
        update(tasks)
        .where(*_is(account, task_uuid), tasks.c.status == Status.ACCEPTED)
        .values(session=session)
    )
    return changed.rowcount > 0


def succeed(
    connection: Connection, account: AccountId, task_uuid: str, result: StoredResult, now: float
) -> TaskRecord:
    """Record the result, charge what was reserved, put the reply into the outbox.

    A task has one outcome: if it was recorded before, that one stays and nothing is charged again.
    """
    if (finished := _finished(connection, account, task_uuid)) is not None:
        return finished
    cost = ledger.charge(connection, account, task_uuid, now)
    stored = msgspec.structs.replace(result, cost=cost)
    return _finish(
        connection,
        account,
        task_uuid,
        now,
        {"status": Status.SUCCEEDED, "result": msgspec.json.encode(stored)},
    )


def fail(
    connection: Connection, account: AccountId, task_uuid: str, error: ErrorItem, now: float
) -> TaskRecord:
    """Record the error, release what was reserved, put the reply into the outbox; once, as `succeed`."""
    if (finished := _finished(connection, account, task_uuid)) is not None:
        return finished
    ledger.release(connection, account, task_uuid)
    return _finish(
        connection, account, task_uuid, now, {"status": Status.FAILED, "error": msgspec.json.encode(error)}
    )


def keep_undelivered(
    connection: Connection, account: AccountId, session: str, now: float, frame: bytes
) -> None:
    """Put a JSON frame into the outbox of a session."""
    connection.execute(insert(outbox).values(account_id=account, session=session, frame=frame, created=now))


def undelivered(connection: Connection, account: AccountId, session: str) -> list[UndeliveredReply]:
    """The outbox of a session, oldest first."""
    query = (
        select(outbox.c.id, outbox.c.frame, outbox.c.task_uuid)
        .where(outbox.c.account_id == account, outbox.c.session == session)
        .order_by(outbox.c.id)
    )
    return [UndeliveredReply(*row) for row in connection.execute(query)]


def count_undelivered(connection: Connection) -> int:
    """How many replies wait in the outboxes of all sessions."""
    return connection.scalar(select(func.count()).select_from(outbox)) or 0


def delivered(connection: Connection, outbox_id: int) -> None:
    """Take a reply out of the outbox."""
    connection.execute(delete(outbox).where(outbox.c.id == outbox_id))


def purge_undelivered(connection: Connection, before: float) -> int:
    """Drop replies that nobody came for; returns how many."""
    return connection.execute(delete(outbox).where(outbox.c.created < before)).rowcount


def _finished(connection: Connection, account: AccountId, task_uuid: str) -> TaskRecord | None:
    record = find(connection, account, task_uuid)
    return None if record is None or record.status is Status.ACCEPTED else record


def _finish(
    connection: Connection, account: AccountId, task_uuid: str, now: float, values: dict[str, Any]
) -> TaskRecord:
    connection.execute(update(tasks).where(*_is(account, task_uuid)).values(**values, finished=now))
    record = find(connection, account, task_uuid)
    assert record is not None
    if record.session is not None:
        connection.execute(
            insert(outbox).values(
                account_id=account, session=record.session, task_uuid=task_uuid, created=now
            )
        )
    return record


def _is(account: AccountId, task_uuid: str) -> tuple[Any, Any]:
    return tasks.c.account_id == account, tasks.c.task_uuid == task_uuid


def _record(row: Any) -> TaskRecord:
    return TaskRecord(
        account=AccountId(row.account_id),
        task_uuid=row.task_uuid,
        request=row.request,
        session=row.session,
        status=Status(row.status),
        result=row.result and msgspec.json.decode(row.result, type=StoredResult),
        error=row.error and msgspec.json.decode(row.error, type=ErrorItem),
    )
