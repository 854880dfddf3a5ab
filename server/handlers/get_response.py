"""`getResponse`: what became of an earlier task."""

from msgspec import UNSET, Struct, structs

from server.handlers.context import Context
from server.protocol.errors import ErrorItem, NotFoundError
from server.protocol.replies import Progress, UpscaleResult, WebhookItem, iso_time
from server.protocol.requests import GetResponse
from server.state import tasks
from server.state.webhooks import WebhookRecord, find_webhook

__all__ = ["handle"]


async def handle(task: GetResponse, context: Context) -> Struct:
    """The task's result, its error, or how far it is; with one that has a webhook, how far that is.

    Raises:
        NotFoundError: if the account has no such task.
    """
    item = await _item(task, context)
    # As it is spelt here: the task may have been sent in capitals, and the client looks for what it asked.
    return structs.replace(item, task_uuid=task.task_uuid)


async def _item(task: GetResponse, context: Context) -> UpscaleResult | ErrorItem | Progress:
    await context.settled(task.task_uuid)
    running = context.services.runner.find(context.account, task.task_uuid)
    if running is not None and not running.outcome.done() and context.login.sees(running.request.scope):
        return running.news()
    record = await context.services.database.run(tasks.look, context.account, task.task_uuid.lower())
    if record is None or not context.sees(record):
        raise NotFoundError("taskNotFound", f"there is no task {task.task_uuid}", "taskUUID")
    webhook = await context.services.database.run(find_webhook, context.account, record.task_uuid)
    # Last: it may be large, and is counted as it is sent.
    item = await context.results.item(record, status=True)
    if webhook is None or isinstance(item, Progress):
        return item
    return structs.replace(item, webhook=_webhook_item(webhook))


def _webhook_item(webhook: WebhookRecord) -> WebhookItem:
    return WebhookItem(
        status=webhook.status.value,
        attempts=webhook.attempts,
        next_attempt=UNSET if webhook.next_attempt is None else iso_time(webhook.next_attempt),
        last_error=webhook.last_error or UNSET,
    )
