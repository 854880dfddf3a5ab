"""The work of one upscale: from an accepted request to a stored image.

1. The input is obtained, the result sized and priced, the price reserved.
2. When there is room in memory the input is decoded, upscaled and encoded.
3. The result is stored, and sent where the task wants it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Final

from engines import Blend, OnRegion, Upscaler, crop, encode, report_whole, usable_cores
from onnx_models import Catalogue, Model
from server.images.inputs import Inputs
from server.images.store import ImageFile, ImageStore, new_name
from server.limits.fair_gate import FairGate
from server.money import to_usd
from server.outbound.fetch import FetchError, ForbiddenAddressError, WebClient
from server.protocol.errors import InsufficientCreditsError, TransferError, invalid
from server.settings import Settings
from server.state import ledger, tasks
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.images import ImageRecord
from server.state.records import Attempt, Safety, StoredResult
from server.state.requests import UpscaleRequest
from server.telemetry.story import Story
from server.upscale.auxiliaries import AuxiliarySteps
from server.upscale.pricing import effort, price
from server.upscale.safety import SafetyChecks
from server.upscale.sizing import Area, Size, sizing

__all__ = ["Pipeline"]

log = logging.getLogger(__name__)

_SMALL_SHARE: Final = 1 / 8


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
        self._web = web
        self._clock = clock
        # An encode may take a second: it must not hold up what shares asyncio's own threads.
        self._encoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix="encoders")
        active = settings.active_megapixels, settings.active_megapixels_per_account
        # Small work has room of its own: it need not wait for the memory that large work holds.
        self._small_gate = FairGate(*(limit * _SMALL_SHARE for limit in active))
        self._large_gate = FairGate(*(limit * (1 - _SMALL_SHARE) for limit in active))
        self._small = settings.active_megapixels * _SMALL_SHARE / 8

    async def run(
        self,
        attempt: Attempt,
        request: UpscaleRequest,
        story: Story,
        on_progress: Callable[[float], None],
        regions: AbstractAsyncContextManager[OnRegion | None],
        on_start: Callable[[], None],
    ) -> tuple[StoredResult, ImageRecord]:
        """The result of a request and its image, whose file is written.

        Both are to be recorded together; its price is reserved, to be charged with that.

        Args:
            attempt: whom the price is reserved for.
            request: what is to be done.
            story: records how long each stage takes.
            on_progress: called with the finished share, from 0 to 1.
            regions: open while the result is in memory; gives what takes its finished parts, if it is wanted.
            on_start: called when a device takes the first tile; perhaps again.

        Raises:
            TaskError: what the client did wrong, or cannot pay.
            LostTaskError: if the task has an outcome by now, or another attempt.
            EngineError: what the model could not do.
        """
        account, model = attempt.account, self._catalogue.get(request.model)
        with story.measure("fetch"):
            source = await self._inputs.obtain(account, request.source, request.parameter)
        whole = Size(source.width, source.height)
        size, area = sizing(request, model, whole, self._settings)
        shown = whole if area is None else Size(area.width, area.height)
        cost = self._price(request, shown, size) + self._auxiliaries.price(request, shown)
        name = new_name(request.output_format.extension)
        await self._reserve(attempt, cost, name)
        story.output_pixels = size.width * size.height
        story.is_plain = not request.tta and request.blend is None
        encoded, safety = await self._upscale(
            account, request, model, source, size, area, story, on_progress, regions, on_start
        )
        file = ImageFile(encoded, request.output_format.extension, size.width, size.height)
        with story.measure("store"):
            ttl = request.ttl or self._settings.image_ttl
            image = await self._images.write(account, file, ttl, name)
        if request.upload_endpoint is not None:
            with story.measure("upload"):
                await self._upload(
                    account, request.upload_endpoint, encoded, request.output_format.media_type
                )
        result = StoredResult(
            image_uuid=image.uuid, image_name=name, input_image_uuid=source.uuid, safety=safety
        )
        return result, image

    async def _upscale(
        self,
        account: AccountId,
        request: UpscaleRequest,
        model: Model,
        source: ImageRecord,
        size: Size,
        area: Area | None,
        story: Story,
        on_progress: Callable[[float], None],
        regions: AbstractAsyncContextManager[OnRegion | None],
        on_start: Callable[[], None],
    ) -> tuple[bytes, Safety | None]:
        action = self._safety.action(request.safety)
        in_memory = Size(source.width, source.height).megapixels + size.megapixels * _results_held(request)
        gate = self._small_gate if in_memory <= self._small else self._large_gate
        async with AsyncExitStack() as held:
            with story.measure("admission"):
                await held.enter_async_context(gate.hold(account, in_memory))
            on_region = await held.enter_async_context(regions)
            log.info("task started")
            with story.measure("decode"):
                picture = await self._inputs.decode(source, request.parameter)
                if area is not None:
                    picture = crop(picture, *area)
            of_input = await self._safety.score(picture, "the input", action, account, story)
            with story.measure("queue") as measuring:

                def started() -> None:
                    measuring.become("inference")
                    on_start()

                picture, progress = await self._auxiliaries.before(
                    picture, request, account, started, on_progress
                )
                upscaled = await self._upscaler.upscale(
                    picture,
                    model,
                    width=size.width,
                    height=size.height,
                    account=account,
                    diffusion=request.diffusion,
                    keep_hidden=request.keep_hidden_colors,
                    denoise=request.denoise,
                    seamless=request.seamless,
                    tta=request.tta,
                    blend=self._blend(request),
                    on_start=started,
                    on_progress=progress,
                    # What may be refused is not shown before it has been looked at.
                    on_region=None if action == "refuse" else on_region,
                )
            of_result = await self._safety.score(upscaled, "the result", action, account, story)
            if action == "refuse" and on_region is not None:
                report_whole(upscaled, picture, on_region)
            with story.measure("encode"):
                encoded = await asyncio.get_running_loop().run_in_executor(
                    self._encoders,
                    partial(
                        encode,
                        upscaled,
                        request.output_format,
                        quality=request.output_quality,
                        keep_metadata=request.keep_metadata,
                        keep_hidden=request.keep_hidden_colors,
                    ),
                )
            return encoded, self._safety.verdict(of_input, of_result)

    async def _reserve(self, attempt: Attempt, cost: int, name: str) -> None:
        if not await self._database.run(tasks.reserve, attempt, cost, self._clock(), name):
            statement = await self._database.run(ledger.statement, attempt.account)
            raise InsufficientCreditsError(
                f"the task costs {to_usd(cost)} USD; the account has {to_usd(statement.available or 0)} USD"
            )

    async def _upload(self, account: AccountId, endpoint: str, encoded: bytes, media_type: str) -> None:
        try:
            await self._web.send("PUT", endpoint, encoded, media_type, account=account)
        except ForbiddenAddressError as error:
            raise invalid("uploadEndpoint", f"uploadEndpoint: {error}") from error
        except FetchError as error:
            raise TransferError("uploadFailed", f"uploadEndpoint: {error}", "uploadEndpoint") from error

    def _price(self, request: UpscaleRequest, source: Size, size: Size) -> int:
        """In nanodollars; of both models where two are blended."""
        layers = [(request.model, request.diffusion)]
        if request.blend is not None:
            layers.append((request.blend.model, request.blend.diffusion))
        total = 0
        for name, diffusion in layers:
            model = self._catalogue.get(name)
            work = effort(model, source, size, diffusion=diffusion, tta=request.tta)
            total += price(self._settings.prices.get(model.name, model.price_per_megapixel), size, work)
        return total

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
