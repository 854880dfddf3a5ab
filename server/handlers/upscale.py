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
from server.protocol.errors import TaskError, UnavailableError, invalid, unsupported
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
from server.state.images import Check, ImageRecord
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

__all__ = ["Prepared", "finish", "handle", "prepare"]


class Prepared(NamedTuple):
    """A task that is checked, and can be taken on. Nothing is kept of it yet.

    Attributes:
        task: as it came.
        context: how it came.
        request: as it is recorded, but for the images that are yet to be kept.
        file: the input, if that is at hand or was looked up.
        pixels: the input, if that is held in memory.
        styles: what a style is taken from.
        quote: what it comes to; None while the size of its input is not known.
    """

    task: Upscale
    context: Context
    request: UpscaleRequest
    file: ImageFile | ImageRecord | None
    pixels: HeldPicture | None
    styles: Sequence[ImageFile | ImageRecord]
    quote: Quote | None

    def release(self) -> None:
        """Give back the memory of pixels that are held."""
        if self.pixels is not None:
            self.pixels.release()


async def handle(task: Upscale, context: Context) -> Struct | None:
    """Take the task on. Over a socket the runner answers when it is done; over HTTP this waits for it.

    Raises:
        TaskError: if the task is refused.
    """
    async with context.services.runner.arrival(context.login.owner, task.sequence):
        prepared = await prepare(task, context)
        taken = await _submit(prepared)
    return await _answer(prepared, taken)


async def finish(prepared: Prepared) -> Struct | None:
    """`handle` a task that is prepared.

    Raises:
        TaskError: if the task is refused.
    """
    return await _answer(prepared, await _submit(prepared))


async def _answer(prepared: Prepared, taken: Running | TaskRecord) -> Struct | None:
    """The reply to a task that is taken on, or was before."""
    task, context, request = prepared.task, prepared.context, prepared.request
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


async def prepare(
    task: Upscale, context: Context, *, look_now: bool = False, is_wanted: bool = True
) -> Prepared:
    """What a task amounts to; nothing is kept yet.

    Args:
        task: as it came.
        context: how it came.
        look_now: whether an input that is only named is looked up, or fetched, at once, so that the quote is
            known.
        is_wanted: whether the task is to be run.

    Raises:
        TaskError: if the task would be refused, other than for want of credit.
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
    named, file, pixels = await _look(
        task, source, parameter, context, look_now=look_now, is_wanted=is_wanted
    )
    try:
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
        known = file or named
        quote = None
        if not isinstance(known, StoredImage | RemoteImage):
            quote = services.prices.quote(request, known.width, known.height)
    except BaseException:
        if pixels is not None:
            pixels.release()
        raise
    return Prepared(task, context, request, file, pixels, styles, quote)


async def _style(name: str, context: Context) -> ImageFile | ImageRecord:
    """An image that a style is taken from."""
    parameter = "settings.styleImages"
    inputs, login = context.services.inputs, context.login
    source = await inputs.own(login, parse_name(name, parameter), context.base_url, parameter)
    return await inputs.look(context.account, source, parameter, context.scope)


async def _look(
    task: Upscale,
    source: ImageSource,
    parameter: str,
    context: Context,
    *,
    look_now: bool,
    is_wanted: bool,
) -> tuple[StoredImage | RemoteImage | UnstoredImage, ImageFile | ImageRecord | None, HeldPicture | None]:
    """The input as it is recorded; beside it what is at hand of it, or is held in memory instead."""
    inputs, account = context.services.inputs, context.account
    if isinstance(source, RawImage) and not task.store:
        unstored, pixels = await inputs.hold(account, source, parameter)
        return unstored, None, pixels
    if look_now or isinstance(source, InlineImage | RawImage):
        found = await inputs.look(account, source, parameter, context.scope, is_wanted=is_wanted)
        return StoredImage(""), found, None
    return source, None, None


async def _submit(prepared: Prepared) -> Running | TaskRecord:
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
        return taken
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
