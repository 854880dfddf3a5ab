"""`upscale` and its classic name `imageUpscale`: the work that the server is for."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec import Struct, structs

from engines import ModelError, Upscaler
from onnx_models import Model
from server.handlers.context import Context
from server.images.store import ImageFile
from server.outbound.fetch import FetchError
from server.protocol.errors import DatabaseUnavailableError, TaskError, UnavailableError, invalid, unsupported
from server.protocol.replies import Acknowledgement
from server.protocol.requests import Upscale
from server.protocol.sources import InlineImage, StoredImage
from server.state import tasks
from server.state.images import ImageRecord
from server.state.records import Status, TaskRecord
from server.state.requests import UpscaleRequest
from server.state.tasks import LostTaskError
from server.upscale.auxiliaries import denoiser_of, face_restorer_of
from server.upscale.request import check, choose_models, cut_warnings, diffusion_of, input_source, request_for
from server.upscale.running import Running
from server.upscale.safety import safety_of

__all__ = ["handle"]


async def handle(task: Upscale, context: Context) -> Struct | None:
    """Take the task on. Over a socket the runner answers when it is done; over HTTP this waits for it.

    Raises:
        TaskError: if the task is refused.
    """
    services = context.services
    models = choose_models(services.catalogue, task)
    parameter, source = await input_source(task, context.raw.codec)
    check(task, models, services.settings.reachable)
    denoiser = denoiser_of(task, services.catalogue)
    face_restorer = face_restorer_of(task, services.catalogue)
    safety = safety_of(task, services.catalogue)
    await _reach_destinations(task, context)
    if task.include_tiles and context.session is None:
        raise unsupported(
            "includeTiles", "tiles come as messages of their own: send the task over a WebSocket"
        )
    services.check_ttl(task.ttl)
    source = await services.inputs.own(context.account, source, context.base_url, parameter)
    file: ImageRecord | ImageFile | None = None
    if isinstance(source, InlineImage):
        file, source = await services.inputs.look(context.account, source, parameter), StoredImage("")
    warnings = (*context.raw.warnings(), *await _cut_prompts(task, models.first, services.upscaler))
    request = request_for(
        task,
        models=models,
        source=source,
        parameter=parameter,
        warnings=warnings,
        denoiser=denoiser,
        face_restorer=face_restorer,
        safety=safety,
        service=context.service,
    )
    session = context.session
    submit = partial(
        services.runner.submit,
        context.account,
        session=session.uuid if session else None,
        base_url=context.base_url,
        acknowledge=task.delivery_method == "async" and session is not None,
    )
    taken = await (submit(request) if file is None else _submit_with(file, request, submit, context))
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


async def _submit_with(
    file: ImageRecord | ImageFile,
    request: UpscaleRequest,
    submit: Callable[..., Awaitable[Running | TaskRecord]],
    context: Context,
) -> Running | TaskRecord:
    """Submit a task with its input, which is kept before, so that an accepted task can always be run again.

    What the account cannot pay for is not kept, nor is the input of a task that is refused.

    Raises:
        TaskError: if the task is refused.
    """
    services, account = context.services, context.account
    price = services.runner.price(request, file.width, file.height)
    if isinstance(file, ImageRecord):
        kept, is_new = file, False
    else:
        payable = partial(tasks.check_payable, account=account, task_uuid=request.task_uuid, price=price)
        kept, is_new = await services.inputs.keep(account, file, check=payable)
    try:
        return await submit(structs.replace(request, source=StoredImage(kept.uuid)), price=price)
    except DatabaseUnavailableError:
        raise  # it may be accepted for all that
    except TaskError:
        if is_new:
            await services.images.discard(kept)
        raise


async def _reach_destinations(task: Upscale, context: Context) -> None:
    """See that the outcome can go where it is wanted, before anything is done for it.

    A task that is sent again gets its answer whatever has become of its hosts.

    Raises:
        ParameterError: naming the URL whose host cannot be reached.
    """
    given = {"webhookURL": task.webhook_url, "uploadEndpoint": task.upload_endpoint}
    wanted = {name: url for name, url in given.items() if url is not None}
    if not wanted:
        return
    known = await context.services.database.run(tasks.find, context.account, task.task_uuid.lower())
    if known is not None and known.status is not Status.FAILED:
        return
    for name, url in wanted.items():
        try:
            await context.services.destinations[name].reach(url, account=context.account)
        except FetchError as error:
            raise invalid(name, f"{name}: {error}", "URL") from error


async def _cut_prompts(task: Upscale, model: Model, upscaler: Upscaler) -> tuple[str, ...]:
    """What the reply says of prompts that the model cuts."""
    diffusion = diffusion_of(task, model)
    if diffusion is None or not (diffusion.prompt or diffusion.negative_prompt):
        return ()  # so it is with models that take no prompts
    try:
        return cut_warnings(await asyncio.to_thread(upscaler.cuts, model, diffusion))
    except ModelError:  # the tokenizer cannot be read; the task will find out, and fail
        return ()


async def _wait(running: Running, patience: float | None, context: Context) -> Struct:
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
