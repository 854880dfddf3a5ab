"""What has to be known of an `upscale` before it is taken on: whether it may be done, and what it costs."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from engines import ModelError, Upscaler
from onnx_models import Model
from server.handlers.context import Context
from server.images.raw_images import HeldPicture
from server.images.store import ImageFile
from server.outbound.fetch import FetchError
from server.protocol.errors import invalid, unsupported
from server.protocol.raw_image import RawImage
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
from server.state.records import Status
from server.state.requests import TaskGrant, UpscaleRequest
from server.upscale.auxiliaries import beside_of
from server.upscale.checks import check, check_raw
from server.upscale.creative import style_images
from server.upscale.pricing import Quote
from server.upscale.request import choose_models, cut_warnings, diffusion_of, input_source, request_for

__all__ = ["Prepared", "prepare"]


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
    beside = beside_of(task, services.catalogue)
    _check_context(task, source, context)
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
            beside=beside,
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


def _check_context(task: Upscale, source: ImageSource, context: Context) -> None:
    """See that a task makes sense the way it came, and on this server.

    Raises:
        ParameterError: naming the parameter that is wrong.
    """
    if task.include_tiles and context.session is None:
        raise unsupported(
            "includeTiles", "tiles come as messages of their own: send the task over a WebSocket"
        )
    check_raw(task, source, binary=context.raw.codec.binary)
    context.services.check_ttl(task.ttl)


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


def _task_grant(login: Login) -> TaskGrant | None:
    """What is kept of the token that a task comes with."""
    grant = login.grant
    return None if grant is None else TaskGrant(grant.scope, grant.token, grant.terms.max_megapixels)
