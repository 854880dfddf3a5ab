"""One module per kind of task.

Each has `handle(task, context)`, which returns the reply, or None if the reply comes later. To add a kind: a
Struct in `protocol.requests`, a module here, a line in `_HANDLERS`.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from server.handlers import (
    account_management,
    cancel,
    get_response,
    image_upload,
    media_storage,
    model_search,
    task_details,
    upscale,
)
from server.handlers.context import Context
from server.handlers.permissions import permit
from server.protocol.codec import RawTask
from server.protocol.errors import ErrorItem, ServerError, TaskError, invalid
from server.protocol.replies import PONG, PingResult
from server.protocol.requests import (
    AccountManagement,
    Authentication,
    Cancel,
    GetResponse,
    GetTaskDetails,
    ImageUpload,
    ImageUpscale,
    MediaStorage,
    ModelSearch,
    Ping,
    Task,
    Upscale,
)
from server.services import Services

__all__ = ["Context", "as_item", "dispatch"]

log = logging.getLogger(__name__)

Handler = Callable[[Any, Context], Awaitable[Struct | None]]


async def _pong(_task: Ping, _context: Context) -> PingResult:
    return PONG


async def _misplaced(_task: Authentication, _context: Context) -> None:
    """Over HTTP; over a socket the connection handles all authentications."""
    raise invalid("taskType", "the authentication must be the first task")


_HANDLERS: dict[type[Task], Handler] = {
    Authentication: _misplaced,
    Ping: _pong,
    ImageUpload: image_upload.handle,
    MediaStorage: media_storage.handle,
    ImageUpscale: upscale.handle,
    Upscale: upscale.handle,
    GetResponse: get_response.handle,
    GetTaskDetails: task_details.handle,
    AccountManagement: account_management.handle,
    ModelSearch: model_search.handle,
    Cancel: cancel.handle,
}


async def dispatch(raw: RawTask, context: Context) -> Struct | None:
    """The reply to one task: an item, an error, or None if it comes later. Raises nothing."""
    try:
        context.services.edge.take_request(context.account)
        task = raw.parse()
        permit(task, context.login, context.services.clock())
        return await _HANDLERS[type(task)](task, context)
    except TaskError as error:
        return as_item(error, raw, context.base_url, context.services)
    except Exception:
        log.exception("%s %s failed", raw.task_type, raw.task_uuid)
        return as_item(ServerError(), raw, context.base_url, context.services)


def as_item(error: TaskError, raw: RawTask, base_url: str, services: Services) -> ErrorItem:
    """An error, with what could be read of the task it belongs to; it is counted and logged."""
    services.telemetry.metrics.error_sent(error.code)
    log.info("task refused", extra={"task": raw.task_uuid, "task_type": raw.task_type, "code": error.code})
    return error.item(raw.task_type, raw.task_uuid, f"{base_url}/docs/errors")
