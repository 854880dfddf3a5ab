"""Input images: from whatever a client named to a stored, checked image."""

import asyncio

from engines import ImageError, inspect
from server.fetch import FetchError, ForbiddenAddressError, WebClient
from server.images import ImageFile, ImageStore
from server.protocol.errors import NotFoundError, TransferError, invalid
from server.protocol.sources import ImageSource, InlineImage, RemoteImage, StoredImage
from server.settings import Settings
from server.state.accounts import AccountId
from server.state.images import ImageRecord

__all__ = ["Inputs"]


class Inputs:
    """Gets input images into the store."""

    def __init__(self, images: ImageStore, web: WebClient, settings: Settings) -> None:
        self._images = images
        self._web = web
        self._settings = settings

    @property
    def max_pixels(self) -> int:
        return round(self._settings.max_input_megapixels * 1e6)

    async def obtain(
        self, account: AccountId, source: ImageSource, parameter: str, ttl: float | None = None
    ) -> ImageRecord:
        """The stored image that `source` names; an image from outside is fetched, checked and kept.

        Raises:
            NotFoundError: if an image UUID is unknown or has expired.
            TransferError: if a URL cannot be fetched.
            ParameterError: naming `parameter`, for a URL that is not allowed, and for data that is not an
                image, is broken or too large.
        """
        match source:
            case StoredImage(uuid):
                record = await self._images.find(account, uuid)
                if record is None:
                    raise NotFoundError("imageNotFound", f"there is no image {uuid}, or no more", parameter)
                return record
            case RemoteImage(url):
                data = await self._fetch(url, parameter)
            case InlineImage(data):
                pass
        if len(data) > self._settings.max_image_bytes:
            raise invalid(
                parameter,
                f"the image has {len(data)} bytes; the limit is {self._settings.max_image_bytes}",
            )
        try:
            info = await asyncio.to_thread(inspect, data, max_pixels=self.max_pixels)
        except ImageError as error:
            raise invalid(parameter, str(error)) from error
        kept_for = self._settings.image_ttl if ttl is None else ttl
        file = ImageFile(data, _extension(info.format), info.width, info.height)
        return await self._images.put_input(account, file, kept_for)

    async def read(self, record: ImageRecord, parameter: str) -> bytes:
        """The bytes of a stored input.

        Raises:
            NotFoundError: if it has expired meanwhile.
        """
        try:
            return await self._images.read(record.name)
        except FileNotFoundError as error:
            raise NotFoundError("imageExpired", f"image {record.uuid} has expired", parameter) from error

    async def _fetch(self, url: str, parameter: str) -> bytes:
        try:
            return await self._web.get(url, max_bytes=self._settings.max_image_bytes)
        except ForbiddenAddressError as error:
            raise invalid(parameter, f"{parameter}: {error}") from error
        except FetchError as error:
            raise TransferError("downloadFailed", f"{parameter}: {error}", parameter) from error


def _extension(image_format: str) -> str:
    return {"JPEG": "jpg"}.get(image_format, image_format.lower())
