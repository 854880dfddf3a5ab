"""Input images: from whatever a client named to a stored, checked image, and from there to pixels."""

import asyncio
import hashlib
from typing import Final, NamedTuple

from engines import Decoders, ImageError, ImageTooLargeError, OutputFormat, Picture, encode, picture_of
from server.images.raw_images import HeldPicture, RawImages
from server.images.recent import Recent
from server.images.store import Draft, ImageFile, ImageStore
from server.limits.edge import Edge
from server.limits.fair_gate import FairGate
from server.outbound.fetch import FetchError, ForbiddenAddressError, WebClient
from server.protocol.errors import NotFoundError, TransferError, invalid
from server.protocol.raw_image import RawImage
from server.protocol.sources import ImageSource, InlineImage, RemoteImage, StoredImage, UnstoredImage
from server.settings import Settings
from server.state.accounts import AccountId
from server.state.images import Check, ImageRecord
from server.state.logins import Login

__all__ = ["Inputs"]

_LARGE: Final = 2**20
"""Bytes from which a digest is worth a trip to a thread."""


_SMALL: Final = 2**18
"""Pixels up to which an image is decoded as it is read: another trip to a decoder would take longer."""

_PICTURES: Final = 64 * 2**20
"""Bytes of such pictures that are kept for their tasks; those that wait longest are decoded again."""


class _Decoded(NamedTuple):
    """The bytes of an image, and its pixels. Whoever decodes it has the same bytes, as they are at hand."""

    data: bytes
    picture: Picture


class Inputs:
    """Gets input images into the store, and their pixels out of it."""

    def __init__(
        self,
        images: ImageStore,
        raw_images: RawImages,
        web: WebClient,
        decoders: Decoders,
        edge: Edge,
        settings: Settings,
    ) -> None:
        self._images = images
        self._raw_images = raw_images
        self._edge = edge
        self._web = web
        self._decoders = decoders
        self._settings = settings
        self._max_pixels = round(settings.max_input_megapixels * 1e6)
        # Whoever sends what is slow to decode waits for itself.
        self._decoding = FairGate(decoders.count)
        self._pictures = Recent[int, _Decoded](_PICTURES, lambda known: known.picture.pixels.nbytes)

    async def own(self, login: Login, source: ImageSource, base_url: str, parameter: str) -> ImageSource:
        """Give an image that is named by its URL on this server from the store, in place of that URL.

        Args:
            login: who names it.
            source: what is named, by its URL or otherwise.
            base_url: the address under which the client reaches this server.
            parameter: what names it.

        Raises:
            NotFoundError: if it has expired.
        """
        if not isinstance(source, RemoteImage) or not source.url.startswith(prefix := f"{base_url}/images/"):
            return source
        name = source.url.removeprefix(prefix).partition("?")[0].partition("#")[0]
        record = await self._images.find_named(name)
        if record is None:
            raise NotFoundError("imageNotFound", f"there is no image {name[:128]}, or no more", parameter)
        if record.account == login.account and login.sees(record.scope):
            return StoredImage(record.uuid)
        return InlineImage(await self._images.read(name))  # whoever knows the URL may have it

    async def obtain(
        self,
        account: AccountId,
        source: ImageSource,
        parameter: str,
        ttl: float | None = None,
        scope: str | None = None,
    ) -> ImageRecord:
        """The stored image that `source` names; an image from outside is fetched, checked and kept.

        Args:
            account: who names it.
            source: what is named.
            parameter: what names it.
            ttl: seconds that an image from outside is kept; None: as the setting says.
            scope: of the token that names it; it sees no images but its own.

        Raises:
            TaskError: as `look` and `keep`.
        """
        found = await self.look(account, source, parameter, scope)
        return found if isinstance(found, ImageRecord) else await self.keep(account, found, ttl, scope)

    async def look(
        self,
        account: AccountId,
        source: ImageSource,
        parameter: str,
        scope: str | None = None,
        *,
        is_wanted: bool = False,
    ) -> ImageRecord | ImageFile:
        """The image that `source` names; one from outside is fetched, counted and checked, but not yet kept.

        Args:
            account: who names it.
            source: what is named.
            parameter: what names it.
            scope: of the token that names it.
            is_wanted: whether its pixels will be: those of a small one are had in the same trip to a decoder.

        Raises:
            NotFoundError: if an image UUID is unknown or has expired.
            TransferError: if a URL cannot be fetched.
            ParameterError: naming `parameter`, for a URL that is not allowed, and for data that is not an
                image, is broken or too large.
            QuotaError: if the account has sent, or had fetched, too many bytes of late.
        """
        match source:
            case StoredImage(uuid):
                record = await self._images.find(account, uuid, scope)
                if record is None:
                    raise NotFoundError("imageNotFound", f"there is no image {uuid}, or no more", parameter)
                return record
            case RemoteImage(url):
                self._edge.take_upload(account, 0)
                data = await self._fetch(account, url, parameter)
                self._edge.note_upload(account, len(data))
            case InlineImage(data):
                self._edge.take_upload(account, len(data))
            case RawImage():
                self._edge.take_upload(account, len(source.pixels))
                self._check_size(source, parameter)
                data = await asyncio.to_thread(_as_png, source)
        return await self.inspect(account, data, parameter, is_wanted=is_wanted)

    async def inspect(
        self, account: AccountId, data: bytes, parameter: str, *, is_wanted: bool = False
    ) -> ImageFile:
        """What an image is, by its bytes; arguments are as of `look`.

        Raises:
            ParameterError: naming `parameter`, if it is no image, is broken or too large.
        """
        if len(data) > self._settings.max_image_bytes:
            raise invalid(
                parameter,
                f"the image has {len(data)} bytes; the limit, max_image_bytes, is "
                f"{self._settings.max_image_bytes}",
            )
        try:
            async with self._decoding.hold(account, 1):
                info, picture = await self._decoders.read(
                    data, max_pixels=self._max_pixels, decoded_up_to=_SMALL if is_wanted else 0
                )
        except ImageTooLargeError as error:
            raise invalid(parameter, f"{str(error).rstrip('.')}, by max_input_megapixels") from error
        except ImageError as error:
            raise invalid(parameter, str(error)) from error
        if picture is not None:
            self._pictures.keep(id(data), _Decoded(data, picture))
        return ImageFile(data, _extension(info.format), info.width, info.height)

    async def keep(
        self, account: AccountId, file: ImageFile, ttl: float | None = None, scope: str | None = None
    ) -> ImageRecord:
        """Keep an image, by default as long as the settings say; see `ImageStore.put_input`."""
        return await self._images.put_input(account, file, self._lifetime(ttl), scope)

    async def draft(
        self, account: AccountId, file: ImageFile, scope: str | None = None, check: Check | None = None
    ) -> Draft:
        """Write an image that is to be recorded with its task; see `ImageStore.draft_input`."""
        return await self._images.draft_input(account, file, self._lifetime(None), scope, check)

    def _lifetime(self, ttl: float | None) -> float:
        return self._settings.image_ttl if ttl is None else ttl

    def is_at_hand(self, record: ImageRecord) -> bool:
        """Whether the bytes of a stored input need not be read from the store."""
        return self._images.is_at_hand(record.name)

    async def read(self, record: ImageRecord, parameter: str) -> bytes:
        """The bytes of a stored input.

        Raises:
            NotFoundError: naming `parameter`, if it has expired meanwhile.
            UnavailableError: if the store does not give them.
        """
        try:
            return await self._images.read(record.name)
        except FileNotFoundError as error:
            raise NotFoundError("imageExpired", f"image {record.uuid} has expired", parameter) from error

    async def hold(
        self, account: AccountId, image: RawImage, parameter: str
    ) -> tuple[UnstoredImage, HeldPicture]:
        """Have pixels in memory for a task, in place of storing them; what is recorded of them, and they.

        Raises:
            ParameterError: naming `parameter`, if they are too many.
            QuotaError: if the account has sent too many bytes of late.
            RateLimitError, BusyError: as `RawImages.take`.
        """
        self._edge.take_upload(account, len(image.pixels))
        self._check_size(image, parameter)
        large = len(image.pixels) > _LARGE
        digest = await asyncio.to_thread(_sha256, image.pixels) if large else _sha256(image.pixels)
        held = self._raw_images.take(account, image)
        return UnstoredImage(image.width, image.height, image.channels, digest), held

    def _check_size(self, image: RawImage, parameter: str) -> None:
        if (pixels := image.width * image.height) > self._max_pixels:
            raise invalid(
                parameter,
                f"The image is {image.width} x {image.height} = {pixels:,} pixels; the limit is "
                f"{self._max_pixels:,}, by max_input_megapixels",
            )

    async def decode(self, account: AccountId, data: bytes, parameter: str) -> Picture:
        """The pixels of an input.

        Raises:
            ParameterError: naming `parameter`, if it is broken.
        """
        known = self._pictures.take(id(data))
        if known is not None and known.data is data:
            return known.picture
        try:
            async with self._decoding.hold(account, 1):
                return await self._decoders.decode(data, max_pixels=self._max_pixels)
        except ImageError as error:
            raise invalid(parameter, str(error)) from error

    def age(self) -> None:
        """Give back the memory of pictures that have waited since the last call."""
        self._pictures.age()

    async def _fetch(self, account: AccountId, url: str, parameter: str) -> bytes:
        try:
            return await self._web.get(url, max_bytes=self._settings.max_image_bytes, account=account)
        except ForbiddenAddressError as error:
            raise invalid(parameter, f"{parameter}: {error}") from error
        except FetchError as error:
            raise TransferError("downloadFailed", f"{parameter}: {error}", parameter) from error


def _extension(image_format: str) -> str:
    return {"JPEG": "jpg"}.get(image_format, image_format.lower())


def _as_png(image: RawImage) -> bytes:
    picture = picture_of(image.pixels, image.width, image.height, image.channels)
    return encode(picture, OutputFormat.PNG, keep_hidden=True)


def _sha256(pixels: memoryview) -> str:
    return hashlib.sha256(pixels).hexdigest()
