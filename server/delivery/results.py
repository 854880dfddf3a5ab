"""From a recorded outcome to the item that reports it."""

import asyncio
import math
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from msgspec import UNSET

from engines import Channels, ImageError, decode, pixels_of
from server.images.raw_images import RawImages, raw_image
from server.images.store import MEDIA_TYPES, ImageStore
from server.money import to_usd
from server.protocol.codec import data_uri
from server.protocol.errors import ErrorItem, NotFoundError, RateLimitError
from server.protocol.raw_image import RawImage
from server.protocol.replies import NsfwScores, Progress, UpscaleResult
from server.protocol.requests import OutputType
from server.state.records import Status, StoredResult, TaskRecord, unreadable

__all__ = ["ClientResults", "Results", "too_large"]


class Results:
    """Reports outcomes, and reads images from the store where their bytes were asked for."""

    def __init__(self, images: ImageStore, raw_images: RawImages) -> None:
        self._images = images
        self._raw_images = raw_images

    @staticmethod
    def size(record: TaskRecord) -> int:
        """Bytes of the images that go into the item for a task, before they are read."""
        request, result = record.readable_request, record.result
        if request is None or result is None:
            return 0
        copies = sum(each is not OutputType.URL for each in request.output_types)
        return result.size * (copies + (result.channels is not None))

    async def item(
        self, record: TaskRecord, base_url: str, *, status: bool = False, by_url: str = ""
    ) -> UpscaleResult | ErrorItem | Progress:
        """The item for a task.

        Args:
            record: the task; one without an outcome is reported as under way.
            base_url: what the client reaches this server as.
            status: whether to say `"status": "success"`, as clients that poll expect. These get a result that
                could not be uploaded; others the error.
            by_url: why the image's URL takes the place of its bytes, if it does; the result says so.

        Raises:
            UnavailableError: if the image's bytes, or a presigned URL, were asked for and the store fails.
        """
        if record.error is not None and not (status and record.result is not None):
            return record.error
        request = record.readable_request
        if request is None:
            return unreadable(record.task_uuid)
        if record.result is None or record.status is Status.ACCEPTED:
            return Progress(
                task_type=request.task_type, task_uuid=request.task_uuid, status="processing", progress=0
            )
        result, wanted, warnings = record.result, request.output_types, list(request.warnings)
        if record.error is not None:
            warnings.append(record.error.message)
        if by_url and (request.raw or wanted != (OutputType.URL,)):
            wanted = (OutputType.URL,)
            instead = "get it from imageURL" if result.image_name else "it is not stored"
            warnings.append(f"{by_url}: {instead}")
        data, url, pixels = b"", "", None
        try:
            if result.channels is not None and not by_url:
                pixels = await self._pixels(record, result)
            if OutputType.BASE64 in wanted or OutputType.DATA_URI in wanted:
                data = await self._images.read(result.image_name)
            if OutputType.URL in wanted and result.image_name:
                url = await self._images.url(result.image_name, base_url)
        except (FileNotFoundError, ImageError) as error:
            gone = NotFoundError("imageExpired", _why_gone(result, error))
            return gone.item(request.task_type, request.task_uuid, None)
        safety = result.safety
        return UpscaleResult(
            task_type=request.task_type,
            task_uuid=request.task_uuid,
            status="success" if status else UNSET,
            image_uuid=result.image_uuid or UNSET,
            input_image_uuid=result.input_image_uuid or UNSET,
            image_url=url or UNSET,
            image_base64_data=data if OutputType.BASE64 in wanted else UNSET,
            image_data_uri=(
                data_uri(MEDIA_TYPES[result.image_name.rpartition(".")[2]], data)
                if OutputType.DATA_URI in wanted
                else UNSET
            ),
            image=UNSET if pixels is None else pixels,
            nsfw_content=UNSET if safety is None else safety.flagged,
            nsfw_scores=UNSET if safety is None else NsfwScores(input=safety.input, result=safety.result),
            seed=request.diffusion.seed if request.diffusion is not None else UNSET,
            cost=to_usd(result.cost) if request.include_cost else UNSET,
            warnings=warnings or UNSET,
        )

    async def _pixels(self, record: TaskRecord, result: StoredResult) -> RawImage:
        """The pixels of a result: from memory or, where they are stored, from there.

        Raises:
            FileNotFoundError: if they are gone.
            ImageError: if their file is damaged.
            UnavailableError: if the store fails.
        """
        found = self._raw_images.find(record.attempt)
        if found is not None:
            return found
        if not result.image_name:
            raise FileNotFoundError
        data = await self._images.read(result.image_name)
        return await asyncio.to_thread(_decoded, data, result.channels)


def _why_gone(result: StoredResult, error: Exception) -> str:
    if isinstance(error, ImageError):
        return f"image {result.image_uuid} cannot be read: {error}"
    if result.image_name:
        return f"image {result.image_uuid} has expired"
    return "the pixels of the result were not stored, and are no longer in this server's memory"


def _decoded(data: bytes, channels: Channels | None) -> RawImage:
    """The pixels of a file that this server wrote."""
    picture = decode(data, max_pixels=sys.maxsize)
    return raw_image(pixels_of(picture, channels))


class ClientResults:
    """The results that one client gets, read one after another: each image is in memory until it is sent."""

    def __init__(
        self,
        results: Results,
        base_url: str,
        room: Callable[[int], AbstractAsyncContextManager[None]],
        budget: float = math.inf,
    ) -> None:
        """Read results for a client.

        Args:
            results: reads them.
            base_url: the address under which the client reaches this server.
            room: waits until so many bytes may be read, and counts them.
            budget: bytes of images that go into one answer; over a socket each is an answer of its own.
        """
        self._results = results
        self._base_url = base_url
        self._budget = budget
        self._room_for = room
        self._left = budget
        self._turn = asyncio.Lock()
        self.largest = math.inf
        """Bytes of a message that the client takes."""

    async def item(self, record: TaskRecord, *, status: bool = False) -> UpscaleResult | ErrorItem | Progress:
        """The item for a task; arguments and errors as in `Results.item`.

        Raises:
            RateLimitError: if the answer, or all of them together, hold as much as they may.
        """
        async with self._turn:
            if self._left <= 0:
                raise RateLimitError(
                    "replyRateLimit",
                    f"one answer holds {self._budget:g} bytes of images; ask for this one by getResponse",
                    retry_after=1,
                )
            async with self._room_for(self._results.size(record)):
                item = await self._results.item(record, self._base_url, status=status)
            size = _bytes_of_images(item)
            if size > self.largest:
                why = too_large(size)
                return await self._results.item(record, self._base_url, status=status, by_url=why)
            self._left -= size
            return item


def too_large(size: int) -> str:
    """Say why a client gets the URL of an image in place of so many bytes."""
    return f"the image takes {size} bytes, more than your client accepts in one message"


def _bytes_of_images(item: UpscaleResult | ErrorItem | Progress) -> int:
    if not isinstance(item, UpscaleResult):
        return 0
    raw = UNSET if item.image is UNSET else item.image.pixels
    return sum(
        len(image) for image in (item.image_base64_data, item.image_data_uri, raw) if image is not UNSET
    )
