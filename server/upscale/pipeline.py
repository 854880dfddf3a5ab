"""The work of one upscale: from an accepted request to a stored image.

1. The input is obtained, the result sized and priced, the price reserved.
2. When there is room in memory the input is decoded, upscaled and encoded: see `processing`.
3. The result is stored, and sent where the task wants it. It is recorded before that, and charged whatever
   becomes of it: a client whose endpoint fails, or that cancels, has it all the same.
"""

import time
from collections.abc import Callable

from msgspec.structs import replace

from server.images.inputs import Inputs
from server.images.raw_images import RawImages
from server.images.store import Draft, ImageFile, ImageStore, written_first
from server.outbound.fetch import FetchError, ForbiddenAddressError, WebClient
from server.protocol.errors import NotFoundError, TaskError, TransferError, UnavailableError, invalid
from server.protocol.sources import UnstoredImage
from server.protocol.trace import outgoing_headers
from server.settings import Settings
from server.state import tasks
from server.state.database import Database
from server.state.images import ImageRecord
from server.state.records import StoredResult
from server.upscale.pricing import Prices, Quote
from server.upscale.processing import Processing
from server.upscale.sizing import Size
from server.upscale.work import Work

__all__ = ["Pipeline"]


class Pipeline:
    """Does upscales."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        prices: Prices,
        processing: Processing,
        images: ImageStore,
        inputs: Inputs,
        raw_images: RawImages,
        web: WebClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Do nothing yet.

        Args:
            settings: how long results are kept.
            database: where prices are reserved, and results recorded that are uploaded.
            prices: says what requests come to.
            processing: makes the results.
            images: where they are stored.
            inputs: obtains the inputs.
            raw_images: where the pixels of results are held.
            web: sends results to `uploadEndpoint`s.
            clock: the time in seconds since the epoch.
        """
        self._settings = settings
        self._database = database
        self._prices = prices
        self._processing = processing
        self._images = images
        self._inputs = inputs
        self._raw_images = raw_images
        self._web = web
        self._clock = clock

    async def run(self, work: Work) -> tuple[StoredResult, Draft | None]:
        """The result of a request and its image, which is yet to be recorded.

        Both are to be recorded together; its price is reserved, to be charged with that. There is no image if
        the result is not stored, or if it is recorded by now, as it had to be uploaded.

        Raises:
            UnavailableError: if the input is not stored, and was in the memory of a server that is gone.
            TaskError: what the client did wrong, or cannot pay.
            LostTaskError: if the task has an outcome by now, or another attempt.
            EngineError: what the model could not do.
        """
        if (recorded := await self._recorded(work)) is not None:
            await self._upload(work, await self._read(recorded))
            return recorded, None
        found = await self._look(work)
        quote = work.quote or await self._reserve(work, found)
        source = (
            await self._inputs.keep(work.account, found, scope=work.request.scope)
            if isinstance(found, ImageFile)
            else found
        )
        work.story.output_pixels = quote.size.width * quote.size.height
        encoded, pixels, safety = await self._processing.process(work, source, quote)
        result = StoredResult(
            input_image_uuid=source.uuid if isinstance(source, ImageRecord) else "",
            channels=None if pixels is None else pixels.channels,
            size=len(encoded if pixels is None else pixels.pixels),
            safety=safety,
        )
        if pixels is not None:
            self._raw_images.keep(work.attempt, pixels, self._clock())
        if not work.request.stores_result:
            return result, None
        draft = await self._store(work, encoded, quote.size)
        result = replace(result, image_uuid=draft.image.uuid, image_name=draft.image.name)
        if work.request.upload_endpoint is None:
            return result, draft
        await self._record(work, result, draft)
        await self._upload(work, encoded)
        return result, None

    async def _recorded(self, work: Work) -> StoredResult | None:
        """The result that a server had recorded when it was killed while it uploaded it."""
        if work.request.upload_endpoint is None:
            return None
        record = await self._database.run(tasks.find, work.account, work.attempt.task_uuid)
        return None if record is None else record.result

    async def _read(self, result: StoredResult) -> bytes:
        try:
            return await self._images.read(result.image_name)
        except FileNotFoundError as error:
            raise NotFoundError("imageExpired", f"image {result.image_uuid} has expired") from error

    async def _look(self, work: Work) -> ImageRecord | ImageFile | UnstoredImage:
        """The input; what is fetched is not yet kept."""
        request = work.request
        with work.story.measure("fetch"):
            if work.image is not None:
                return work.image
            if not isinstance(request.source, UnstoredImage):
                return await self._inputs.look(
                    work.account, request.source, request.parameter, request.scope, is_wanted=True
                )
            if work.picture is None:
                raise UnavailableError(
                    "the pixels were not stored, and are gone with the server that had them; send them again",
                    retry_after=1,
                )
            return request.source

    async def _reserve(self, work: Work, found: ImageRecord | ImageFile | UnstoredImage) -> Quote:
        """Reserve what the request costs, now that the size of its input is known."""
        quote, token = self._prices.quote(work.request, found.width, found.height), work.request.token
        if not await self._database.run(tasks.reserve, work.attempt, quote.price, self._clock(), token):
            raise await self._database.run(tasks.too_dear, work.account, quote.price, token)
        return quote

    async def _store(self, work: Work, encoded: bytes, size: Size) -> Draft:
        """The image of a result, which is yet to be recorded."""
        request = work.request
        file = ImageFile(encoded, request.output_format.extension, size.width, size.height)
        with work.story.measure("store"):
            ttl = request.ttl or self._settings.image_ttl
            return await self._images.draft(work.account, file, ttl, request.scope)

    async def _record(self, work: Work, result: StoredResult, draft: Draft) -> None:
        """Record a result before it leaves the server."""
        keep = written_first([draft], tasks.keep)
        try:
            await self._database.insist(keep, work.attempt, result, draft.image, self._images.limit)
        except TaskError:
            await self._images.drop(draft.image.name)
            raise

    async def _upload(self, work: Work, encoded: bytes) -> None:
        """Send a result that is recorded where the task wants it."""
        request = work.request
        endpoint, media_type = request.upload_endpoint or "", request.output_format.media_type
        recorded = self._settings.otlp_endpoint is not None
        headers = outgoing_headers(request.traceparent, work.attempt.id, recorded=recorded)
        try:
            with work.story.measure("upload"):
                await self._web.send("PUT", endpoint, encoded, media_type, headers, account=work.account)
        except ForbiddenAddressError as error:
            raise invalid("uploadEndpoint", f"uploadEndpoint: {error}") from error
        except FetchError as error:
            raise TransferError("uploadFailed", f"uploadEndpoint: {error}", "uploadEndpoint") from error
