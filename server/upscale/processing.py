"""From an input to its result, in memory: decoded, upscaled, encoded."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Final, NamedTuple

from engines import (
    Blend,
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
from onnx_models import Catalogue
from server.images.inputs import Inputs
from server.images.raw_images import raw_image
from server.limits.fair_gate import FairGate
from server.protocol.raw_image import RawImage
from server.protocol.sources import StoredImage, UnstoredImage
from server.settings import Settings
from server.state.images import ImageRecord
from server.state.records import Safety
from server.state.requests import UpscaleRequest
from server.upscale.auxiliaries import Steps
from server.upscale.pricing import Quote, effort
from server.upscale.safety import SafetyChecks
from server.upscale.sizing import Area, Size
from server.upscale.work import Work

__all__ = ["Output", "Processing"]

log = logging.getLogger(__name__)

_SMALL_SHARE: Final = 1 / 8

_AT_ONCE: Final = 0.25
"""Megapixels of which the raw pixels are taken in 0.1 ms."""

_JPEG_AT_ONCE: Final = 0.017
"""Megapixels that are a JPEG in 0.15 ms; other formats take longer."""


class Output(NamedTuple):
    """The file of a result, its pixels, or both; and what was found of what is not safe for work."""

    encoded: bytes
    pixels: RawImage | None
    safety: Safety | None


class Processing:
    """Makes results, as many at once as there is memory for."""

    def __init__(
        self, *, settings: Settings, catalogue: Catalogue, upscaler: Upscaler, inputs: Inputs
    ) -> None:
        """Make nothing yet.

        Args:
            settings: how much may be in memory, and what is looked for that is not safe for work.
            catalogue: has the models.
            upscaler: runs them.
            inputs: gives the pixels of stored images.
        """
        self._catalogue = catalogue
        self._upscaler = upscaler
        self._inputs = inputs
        self._safety = SafetyChecks(catalogue, upscaler, settings)
        # An encode may take a second: it must not hold up what shares asyncio's own threads.
        self._encoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix="encoders")
        active = settings.active_megapixels, settings.active_megapixels_per_account
        # Small work has room of its own: it need not wait for the memory that large work holds.
        self._small_gate = FairGate(*(limit * _SMALL_SHARE for limit in active))
        self._large_gate = FairGate(*(limit * (1 - _SMALL_SHARE) for limit in active))
        self._small = settings.active_megapixels * _SMALL_SHARE / 8

    async def process(self, work: Work, source: ImageRecord | UnstoredImage, quote: Quote) -> Output:
        """The result of a request, when there is room in memory to make it.

        Args:
            work: what is to be done.
            source: the input.
            quote: how large the result is, and which part of the input it shows.

        Raises:
            TaskError: if the input is broken or gone, or a picture is refused as not safe for work.
            EngineError: what a model could not do.
        """
        request, story = work.request, work.story
        action = self._safety.action(request.safety)
        # What may be refused is not shown before it has been looked at.
        is_shown_early = action != "refuse" and not request.restore_only
        story.is_plain = self._is_plain(request, source, quote.size)
        async with AsyncExitStack() as held:
            with story.measure("admission"):
                await held.enter_async_context(self._room(work, source, quote.size))
            on_region = await held.enter_async_context(work.regions)
            log.info("task started")
            picture = await self._decode(work, source, quote.area)
            of_input = await self._safety.score(picture, "the input", action, work)
            with story.measure("queue") as measuring:

                def started() -> None:
                    measuring.become("inference")
                    work.on_start()

                shown = on_region if is_shown_early else None
                steps = Steps(self._catalogue, self._upscaler, work, started)
                picture = await steps.before(picture)
                upscaled = await self._upscale(work, picture, quote.size, steps, shown)
                upscaled = await steps.after(upscaled, shown)
            of_result = await self._safety.score(upscaled, "the result", action, work)
            if on_region is not None and not is_shown_early:
                report_whole(upscaled, picture, on_region, wraps_of(request.seamless))
            with story.measure("encode"):
                encoded, pixels = await self._encode(upscaled, request)
            return Output(encoded, pixels, self._safety.verdict(of_input, of_result))

    def _is_plain(self, request: UpscaleRequest, source: ImageRecord | UnstoredImage, size: Size) -> bool:
        """Whether one model makes the result at once, as it makes most."""
        if request.tta or (request.blend, request.denoiser, request.face_restorer) != (None, None, None):
            return False
        return effort(self._catalogue.get(request.model), Size(source.width, source.height), size) == 1

    def _room(
        self, work: Work, source: ImageRecord | UnstoredImage, size: Size
    ) -> AbstractAsyncContextManager[None]:
        """The memory that an input and its result take, for as long as it is held."""
        in_memory = Size(source.width, source.height).megapixels
        in_memory += size.megapixels * _results_held(work.request)
        gate = self._small_gate if in_memory <= self._small else self._large_gate
        return gate.hold(work.account, in_memory)

    async def _decode(self, work: Work, source: ImageRecord | UnstoredImage, area: Area | None) -> Picture:
        """The part of the input that is upscaled."""
        at_hand = isinstance(source, UnstoredImage) or self._inputs.is_at_hand(source)
        with work.story.measure("decode" if at_hand else "fetch") as measuring:
            if isinstance(source, UnstoredImage):
                assert work.picture is not None
                picture = work.picture
            else:
                data = await self._inputs.read(source, work.request.parameter)
                measuring.become("decode")
                picture = await self._inputs.decode(work.account, data, work.request.parameter)
            return picture if area is None else crop(picture, *area)

    async def _upscale(
        self, work: Work, picture: Picture, size: Size, steps: Steps, on_region: OnRegion | None
    ) -> Picture:
        """The upscale itself; the picture as it is where none is wanted."""
        request = work.request
        if request.restore_only:
            steps.on_progress(1.0)
            return picture
        return await self._upscaler.upscale(
            picture,
            self._catalogue.get(request.model),
            width=size.width,
            height=size.height,
            account=work.account,
            diffusion=request.diffusion,
            keep_hidden=request.keep_hidden_colors,
            denoise=request.denoise,
            seamless=request.seamless,
            tta=request.tta,
            blend=self._blend(request),
            enlarger=None if request.enlarger is None else self._catalogue.get(request.enlarger),
            styles=await self._styles(work),
            on_start=steps.on_start,
            on_progress=steps.on_progress,
            on_region=on_region,
        )

    def _blend(self, request: UpscaleRequest) -> Blend | None:
        blend = request.blend
        if blend is None:
            return None
        model = self._catalogue.get(blend.model)
        return Blend(model=model, visibility=blend.visibility, diffusion=blend.diffusion)

    async def _styles(self, work: Work) -> Sequence[Picture]:
        """The images that a style is taken from."""
        parameter, scope = "settings.styleImages", work.request.scope
        styles = []
        for uuid in work.request.style_images:
            found = await self._inputs.look(work.account, StoredImage(uuid), parameter, scope)
            assert isinstance(found, ImageRecord)
            data = await self._inputs.read(found, parameter)
            styles.append(await self._inputs.decode(work.account, data, parameter))
        return styles

    async def _encode(self, picture: Picture, request: UpscaleRequest) -> tuple[bytes, RawImage | None]:
        """The file of a result, its pixels, or both."""
        if Size(picture.width, picture.height).megapixels < _taken_at_once(request):
            return _output(picture, request)
        return await asyncio.get_running_loop().run_in_executor(
            self._encoders, partial(_output, picture, request)
        )


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
