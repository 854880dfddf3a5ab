"""The image store: uploads and results, by URL or UUID, until their time has passed.

The bytes are in an object store (a local directory, or S3, GCS, Azure by URL), the facts in the database.
"""

import asyncio
import hashlib
import logging
import secrets
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import obstore
from obstore.exceptions import NotFoundError as ObjectNotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from server.state.accounts import AccountId
from server.state.database import Database
from server.state.images import ImageRecord, expired, find_image, forget, image_named, record_image

__all__ = ["MEDIA_TYPES", "ImageFile", "ImageStore", "open_store"]

log = logging.getLogger(__name__)

MEDIA_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "avif": "image/avif",
}


def open_store(url: str | None, directory: Path) -> ObjectStore:
    """The object store at a URL, or a local one in `directory`."""
    if url is not None:
        return from_url(url)
    return LocalStore(directory, mkdir=True)


class ImageFile(NamedTuple):
    """An encoded image; `extension` is a key of `MEDIA_TYPES`, the size is in pixels."""

    data: bytes
    extension: str
    width: int
    height: int


class ImageStore:
    """Images with an owner and a time to live."""

    def __init__(
        self, store: ObjectStore, database: Database, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._database = database
        self._clock = clock

    async def put(self, account: AccountId, file: ImageFile, ttl: float) -> ImageRecord:
        """Keep an image for `ttl` seconds."""
        return await self._put(account, file, ttl, str(uuid.uuid4()))

    async def put_input(self, account: AccountId, file: ImageFile, ttl: float) -> ImageRecord:
        """Keep an input image. The same bytes of the same account get the same UUID, and are kept once."""
        digest = await asyncio.to_thread(_digest, account, file.data)
        image_uuid = str(uuid.UUID(bytes=digest[:16], version=4))
        known = await self.find(account, image_uuid)
        if known is None:
            return await self._put(account, file, ttl, image_uuid)
        await self._database.run(record_image, known._replace(expires=self._clock() + ttl))
        return known

    async def find(self, account: AccountId, image_uuid: str) -> ImageRecord | None:
        """The account's image of this UUID; None if there is none, or no more."""
        return await self._database.run(find_image, account, image_uuid, self._clock())

    async def find_named(self, name: str) -> ImageRecord | None:
        """The image of this name; None if there is none, or no more."""
        return await self._database.run(image_named, name, self._clock())

    async def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes of an image, or a part of them.

        Raises:
            FileNotFoundError: if they are gone.
        """
        try:
            if length is not None:
                return bytes(await obstore.get_range_async(self._store, name, start=start, length=length))
            result = await obstore.get_async(self._store, name)
            return bytes(await result.bytes_async())
        except ObjectNotFoundError as error:
            raise FileNotFoundError(name) from error

    async def _put(self, account: AccountId, file: ImageFile, ttl: float, image_uuid: str) -> ImageRecord:
        record = ImageRecord(
            uuid=image_uuid,
            account=account,
            name=f"{secrets.token_urlsafe(16)}.{file.extension}",
            size=len(file.data),
            width=file.width,
            height=file.height,
            expires=self._clock() + ttl,
        )
        await obstore.put_async(self._store, record.name, file.data)
        await self._database.run(record_image, record)
        return record

    async def sweep(self) -> int:
        """Delete the images whose time has passed; returns how many."""
        count = 0
        while batch := await self._database.run(expired, self._clock(), 100):
            try:
                await obstore.delete_async(self._store, [image.name for image in batch])
            except ObjectNotFoundError:
                log.warning("some images were deleted already")
            await self._database.run(forget, [image.uuid for image in batch])
            count += len(batch)
        return count


def _digest(account: AccountId, data: bytes) -> bytes:
    digest = hashlib.sha256(account.encode())
    digest.update(data)
    return digest.digest()
