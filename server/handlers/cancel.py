"""`cancel`: stops a task that is under way."""

import asyncio
from typing import Final

from server.handlers.context import Context
from server.protocol.errors import NotFoundError, UnavailableError, invalid
from server.protocol.fields import is_uuid
from server.protocol.replies import CancelResult
from server.protocol.requests import Cancel

__all__ = ["handle"]

_PATIENCE: Final = 5.0


async def handle(task: Cancel, context: Context) -> CancelResult:
    """Stop the target, whose own reply becomes a `taskCancelled` error; it says what that costs, if anything.

    Raises:
        ParameterError: if `targetTaskUUID` is not a UUID.
        NotFoundError: if no such task is under way, or it was finished first.
        UnavailableError: if its end cannot be recorded soon, as on a full disk; it will be.
    """
    if not is_uuid(task.target_task_uuid):
        raise invalid("targetTaskUUID", f"{task.target_task_uuid[:64]!r} is not a UUID", "UUID")
    await context.settled(task.target_task_uuid)
    try:
        async with asyncio.timeout(_PATIENCE):
            stopped = await context.services.runner.cancel(
                context.login, task.target_task_uuid, context.base_url
            )
    except TimeoutError as error:
        raise UnavailableError("the task is stopped, which cannot be recorded for now") from error
    if not stopped:
        raise NotFoundError("taskNotFound", f"no task {task.target_task_uuid} is under way", "targetTaskUUID")
    return CancelResult(
        task_uuid=task.task_uuid,
        target_task_uuid=task.target_task_uuid,
        status="cancelled",
        result="cancelled",
    )
