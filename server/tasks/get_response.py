"""`getResponse`: what became of an earlier task."""

from msgspec import Struct

from server.protocol.errors import NotFoundError
from server.protocol.messages import GetResponse
from server.state import tasks
from server.tasks.context import Context

__all__ = ["handle"]


async def handle(task: GetResponse, context: Context) -> Struct:
    """The task's result, its error, or how far it is.

    Raises:
        NotFoundError: if the account has no such task.
    """
    running = context.services.runner.find(context.account, task.task_uuid)
    if running is not None and not running.outcome.done():
        return running.news()
    record = await context.services.database.run(tasks.find, context.account, task.task_uuid.lower())
    if record is None:
        raise NotFoundError("taskNotFound", f"there is no task {task.task_uuid}", "taskUUID")
    return await context.item(record, status=True)
