"""`upscale` and its classic name `imageUpscale`: the work that the server is for."""

import asyncio
from collections.abc import Sequence
from functools import partial

from msgspec import Struct, structs

from server.handlers.context import Context
from server.handlers.preparation import Prepared, prepare
from server.images.store import Draft, ImageFile
from server.protocol.errors import TaskError, UnavailableError
from server.protocol.replies import Acknowledgement
from server.protocol.requests import Upscale
from server.protocol.sources import StoredImage
from server.state import tasks
from server.state.images import Check
from server.state.records import Status, TaskRecord
from server.state.requests import UpscaleRequest
from server.state.tasks import LostTaskError
from server.upscale.running import Running

__all__ = ["finish", "handle"]


async def handle(task: Upscale, context: Context) -> Struct | None:
    """Take the task on. Over a socket the runner answers when it is done; over HTTP this waits for it.

    Raises:
        TaskError: if the task is refused.
    """
    async with context.services.runner.arrival(context.login.owner, task.sequence):
        request, taken = await _submit(await prepare(task, context))  # its image is not held while it waits
    return await _answer(task, context, request, taken)


async def finish(prepared: Prepared) -> Struct | None:
    """`handle` a task that is prepared.

    Raises:
        TaskError: if the task is refused.
    """
    request, taken = await _submit(prepared)
    return await _answer(prepared.task, prepared.context, request, taken)


async def _answer(
    task: Upscale, context: Context, request: UpscaleRequest, taken: Running | TaskRecord
) -> Struct | None:
    """The reply to a task that is taken on, or was before."""
    session, services = context.session, context.services
    if isinstance(taken, TaskRecord) and taken.status is Status.ACCEPTED:  # another server is at it
        if session is not None:
            return None if task.delivery_method != "async" else _acknowledgement(request)
        taken = await services.runner.outcome_elsewhere(context.account, taken.task_uuid)
    if isinstance(taken, TaskRecord):
        # As it is spelt here: the client looks for what it sent.
        return structs.replace(await context.results.item(taken), task_uuid=task.task_uuid)
    if session is not None:
        return None
    if task.delivery_method != "async":
        return await _wait(taken, None, context)
    patience = context.acknowledge_after
    return await _wait(taken, services.settings.acknowledge_after if patience is None else patience, context)


async def _submit(prepared: Prepared) -> tuple[UpscaleRequest, Running | TaskRecord]:
    """Submit a task with its images: recorded together, an accepted task can always be run again.

    What the account cannot pay for is not kept, nor are the images of a task that is refused.

    Raises:
        TaskError: if the task is refused.
    """
    task, context, taken = prepared.task, prepared.context, None
    session = context.session
    try:
        request, drafts = await _drafted(prepared)
        taken = await context.services.runner.submit(
            context.account,
            request,
            session=session.uuid if session else None,
            base_url=context.base_url,
            acknowledge=task.delivery_method == "async" and session is not None,
            pixels=prepared.pixels,
            quote=prepared.quote,
            drafts=drafts,
        )
        return request, taken
    finally:
        if not (isinstance(taken, Running) and taken.pixels is prepared.pixels):
            prepared.release()


async def _drafted(prepared: Prepared) -> tuple[UpscaleRequest, Sequence[Draft]]:
    """The request with all its images, and those that are to be recorded with it.

    Raises:
        InsufficientCreditsError: if the account cannot pay for the task, as far as its price is known.
        QuotaError: if the account keeps too many images.
    """
    context, request = prepared.context, prepared.request
    services, account = context.services, context.account
    payable: Check | None = None
    if prepared.quote is not None:
        payable = partial(
            tasks.check_payable,
            account=account,
            task_uuid=request.task_uuid,
            price=prepared.quote.price,
            token=request.token,
        )
    files = [*prepared.styles] if prepared.file is None else [*prepared.styles, prepared.file]
    uuids, drafts = [], []
    try:
        for file in files:
            if isinstance(file, ImageFile):
                drafts.append(await services.inputs.draft(account, file, scope=context.scope, check=payable))
            uuids.append(drafts[-1].image.uuid if isinstance(file, ImageFile) else file.uuid)
    except TaskError:
        await services.images.drop_drafts(drafts)
        raise
    source = request.source if prepared.file is None else StoredImage(uuids.pop())
    return structs.replace(request, source=source, style_images=tuple(uuids)), drafts


async def _wait(running: Running, patience: float | None, context: Context) -> Struct:
    """The outcome of a task, or an acknowledgement if that takes more than `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            record = await asyncio.shield(running.outcome)
    except LostTaskError:
        record = await context.services.runner.outcome_elsewhere(running.account, running.key)
    except TimeoutError:
        return _acknowledgement(running.request)
    except asyncio.CancelledError:
        if running.outcome.cancelled():
            raise UnavailableError(
                "the server is stopping; the task will be finished after its next start"
            ) from None
        raise
    return await context.results.item(record)


def _acknowledgement(request: UpscaleRequest) -> Acknowledgement:
    return Acknowledgement(task_type=request.task_type, task_uuid=request.task_uuid)
