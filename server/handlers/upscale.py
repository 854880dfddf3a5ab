"""`upscale` and its classic name `imageUpscale`: the work that the server is for."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from msgspec import Struct, structs

from engines import ModelError, Upscaler
from onnx_models import Model
from server.handlers.context import Context
from server.images.raw_images import HeldPicture
from server.images.store import Draft, ImageFile
from server.outbound.fetch import FetchError
from server.protocol.errors import UnavailableError, invalid, unsupported
from server.protocol.raw_image import RawImage
from server.protocol.replies import Acknowledgement
from server.protocol.requests import Upscale
from server.protocol.sources import (
    ImageSource,
    InlineImage,
    RemoteImage,
    StoredImage,
    UnstoredImage,
    parse_name,
)
from server.state import tasks
from server.state.images import ImageRecord
from server.state.logins import Login
from server.state.records import Status, TaskRecord
from server.state.requests import TaskGrant, UpscaleRequest
from server.state.tasks import LostTaskError
from server.upscale.auxiliaries import denoiser_of, face_restorer_of
from server.upscale.checks import check, check_raw
from server.upscale.creative import style_images
from server.upscale.pricing import Quote
from server.upscale.request import choose_models, cut_warnings, diffusion_of, input_source, request_for
from server.upscale.running import Running
from server.upscale.safety import safety_of

__all__ = ["handle", "quote"]


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


async def quote(task: Upscale, context: Context) -> int:
    """What a task would cost, in nanodollars. Nothing is begun or kept.

    Raises:
        TaskError: if it would be refused, other than for want of credit.
    """
    request, file, pixels, _ = await _prepare(task, context, is_wanted=False)
    if pixels is not None:
        pixels.release()
    services, source = context.services, file or request.source
    if isinstance(source, StoredImage | RemoteImage):
        source = await services.inputs.look(context.account, source, request.parameter, context.scope)
    return services.prices.quote(request, source.width, source.height).price


class _Prepared(NamedTuple):
    """What a task amounts to.

    Attributes:
        request: as it is recorded, but for the images that are yet to be kept.
        file: the input, if that is yet to be stored.
        pixels: the input, if that is held in memory.
        styles: what a style is taken from.
    """

    request: UpscaleRequest
    file: ImageFile | ImageRecord | None
    pixels: HeldPicture | None
    styles: Sequence[ImageFile | ImageRecord]


async def _take(task: Upscale, context: Context) -> tuple[UpscaleRequest, Running | TaskRecord]:
    """What a task amounts to, and what became of it when it was submitted."""
    prepared = await _prepare(task, context)
    request, file, pixels, styles = prepared
    if styles:
        try:
            request = await _keep_styles(prepared, context)
        except BaseException:
            if pixels is not None:
                pixels.release()
            raise
    if file is not None:
        return request, await _submit_with(file, task, request, context)
    return request, await _submit(task, request, context, pixels)


async def _prepare(task: Upscale, context: Context, *, is_wanted: bool = True) -> _Prepared:
    """What a task amounts to; nothing is kept yet.

    Args:
        task: as it came.
        context: how it came.
        is_wanted: whether the task is to be run.
    """
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
    services.check_ttl(task.ttl)
    await _reach_destinations(task, context)
    source = await services.inputs.own(context.login, source, context.base_url, parameter)
    warnings = (*context.raw.warnings(), *await _cut_prompts(task, models.first, services.upscaler))
    styles = [await _style(name, context) for name in style_images(task.settings)]
    named, file, pixels = await _look(task, source, parameter, context, is_wanted=is_wanted)
    request = request_for(
        task,
        models=models,
        source=named,
        parameter=parameter,
        warnings=warnings,
        channels=source.channels if isinstance(source, RawImage) else None,
        denoiser=denoiser,
        face_restorer=face_restorer,
        safety=safety,
        service=context.service,
        traceparent=context.traceparent,
        grant=_task_grant(context.login),
        key=context.login.key,
    )
    return _Prepared(request, file, pixels, styles)


async def _style(name: str, context: Context) -> ImageFile | ImageRecord:
    """An image that a style is taken from."""
    parameter = "settings.styleImages"
    inputs, login = context.services.inputs, context.login
    source = await inputs.own(login, parse_name(name, parameter), context.base_url, parameter)
    return await inputs.look(context.account, source, parameter, context.scope)


async def _keep_styles(prepared: _Prepared, context: Context) -> UpscaleRequest:
    """The request with its style images; those that were fetched are kept.

    Raises:
        InsufficientCreditsError: if the account cannot pay for the task, as far as its price is known.
        QuotaError: if the account keeps too many images.
    """
    services, account, request = context.services, context.account, prepared.request
    known = prepared.file or request.source
    if not isinstance(known, StoredImage | RemoteImage):
        price = services.prices.quote(request, known.width, known.height).price
        await services.database.run(tasks.check_payable, account, request.task_uuid, price, request.token)
    kept = [
        await services.inputs.keep(account, style, scope=context.scope)
        if isinstance(style, ImageFile)
        else style
        for style in prepared.styles
    ]
    return structs.replace(request, style_images=tuple(image.uuid for image in kept))


async def _look(
    task: Upscale, source: ImageSource, parameter: str, context: Context, *, is_wanted: bool
) -> tuple[StoredImage | RemoteImage | UnstoredImage, ImageFile | ImageRecord | None, HeldPicture | None]:
    """The input as it is recorded; beside it what is yet to be stored, or is held in memory instead."""
    inputs, account = context.services.inputs, context.account
    if isinstance(source, RawImage) and not task.store:
        unstored, pixels = await inputs.hold(account, source, parameter)
        return unstored, None, pixels
    if isinstance(source, InlineImage | RawImage):
        return StoredImage(""), await inputs.look(account, source, parameter, is_wanted=is_wanted), None
    return source, None, None


async def _submit_with(
    file: ImageFile | ImageRecord, task: Upscale, request: UpscaleRequest, context: Context
) -> Running | TaskRecord:
    """Submit a task with its input: recorded together, an accepted task can always be run again.

    What the account cannot pay for is not kept, nor is the input of a task that is refused.

    Raises:
        TaskError: if the task is refused.
    """
    services, account, draft = context.services, context.account, None
    quote = services.prices.quote(request, file.width, file.height)
    if isinstance(file, ImageFile):
        payable = partial(
            tasks.check_payable,
            account=account,
            task_uuid=request.task_uuid,
            price=quote.price,
            token=request.token,
        )
        draft = await services.inputs.draft(account, file, scope=context.scope, check=payable)
        image = draft.image
    else:
        image = file
    return await _submit(
        task, structs.replace(request, source=StoredImage(image.uuid)), context, quote=quote, draft=draft
    )


async def _submit(
    task: Upscale,
    request: UpscaleRequest,
    context: Context,
    pixels: HeldPicture | None = None,
    quote: Quote | None = None,
    draft: Draft | None = None,
) -> Running | TaskRecord:
    session, taken, source = context.session, None, request.source
    try:
        if isinstance(source, UnstoredImage):
            quote = context.services.prices.quote(request, source.width, source.height)
        taken = await context.services.runner.submit(
            context.account,
            request,
            session=session.uuid if session else None,
            base_url=context.base_url,
            acknowledge=task.delivery_method == "async" and session is not None,
            pixels=pixels,
            quote=quote,
            draft=draft,
        )
        return taken
    finally:
        if pixels is not None and not (isinstance(taken, Running) and taken.pixels is pixels):
            pixels.release()


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


def _task_grant(login: Login) -> TaskGrant | None:
    """What is kept of the token that a task comes with."""
    grant = login.grant
    return None if grant is None else TaskGrant(grant.scope, grant.token, grant.terms.max_megapixels)


def _acknowledgement(request: UpscaleRequest) -> Acknowledgement:
    return Acknowledgement(task_type=request.task_type, task_uuid=request.task_uuid)
