"""What is forgotten once it is old, so that the database does not grow with what nobody asks for any more.

Tasks that were charged stay, as the ledger does: each charge is proved by its task, and whoever sends one
again is to get its result and not another charge.
"""

from typing import Final

from sqlalchemy import Connection, delete, exists, select, tuple_

from server.state.tables import failed_for_free, outbox, tasks, tokens, webhooks

__all__ = ["AT_ONCE", "forget_failed", "forget_tokens", "forget_webhooks"]

AT_ONCE: Final = 500
"""How many records a transaction drops at most: others wait for it."""


def forget_webhooks(connection: Connection, before: float) -> int:
    """Drop some webhooks that ended before; returns how many. There may be more if it is `AT_ONCE`."""
    # No webhook that is to be sent again has an end.
    old = select(webhooks.c.id).where(webhooks.c.ended < before).limit(AT_ONCE)
    return connection.execute(delete(webhooks).where(webhooks.c.id.in_(old))).rowcount


def forget_tokens(connection: Connection, before: float) -> int:
    """Drop some tokens that expired before; returns how many. There may be more if it is `AT_ONCE`."""
    old = select(tokens.c.id).where(tokens.c.expires < before).limit(AT_ONCE)
    return connection.execute(delete(tokens).where(tokens.c.id.in_(old))).rowcount


def forget_failed(connection: Connection, before: float) -> int:
    """Drop some tasks that failed before, and cost nothing; returns how many.

    There may be more if it is `AT_ONCE`.

    Neither a task whose error still waits for its session, nor one whose webhook is there, is dropped.
    """
    old_and_failed = failed_for_free, tasks.c.finished < before
    announced = [
        ~exists().where(table.c.account_id == tasks.c.account_id, table.c.task_uuid == tasks.c.task_uuid)
        for table in (outbox, webhooks)
    ]
    old = select(tasks.c.account_id, tasks.c.task_uuid).where(*old_and_failed, *announced).limit(AT_ONCE)
    # Again that it failed: it may have been sent again since.
    forget = delete(tasks).where(tuple_(tasks.c.account_id, tasks.c.task_uuid).in_(old), *old_and_failed)
    return connection.execute(forget).rowcount
