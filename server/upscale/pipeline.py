"""The work of one upscale: from an accepted request to a stored image.

1. The input is obtained, the result sized and priced, the price reserved.
2. When there is room in memory the input is decoded, upscaled and encoded.
3. The result is stored, and sent where the task wants it. It is recorded before that, and charged whatever
   becomes of it: a client whose endpoint fails, or that cancels, has it all the same.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Final, NamedTuple

from msgspec.structs import replace

from engines import (
    Blend,
    Diffusion,
    OnRegion,
    OutputFormat,
    Picture,
    Upscaler,
    crop,
    encode,
    pixels_of,
    report_whole,
    usable_cores,
    wraps_of,
)
from onnx_models import Catalogue, Model
from server.images.inputs import Inputs
from server.images.raw_images import RawImages, raw_image
from server.images.store import Draft, ImageFile, ImageStore
from server.limits.fair_gate import FairGate
from server.outbound.fetch import FetchError, ForbiddenAddressError, WebClient
from server.protocol.errors import NotFoundError, TaskError, TransferError, UnavailableError, invalid
from server.protocol.raw_image import RawImage
from server.protocol.sources import StoredImage, UnstoredImage
from server.protocol.trace import outgoing_headers
from server.settings import Settings
from server.state import tasks
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.images import ImageRecord
from server.state.records import Attempt, Safety, StoredResult
from server.state.requests import UpscaleRequest
from server.telemetry.story import Story
from server.upscale.auxiliaries import AuxiliarySteps, Steps
from server.upscale.pricing import effort, price
from server.upscale.safety import SafetyChecks
from server.upscale.sizing import Area, Size, sizing

__all__ = ["Pipeline", "Quote"]

log = logging.getLogger(__name__)

_SMALL_SHARE: Final = 1 / 8

_AT_ONCE: Final = 0.25
"""Megapixels of which the raw pixels are taken in 0.1 ms."""

_JPEG_AT_ONCE: Final = 0.017
"""Megapixels that are a JPEG in 0.15 ms; other formats take longer."""


class _Output(NamedTuple):
    """The file of a result, its pixels, or both; and what was found of what is not safe for work."""

    encoded: bytes
    pixels: RawImage | None
    safety: Safety | None


class Quote(NamedTuple):
    """What a request comes to; see `sizing`, and `price` in nanodollars."""

    size: Size
    area: Area | None
    price: int


class Pipeline:
    """Does upscales, as many at once as there is memory for."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        catalogue: Catalogue,
        upscaler: Upscaler,
        images: ImageStore,
        inputs: Inputs,
        raw_images: RawImages,
        web: WebClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._database = database
        self._catalogue = catalogue
        self._upscaler = upscaler
        self._auxiliaries = AuxiliarySteps(catalogue, upscaler, settings)
        self._safety = SafetyChecks(catalogue, upscaler, settings)
        self._images = images
        self._inputs = inputs
        self._raw_images = raw_images
        self._web = web
        self._clock = clock
        # An encode may take a second: it must not hold up what shares asyncio's own threads.
        self._encoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix="encoders")
        active = settings.active_megapixels, settings.active_megapixels_per_account
        # Small work has room of its own: it need not wait for the memory that large work holds.
        self._small_gate = FairGate(*(limit * _SMALL_SHARE for limit in active))
        self._large_gate = FairGate(*(limit * (1 - _SMALL_SHARE) for limit in active))
        self._small = settings.active_megapixels * _SMALL_SHARE / 8

    @property
    def stored_limit(self) -> int:
        """Bytes of images that an account may have."""
        return self._images.limit

    def quote(self, request: UpscaleRequest, source: Size) -> Quote:
        """How large the result will be, of which part of the input, and what it costs.

        Args:
            request: what is to be done.
            source: the size of the input.

        Raises:
            ParameterError: if the result is larger than the limit, or cannot be reached by the model.
        """
        model = None if request.restore_only else self._catalogue.get(request.model)
        size, area = sizing(request, model, source, self._settings)
        shown = source if area is None else Size(area.width, area.height)
        cost = self._price(request, shown, size) + self._auxiliaries.price(request, shown, size)
        return Quote(size, area, cost)

    async def drop(self, image: ImageRecord) -> None:
        """Delete the file of a result that could not be recorded."""
        await self._images.drop(image.name)

    async def run(
        self,
        attempt: Attempt,
        request: UpscaleRequest,
        story: Story,
        on_progress: Callable[[float], None],
        regions: AbstractAsyncContextManager[OnRegion | None],
        on_start: Callable[[], None],
        picture: Picture | None = None,
        image: ImageRecord | None = None,
        quote: Quote | None = None,
    ) -> tuple[StoredResult, Draft | None]:
        """The result of a request and its image, which is yet to be recorded.

        There is no image if the result is not stored, or if it is recorded by now, as it had to be uploaded.

        Both are to be recorded together; its price is reserved, to be charged with that.

        Args:
            attempt: whom the price is reserved for.
            request: what is to be done.
            story: records how long each stage takes.
            on_progress: called with the finished share, from 0 to 1.
            regions: open while the result is in memory; gives what takes its finished parts, if it is wanted.
            on_start: called when a device takes the first tile; perhaps again.
            picture: the input, if that is not stored.
            image: the input, if that was recorded with the task.
            quote: what the request comes to, if its price was reserved with that.

        Raises:
            UnavailableError: if the input is not stored, and was in the memory of a server that is gone.
            TaskError: what the client did wrong, or cannot pay.
            LostTaskError: if the task has an outcome by now, or another attempt.
            EngineError: what the model could not do.
        """
        account = attempt.account
        if request.upload_endpoint is not None:
            record = await self._database.run(tasks.find, account, attempt.task_uuid)
            if record is not None and record.result is not None:  # the server was killed while it uploaded
                await self._upload(attempt, request, await self._stored(record.result), story)
                return record.result, None
        with story.measure("fetch"):
            found = image or await self._look(account, request, picture)
        if quote is None:
            quote = self.quote(request, Size(found.width, found.height))
            await self._reserve(attempt, quote.price, request.token)
        size, area = quote.size, quote.area
        if isinstance(found, ImageFile):
            source: ImageRecord | UnstoredImage
            source = await self._inputs.keep(account, found, scope=request.scope)
        else:
            source = found
        story.output_pixels = size.width * size.height
        beside = (request.blend, request.denoiser, request.face_restorer)
        story.is_plain = (
            not request.tta and beside == (None, None, None) and self._is_one_pass(request, found, size)
        )
        encoded, pixels, safety = await self._upscale(
            account, request, source, picture, size, area, story, on_progress, regions, on_start
        )
        input_uuid = source.uuid if isinstance(source, ImageRecord) else ""
        result = StoredResult(input_image_uuid=input_uuid, safety=safety)
        if pixels is not None:
            self._raw_images.keep(attempt, pixels, self._clock())
            result = replace(result, channels=pixels.channels, size=len(pixels.pixels))
        if not request.stores_result:
            return result, None
        file = ImageFile(encoded, request.output_format.extension, size.width, size.height)
        with story.measure("store"):
            ttl = request.ttl or self._settings.image_ttl
            draft = await self._images.draft(account, file, ttl, request.scope)
        image = draft.image
        result = replace(result, image_uuid=image.uuid, image_name=image.name, size=result.size or image.size)
        if request.upload_endpoint is None:
            return result, draft
        try:
            keep = draft.written_by(tasks.keep)
            await self._database.insist(keep, attempt, result, image, self._images.limit)
        except TaskError:
            await self._images.drop(image.name)
            raise
        await self._upload(attempt, request, encoded, story)
        return result, None

    async def _look(
        self, account: AccountId, request: UpscaleRequest, picture: Picture | None
    ) -> ImageRecord | ImageFile | UnstoredImage:
        if not isinstance(request.source, UnstoredImage):
            return await self._inputs.look(
                account, request.source, request.parameter, request.scope, is_wanted=True
            )
        if picture is None:
            raise UnavailableError(
                "the pixels were not stored, and are gone with the server that had them; send them again",
                retry_after=1,
            )
        return request.source

    async def _upscale(
        self,
        account: AccountId,
        request: UpscaleRequest,
        source: ImageRecord | UnstoredImage,
        picture: Picture | None,
        size: Size,
        area: Area | None,
        story: Story,
        on_progress: Callable[[float], None],
        regions: AbstractAsyncContextManager[OnRegion | None],
        on_start: Callable[[], None],
    ) -> "_Output":
        action = self._safety.action(request.safety)
        in_memory = Size(source.width, source.height).megapixels + size.megapixels * _results_held(request)
        gate = self._small_gate if in_memory <= self._small else self._large_gate
        async with AsyncExitStack() as held:
            with story.measure("admission"):
                await held.enter_async_context(gate.hold(account, in_memory))
            on_region = await held.enter_async_context(regions)
            log.info("task started")
            at_hand = not isinstance(source, ImageRecord) or self._inputs.is_at_hand(source)
            with story.measure("decode" if at_hand else "fetch") as measuring:
                if isinstance(source, ImageRecord):
                    data = await self._inputs.read(source, request.parameter)
                    measuring.become("decode")
                    picture = await self._inputs.decode(account, data, request.parameter)
                    del data
                assert picture is not None
                if area is not None:
                    picture = crop(picture, *area)
            of_input = await self._safety.score(picture, "the input", action, account, story)
            with story.measure("queue") as measuring:

                def started() -> None:
                    measuring.become("inference")
                    on_start()

                steps = self._auxiliaries.of(request, account, started, on_progress)
                picture = await steps.before(picture)
                styles = [await self._style(account, request, uuid) for uuid in request.style_images]
                # What may be refused is not shown before it has been looked at.
                shown = None if action == "refuse" or request.restore_only else on_region
                upscaled = await self._enlarged(
                    picture, request, size, account, styles, started, steps, shown
                )
                upscaled = await steps.after(upscaled, shown)
            of_result = await self._safety.score(upscaled, "the result", action, account, story)
            if shown is None and on_region is not None:
                report_whole(upscaled, picture, on_region, wraps_of(request.seamless))
            with story.measure("encode"):
                if size.megapixels < _taken_at_once(request):
                    encoded, pixels = _output(upscaled, request)
                else:
                    encoded, pixels = await asyncio.get_running_loop().run_in_executor(
                        self._encoders, partial(_output, upscaled, request)
                    )
            return _Output(encoded, pixels, self._safety.verdict(of_input, of_result))

    async def _enlarged(
        self,
        picture: Picture,
        request: UpscaleRequest,
        size: Size,
        account: AccountId,
        styles: Sequence[Picture],
        on_start: Callable[[], None],
        steps: Steps,
        on_region: OnRegion | None,
    ) -> Picture:
        """The upscale itself; the picture as it is where none is wanted."""
        if request.restore_only:
            steps.on_progress(1.0)
            return picture
        return await self._upscaler.upscale(
            picture,
            self._catalogue.get(request.model),
            width=size.width,
            height=size.height,
            account=account,
            diffusion=request.diffusion,
            keep_hidden=request.keep_hidden_colors,
            denoise=request.denoise,
            seamless=request.seamless,
            tta=request.tta,
            blend=self._blend(request),
            enlarger=None if request.enlarger is None else self._catalogue.get(request.enlarger),
            styles=styles,
            on_start=on_start,
            on_progress=steps.on_progress,
            on_region=on_region,
        )

    async def _style(self, account: AccountId, request: UpscaleRequest, uuid: str) -> Picture:
        """An image that a style is taken from."""
        parameter = "settings.styleImages"
        found = await self._inputs.look(account, StoredImage(uuid), parameter, request.scope)
        assert isinstance(found, ImageRecord)
        return await self._inputs.decode(account, await self._inputs.read(found, parameter), parameter)

    async def _reserve(self, attempt: Attempt, cost: int, token: str | None) -> None:
        if not await self._database.run(tasks.reserve, attempt, cost, self._clock(), token):
            raise await self._database.run(tasks.too_dear, attempt.account, cost, token)

    async def _stored(self, result: StoredResult) -> bytes:
        try:
            return await self._images.read(result.image_name)
        except FileNotFoundError as error:
            raise NotFoundError("imageExpired", f"image {result.image_uuid} has expired") from error

    async def _upload(self, attempt: Attempt, request: UpscaleRequest, encoded: bytes, story: Story) -> None:
        """Send a result that is recorded where the task wants it."""
        endpoint, media_type = request.upload_endpoint or "", request.output_format.media_type
        recorded = self._settings.otlp_endpoint is not None
        headers = outgoing_headers(request.traceparent, attempt.id, recorded=recorded)
        try:
            with story.measure("upload"):
                await self._web.send("PUT", endpoint, encoded, media_type, headers, account=attempt.account)
        except ForbiddenAddressError as error:
            raise invalid("uploadEndpoint", f"uploadEndpoint: {error}") from error
        except FetchError as error:
            raise TransferError("uploadFailed", f"uploadEndpoint: {error}", "uploadEndpoint") from error

    def _price(self, request: UpscaleRequest, source: Size, size: Size) -> int:
        """In nanodollars; of both models where two are blended, and of what enlarges for them."""
        layers = [] if request.restore_only else [(request.model, request.diffusion)]
        if request.blend is not None:
            layers.append((request.blend.model, request.blend.diffusion))
        total = 0
        for name, diffusion in layers:
            model = self._catalogue.get(name)
            total += self._price_of(request, model, source, size, diffusion)
            if model.creative is not None and request.enlarger is not None and size != source:
                enlarger = self._catalogue.get(request.enlarger)
                total += self._price_of(request, enlarger, source, size, None)
        return total

    def _is_one_pass(
        self, request: UpscaleRequest, source: ImageRecord | ImageFile | UnstoredImage, size: Size
    ) -> bool:
        """Whether the model makes the result at once, as it makes most."""
        return effort(self._catalogue.get(request.model), Size(source.width, source.height), size) == 1

    def _price_of(
        self, request: UpscaleRequest, model: Model, source: Size, size: Size, diffusion: Diffusion | None
    ) -> int:
        work = effort(model, source, size, diffusion=diffusion, tta=request.tta, seamless=request.seamless)
        return price(self._settings.prices.get(model.name, model.price_per_megapixel), size, work)

    def _blend(self, request: UpscaleRequest) -> Blend | None:
        blend = request.blend
        if blend is None:
            return None
        model = self._catalogue.get(blend.model)
        return Blend(model=model, visibility=blend.visibility, diffusion=blend.diffusion)


def _results_held(request: UpscaleRequest) -> int:
    """How many results are in memory at once; the sum of several has two bytes where a result has one."""
    one = 3 if request.tta else 1
    return one if request.blend is None else 2 * one


def _taken_at_once(request: UpscaleRequest) -> float:
    """Megapixels of a result that is taken on the event loop: a trip to a thread would take longer."""
    if not request.stores_result:
        return _AT_ONCE
    return _JPEG_AT_ONCE if request.output_format is OutputFormat.JPG else 0


def _output(picture: Picture, request: UpscaleRequest) -> tuple[bytes, RawImage | None]:
    """What is made of a result, as the request says."""
    pixels, encoded = None, b""
    if request.raw:
        pixels = raw_image(pixels_of(picture, request.channels))
    if request.stores_result:
        encoded = encode(
            picture,
            request.output_format,
            quality=request.output_quality,
            keep_metadata=request.keep_metadata,
            keep_hidden=request.keep_hidden_colors,
        )
    return encoded, pixels
