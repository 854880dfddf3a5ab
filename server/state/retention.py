"""What is forgotten once it is old, so that the database does not grow with what nobody asks for any more.

Tasks that succeeded stay, as the ledger does: each charge is proved by its task, and whoever sends one again
is to get its result and not another charge.
"""

from sqlalchemy import Connection, delete, exists

from server.state.records import Status
from server.state.tables import outbox, tasks, webhooks

__all__ = ["forget_ended"]


def forget_ended(connection: Connection, before: float) -> tuple[int, int]:
    """Drop webhooks and failed tasks that ended before; returns how many of each.

    Neither a task whose error still waits for its session, nor one whose webhook is there, is dropped.
    """
    # No webhook that is to be sent again has an end.
    dropped = connection.execute(delete(webhooks).where(webhooks.c.ended < before)).rowcount
    told = [
        ~exists().where(table.c.account_id == tasks.c.account_id, table.c.task_uuid == tasks.c.task_uuid)
        for table in (outbox, webhooks)
    ]
    failed = connection.execute(
        delete(tasks).where(tasks.c.status == Status.FAILED, tasks.c.finished < before, *told)
    ).rowcount
    return dropped, failed
