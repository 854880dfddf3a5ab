"""`upscale` and its classic name `imageUpscale`: the work that the server is for."""

import asyncio

from msgspec import Struct, structs

from engines import ModelError, Upscaler
from onnx_models import Model
from server.handlers.context import Context
from server.images.raw_images import HeldPicture
from server.protocol.errors import UnavailableError, unsupported
from server.protocol.raw_image import RawImage
from server.protocol.replies import Acknowledgement
from server.protocol.requests import Upscale
from server.protocol.sources import ImageSource, InlineImage, RemoteImage, StoredImage, UnstoredImage
from server.state.logins import Login
from server.state.records import Status, TaskRecord
from server.state.requests import TaskGrant, UpscaleRequest
from server.state.tasks import LostTaskError
from server.upscale.auxiliaries import denoiser_of, face_restorer_of
from server.upscale.raw import check_raw
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
    async with services.runner.arrival(context.login.owner, task.sequence):
        request, taken = await _take(task, context)
    session = context.session
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


async def _take(task: Upscale, context: Context) -> tuple[UpscaleRequest, Running | TaskRecord]:
    """What a task amounts to, and what became of it when it was submitted."""
    services = context.services
    models = choose_models(services.catalogue, task, context.login.grant)
    parameter, source = await input_source(task, context.raw.codec)
    check(task, models, services.settings.reachable)
    denoiser = denoiser_of(task, services.catalogue)
    face_restorer = face_restorer_of(task, services.catalogue)
    safety = safety_of(task, services.catalogue)
    if task.include_tiles and context.session is None:
        raise unsupported(
            "includeTiles", "tiles come as messages of their own: send the task over a WebSocket"
        )
    check_raw(task, source, binary=context.raw.codec.binary)
    source = await services.inputs.own(context.login, source, context.base_url, parameter)
    warnings = (*context.raw.warnings(), *await _cut_prompts(task, models.first, services.upscaler))
    kept, pixels = await _keep(task, source, parameter, context)
    request = request_for(
        task,
        models=models,
        source=kept,
        parameter=parameter,
        warnings=warnings,
        channels=source.channels if isinstance(source, RawImage) else None,
        denoiser=denoiser,
        face_restorer=face_restorer,
        safety=safety,
        service=context.service,
        traceparent=context.traceparent,
        grant=_task_grant(context.login),
    )
    return request, await _submit(task, request, pixels, context)


async def _keep(
    task: Upscale, source: ImageSource, parameter: str, context: Context
) -> tuple[StoredImage | RemoteImage | UnstoredImage, HeldPicture | None]:
    """The input as it is recorded; what came within the task is stored, or as pixels in memory alone."""
    services, account = context.services, context.account
    match source:
        case InlineImage(data):
            services.edge.take_upload(account, len(data))
        case RawImage(pixels=pixels):
            services.edge.take_upload(account, len(pixels))
            if not task.store:
                return await services.inputs.hold(account, source, parameter)
        case _:
            return source, None
    # Stored before the task is recorded, so that a recorded task can always be run again.
    stored = await services.inputs.obtain(account, source, parameter, scope=context.scope)
    return StoredImage(stored.uuid), None


async def _submit(
    task: Upscale, request: UpscaleRequest, pixels: HeldPicture | None, context: Context
) -> Running | TaskRecord:
    session, taken = context.session, None
    try:
        taken = await context.services.runner.submit(
            context.account,
            request,
            session=session.uuid if session else None,
            base_url=context.base_url,
            acknowledge=task.delivery_method == "async" and session is not None,
            pixels=pixels,
        )
        return taken
    finally:
        if pixels is not None and not (isinstance(taken, Running) and taken.pixels is pixels):
            pixels.release()


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


def _task_grant(login: Login) -> TaskGrant | None:
    """What is kept of the token that a task comes with."""
    grant = login.grant
    return None if grant is None else TaskGrant(grant.scope, grant.token, grant.terms.max_megapixels)


def _acknowledgement(request: UpscaleRequest) -> Acknowledgement:
    return Acknowledgement(task_type=request.task_type, task_uuid=request.task_uuid)
