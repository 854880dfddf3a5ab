"""Tasks from acceptance to outcome.

A task is recorded before anything is said about it. Its outcome, its charge and the reply to its session are
one transaction, with its webhook, so that none of them is there without the others. A task belongs to one
server at a time, its owner: nobody else reserves money for it or records its outcome.
"""

from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from server.protocol.errors import ErrorItem
from server.state import ledger
from server.state.accounts import AccountId
from server.state.claims import ServerId, ServerLock
from server.state.outbox import forget_outcome, keep_outcome
from server.state.records import Status, StoredResult, TaskRecord
from server.state.tables import tasks
from server.state.webhooks import Destination, forget_webhook, record_webhook

__all__ = [
    "LostTaskError",
    "accept",
    "cancel",
    "fail",
    "find",
    "reserve",
    "succeed",
    "take_over",
    "unfinished",
    "watch",
    "withdraw",
]


class LostTaskError(Exception):
    """The task belongs to another server by now; what this one did for it does not count."""


_COLUMNS = (
    tasks.c.account_id,
    tasks.c.task_uuid,
    tasks.c.request,
    tasks.c.session,
    tasks.c.status,
    tasks.c.result,
    tasks.c.error,
    tasks.c.owner,
)


def accept(
    connection: Connection,
    account: AccountId,
    task_uuid: str,
    request: bytes,
    session: str | None,
    now: float,
    owner: ServerId | None = None,
) -> TaskRecord | None:
    """Record a new task; if the account used the UUID before, change nothing and return that record.

    A failed task is an exception: the same request may be sent again, and is then a new one.
    """
    previous = find(connection, account, task_uuid)
    if previous is not None:
        if previous.status is not Status.FAILED or previous.encoded_request != request:
            return previous
        # An answer that still waits for its session, or is to be told, would now tell of the new one.
        forget_webhook(connection, account, task_uuid)
        forget_outcome(connection, account, task_uuid)
        connection.execute(delete(tasks).where(*_is(account, task_uuid)))
    connection.execute(
        insert(tasks).values(
            account_id=account,
            task_uuid=task_uuid,
            request=request,
            session=session,
            status=Status.ACCEPTED,
            reserved=0,
            owner=owner,
            created=now,
        )
    )
    return None


def withdraw(connection: Connection, account: AccountId, task_uuid: str, owner: ServerId) -> None:
    """Forget a task that its server accepted and did not begin, if it is there."""
    connection.execute(
        delete(tasks).where(
            *_is(account, task_uuid),
            tasks.c.status == Status.ACCEPTED,
            tasks.c.owner == owner,
            tasks.c.reserved == 0,
        )
    )


def find(
    connection: Connection, account: AccountId, task_uuid: str, *, locked: bool = False
) -> TaskRecord | None:
    """The record of a task; `locked` to the end of the transaction if nobody else is to change it."""
    query = select(*_COLUMNS).where(*_is(account, task_uuid))
    row = connection.execute(query.with_for_update() if locked else query).first()
    return None if row is None else _record(row)


def unfinished(connection: Connection, owner: ServerId | None = None) -> list[TaskRecord]:
    """The tasks of a server without an outcome, oldest first; none gets one before the transaction ends."""
    query = (
        select(*_COLUMNS)
        .where(tasks.c.status == Status.ACCEPTED, tasks.c.owner.is_not_distinct_from(owner))
        .order_by(tasks.c.created)
        .with_for_update()
    )
    return [_record(row) for row in connection.execute(query)]


def take_over(connection: Connection, lock: ServerLock, now: float) -> list[TaskRecord]:
    """The tasks of servers that are gone, of each oldest first; now they belong to the server of the lock.

    What was reserved for them is released: they are to begin again.
    """
    others = select(tasks.c.owner).where(
        tasks.c.status == Status.ACCEPTED, tasks.c.owner.is_distinct_from(lock.server)
    )
    found: list[TaskRecord] = []
    for other in connection.scalars(others.distinct()).all():
        if other is None or lock.is_dead(connection, ServerId(other)):
            found += unfinished(connection, other)
    for task in found:
        ledger.release(connection, task.account, task.task_uuid, now)
        connection.execute(update(tasks).where(*_is(task.account, task.task_uuid)).values(owner=lock.server))
    return [replace(task, owner=lock.server) for task in found]


def watch(connection: Connection, account: AccountId, task_uuid: str, session: str) -> bool:
    """Have the outcome sent to this session; False if there is an outcome already."""
    changed = connection.execute(
        update(tasks)
        .where(*_is(account, task_uuid), tasks.c.status == Status.ACCEPTED)
        .values(session=session)
    )
    return changed.rowcount > 0


def reserve(
    connection: Connection,
    account: AccountId,
    task_uuid: str,
    amount: int,
    now: float,
    owner: ServerId | None = None,
) -> bool:
    """Set aside what a task will cost; False if the account cannot pay it.

    Raises:
        LostTaskError: if the task has an outcome, or belongs to another server.
    """
    if _held(connection, account, task_uuid, owner) is not None:
        raise LostTaskError
    return ledger.reserve(connection, account, task_uuid, amount, now)


def succeed(
    connection: Connection,
    account: AccountId,
    task_uuid: str,
    result: StoredResult,
    now: float,
    owner: ServerId | None = None,
    webhook: Destination | None = None,
) -> TaskRecord:
    """Record the result, charge what was reserved, put the reply into the outbox, and the webhook beside it.

    A task has one outcome: if it was recorded before, that one stays and nothing is charged again.

    Raises:
        LostTaskError: if the task belongs to another server.
    """
    if (finished := _held(connection, account, task_uuid, owner)) is not None:
        return finished
    cost = ledger.charge(connection, account, task_uuid, now)
    stored = msgspec.structs.replace(result, cost=cost)
    return _finish(
        connection,
        account,
        task_uuid,
        now,
        {"status": Status.SUCCEEDED, "result": msgspec.json.encode(stored)},
        webhook,
    )


def fail(
    connection: Connection,
    account: AccountId,
    task_uuid: str,
    error: ErrorItem,
    now: float,
    owner: ServerId | None = None,
    webhook: Destination | None = None,
) -> TaskRecord:
    """Record the error, release what was reserved, tell of it as `succeed` does; once, too.

    Raises:
        LostTaskError: if the task belongs to another server.
    """
    if (finished := _held(connection, account, task_uuid, owner)) is not None:
        return finished
    ledger.release(connection, account, task_uuid, now)
    return _finish(
        connection,
        account,
        task_uuid,
        now,
        {"status": Status.FAILED, "error": msgspec.json.encode(error)},
        webhook,
    )


def cancel(
    connection: Connection,
    account: AccountId,
    task_uuid: str,
    error: ErrorItem,
    now: float,
    webhook: Destination | None = None,
) -> bool:
    """`fail`, whichever server the task belongs to; False if it had an outcome before."""
    record = find(connection, account, task_uuid, locked=True)
    if record is None or record.status is not Status.ACCEPTED:
        return False
    fail(connection, account, task_uuid, error, now, record.owner, webhook)
    return True


def _held(
    connection: Connection, account: AccountId, task_uuid: str, owner: ServerId | None
) -> TaskRecord | None:
    """The outcome of a task, if it has one; else nobody but this transaction gives it one, to its end.

    Raises:
        LostTaskError: if it has none, and belongs to another server.
    """
    record = find(connection, account, task_uuid, locked=True)
    assert record is not None, "there is no such task"
    if record.status is not Status.ACCEPTED:
        return record
    if record.owner != owner:
        raise LostTaskError
    return None


def _finish(
    connection: Connection,
    account: AccountId,
    task_uuid: str,
    now: float,
    values: dict[str, Any],
    webhook: Destination | None,
) -> TaskRecord:
    connection.execute(update(tasks).where(*_is(account, task_uuid)).values(**values, finished=now))
    record = find(connection, account, task_uuid)
    assert record is not None
    if record.session is not None:
        keep_outcome(connection, account, record.session, now, task_uuid)
    if webhook is not None:
        record_webhook(connection, account, task_uuid, webhook, now)
    return record


def _is(account: AccountId, task_uuid: str) -> tuple[Any, Any]:
    return tasks.c.account_id == account, tasks.c.task_uuid == task_uuid


def _record(row: Any) -> TaskRecord:
    return TaskRecord(
        account=AccountId(row.account_id),
        task_uuid=row.task_uuid,
        encoded_request=row.request,
        session=row.session,
        status=Status(row.status),
        result=row.result and msgspec.json.decode(row.result, type=StoredResult),
        error=row.error and msgspec.json.decode(row.error, type=ErrorItem),
        owner=None if row.owner is None else ServerId(row.owner),
    )
