"""Which tasks a server has to see to: those of servers that are gone, and its own that it does not run."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, bindparam, func, select, update

from server.state.claims import ServerId, ServerLock
from server.state.records import COLUMNS, Attempt, AttemptId, TaskRecord, record_of
from server.state.tables import tasks, unfinished
from server.state.tasks import settle

__all__ = ["AT_ONCE", "attempts_of", "records_of", "take_over"]

AT_ONCE: Final = 500
"""How many tasks a transaction takes over or reads at most; others wait for it."""


def take_over(connection: Connection, lock: ServerLock, now: float) -> int:
    """Make some tasks of servers that are gone this server's own, each as a new attempt; returns how many.

    What was reserved for them is released, but for what they owe: they are to begin again. There may be more
    if it is `AT_ONCE`.
    """
    orphans: list[TaskRecord] = []
    for other in _owners(connection):
        if other is None or (other != lock.server and lock.is_dead(connection, other)):
            query = (
                select(*COLUMNS)
                .where(unfinished, tasks.c.owner.is_not_distinct_from(other))
                .order_by(tasks.c.created)
                .limit(AT_ONCE - len(orphans))
                .with_for_update()
            )
            orphans += map(record_of, connection.execute(query))
        if len(orphans) == AT_ONCE:
            break
    for orphan in orphans:
        settle(connection, orphan, now)
    if orphans:
        begin_anew = (
            update(tasks)
            .where(tasks.c.account_id == bindparam("of"), tasks.c.task_uuid == bindparam("uuid"))
            .values(owner=lock.server, price=None, charged=bindparam("paid"), attempt=bindparam("new"))
        )
        changes = [
            {
                "of": orphan.account,
                "uuid": orphan.task_uuid,
                "new": Attempt.of(orphan.account, orphan.task_uuid).id,
                "paid": orphan.charged + orphan.owed,
            }
            for orphan in orphans
        ]
        connection.execute(begin_anew, changes)
    return len(orphans)


def attempts_of(connection: Connection, server: ServerId) -> set[AttemptId]:
    """The attempts of a server that have no outcome."""
    query = select(tasks.c.attempt).where(unfinished, tasks.c.owner == server)
    return {AttemptId(attempt) for attempt in connection.scalars(query)}


def records_of(connection: Connection, server: ServerId, attempts: Collection[AttemptId]) -> list[TaskRecord]:
    """Those of a server's attempts, at most `AT_ONCE`, that have no outcome, oldest first."""
    query = (
        select(*COLUMNS)
        .where(unfinished, tasks.c.owner == server, tasks.c.attempt.in_(attempts))
        .order_by(tasks.c.created)
    )
    return [record_of(row) for row in connection.execute(query)]


def _owners(connection: Connection) -> list[ServerId | None]:
    """Whose tasks have no outcome: one look into the index for each server, however many tasks there are."""
    unowned = select(tasks.c.attempt).where(unfinished, tasks.c.owner.is_(None)).limit(1)
    owners: list[ServerId | None] = [] if connection.execute(unowned).first() is None else [None]
    following = select(func.min(tasks.c.owner)).where(unfinished)
    last = connection.scalar(following)
    while last is not None:
        owners.append(ServerId(last))
        last = connection.scalar(following.where(tasks.c.owner > last))
    return owners
