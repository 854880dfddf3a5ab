"""`getResponse`: what became of an earlier task."""

import msgspec

from server.protocol.errors import ErrorItem, NotFoundError
from server.protocol.messages import GetResponse, Progress, UpscaleResult
from server.state import tasks
from server.tasks.context import Context

__all__ = ["handle"]


async def handle(task: GetResponse, context: Context) -> UpscaleResult | ErrorItem | Progress:
    """The task's result, its error, or how far it is.

    Raises:
        NotFoundError: if the account has no such task.
    """
    item = await _item(task, context)
    # As it is spelt here: the task may have been sent in capitals, and the client looks for what it asked.
    return msgspec.structs.replace(item, task_uuid=task.task_uuid)


async def _item(task: GetResponse, context: Context) -> UpscaleResult | ErrorItem | Progress:
    running = context.services.runner.find(context.account, task.task_uuid)
    if running is not None and not running.outcome.done():
        return running.news()
    record = await context.services.database.run(tasks.find, context.account, task.task_uuid.lower())
    if record is None:
        raise NotFoundError("taskNotFound", f"there is no task {task.task_uuid}", "taskUUID")
    return await context.item(record, status=True)
