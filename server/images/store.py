"""The image store: uploads and results, by URL or UUID, until their time has passed.

The bytes are in a `Bucket`, the facts in the database.
"""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial, wraps
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from sqlalchemy import Connection

from server.images.bucket import Bucket, StoreError
from server.images.deletion import Deletion
from server.images.names import Names
from server.images.recent import Recent
from server.protocol.errors import DatabaseUnavailableError, TaskError, UnavailableError
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.images import (
    NO_LIMIT,
    Check,
    FileCondemnedError,
    ImageRecord,
    Recorded,
    find_image,
    image_named,
    known_input,
    record_input,
)

__all__ = ["MEDIA_TYPES", "Draft", "ImageFile", "ImageStore", "attributes", "written_first"]

P = ParamSpec("P")
T = TypeVar("T")

MEDIA_TYPES: Final = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "avif": "image/avif",
}

_LONGEST_SIGNATURE: Final = 7 * 86400
"""Seconds that a presigned URL may be valid: the most that S3 and GCS allow."""

_LITTLE: Final = 2**16
"""Bytes that are written sooner than the database says whether they need be, or by its own thread."""

_INPUTS: Final = 10_000
"""Inputs of which it is remembered that they are there."""

_FRESH_BYTES: Final = 64 * 2**20
"""Bytes of images that are at hand for the one who reads them next."""


class ImageFile(NamedTuple):
    """An encoded image; `extension` is a key of `MEDIA_TYPES`, the size is in pixels."""

    data: bytes
    extension: str
    width: int
    height: int


def _nothing() -> None:
    pass


class Draft(NamedTuple):
    """An image that is to be recorded.

    Attributes:
        image: what is recorded of it.
        data: its bytes.
        is_written: its file is a new one, of this draft.
        write: writes that file, unless it was written. To be called by whoever records it, before.
    """

    image: ImageRecord
    data: bytes
    is_written: bool = True
    write: Callable[[], None] = _nothing


def written_first(
    drafts: Iterable[Draft], record: Callable[Concatenate[Connection, P], T]
) -> Callable[Concatenate[Connection, P], T]:
    """Have what records images write their files before: in the same thread, one trip in place of two."""

    @wraps(record)
    def write_and_record(connection: Connection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for draft in drafts:
            draft.write()
        return record(connection, *args, **kwargs)

    return write_and_record


class ImageStore:
    """Images with an owner and a time to live.

    Where the bucket fails all methods raise `UnavailableError`.
    """

    def __init__(
        self,
        bucket: Bucket,
        database: Database,
        clock: Callable[[], float] = time.time,
        *,
        presigned: bool = False,
        limit: int = NO_LIMIT,
    ) -> None:
        """Keep images in `bucket`.

        Args:
            bucket: where their bytes are.
            database: where all else is.
            clock: the time in seconds since the epoch.
            presigned: whether clients get images from the bucket itself, by URLs that are signed for them.
            limit: bytes of images that an account may have.
        """
        self.limit = limit
        self._bucket = bucket
        self._database = database
        self._clock = clock
        self._presigned = presigned
        # Nearly all are read just once, by the task that they are the input of, or by the reply that holds
        # the result: then the bucket need not be read.
        self._fresh = Recent[str, bytes](_FRESH_BYTES, len)
        self._names = Names(database, clock)
        self._deletion = Deletion(bucket, database, clock)
        self._inputs = Recent[str, str](_INPUTS, lambda _: 1)
        """The names of the files of inputs that were recorded last, by the inputs' UUIDs."""

    async def open(self) -> None:
        """See to it that the bucket takes images, and signs URLs if it is to.

        Raises:
            StoreError: if it does not.
        """
        if self._presigned and not self._bucket.signs_urls:
            raise StoreError("image_urls: presigned needs a storage_url of S3, GCS or Azure")
        await self._bucket.open()

    async def draft(self, account: AccountId, file: ImageFile, ttl: float, scope: str | None = None) -> Draft:
        """Write the file of an image; it is up to the caller to record the image.

        Args:
            account: whose image it is.
            file: the image.
            ttl: seconds that it is to be kept.
            scope: of the token that it belongs to.
        """
        return await self._written(_record_of(account, file, self._clock() + ttl, scope), file.data)

    async def put_input(
        self,
        account: AccountId,
        file: ImageFile,
        ttl: float,
        scope: str | None = None,
    ) -> ImageRecord:
        """Keep an input image; see `draft_input`."""

        async def record(drafts: Collection[Draft]) -> list[Recorded]:
            (draft,) = drafts
            recorded = await self._database.run(
                written_first(drafts, record_input),
                draft.image,
                self._clock(),
                self.limit,
                is_written=draft.is_written,
            )
            return [recorded]

        (kept,) = await self.settle([await self.draft_input(account, file, ttl, scope)], record)
        return kept

    async def draft_input(
        self,
        account: AccountId,
        file: ImageFile,
        ttl: float,
        scope: str | None = None,
        check: Check | None = None,
    ) -> Draft:
        """Write the file of an input image, which `settle` then has recorded.

        The same bytes of the same account get the same UUID, and are kept once. Each scope of a token is like
        an account of its own in this.

        Args:
            account: whose image it is.
            file: the image.
            ttl: seconds that it is to be kept.
            scope: of the token that it belongs to.
            check: called in a transaction before a file of some size is written; what it raises refuses it.
                A small one is written sooner than that.

        Raises:
            QuotaError: if the account has too many bytes of images already.
        """
        is_small = len(file.data) <= _LITTLE
        if is_small:
            digest = _digest(account, scope, file.data)
        else:
            digest = await asyncio.to_thread(_digest, account, scope, file.data)
        image = _record_of(account, file, self._clock() + ttl, scope)
        image = image._replace(uuid=str(uuid.UUID(bytes=digest[:16], version=4)))
        name = self._inputs.take(image.uuid)
        if name is None and not is_small:
            known = await self._database.run(known_input, image, self._clock(), self.limit, check)
            name = None if known is None else known.name
        if name is None:
            return await self._written(image, file.data)
        return Draft(image._replace(name=name), file.data, is_written=False)

    async def settle(
        self,
        drafts: Collection[Draft],
        record: Callable[[Collection[Draft]], Awaitable[Collection[Recorded] | None]],
    ) -> list[ImageRecord]:
        """Have inputs recorded, and see to their files, whatever becomes of that.

        Args:
            drafts: the inputs.
            record: records them, perhaps with more, in one transaction; gives None if they need not be kept.
                Called again, with files that are written anew, if it raises `FileCondemnedError`.

        Returns:
            The images that are there now; none if they need not be kept.
        """
        try:
            try:
                recorded = await record(drafts)
            except FileCondemnedError:
                await self.drop_drafts(drafts)
                drafts = [await self._written(draft.image, draft.data) for draft in drafts]
                recorded = await record(drafts)
        except FileCondemnedError:
            raise UnavailableError("the image could not be stored in time") from None
        except DatabaseUnavailableError:
            raise  # they may be recorded for all that; if not, the files go after a day
        except TaskError:
            await self.drop_drafts(drafts)
            raise
        if recorded is None:
            await self.drop_drafts(drafts)
            return []
        return [await self._settled(draft, each) for draft, each in zip(drafts, recorded, strict=True)]

    async def drop_drafts(self, drafts: Iterable[Draft]) -> None:
        """Delete the files of drafts that will not be recorded."""
        for draft in drafts:
            if draft.is_written:
                await self.drop(draft.image.name)

    async def _settled(self, draft: Draft, recorded: Recorded) -> ImageRecord:
        kept = recorded.image
        if recorded.superfluous is not None:
            await self._deletion.delete_condemned(recorded.superfluous)
        if not draft.is_written or kept.name != draft.image.name:
            await self._mend(kept.name, draft.data, kept.expires - self._clock())
        self._inputs.keep(kept.uuid, kept.name)
        return kept

    async def _written(self, image: ImageRecord, data: bytes) -> Draft:
        """Write an image under a new name; if it is small and local, the thread that records it writes it."""
        name = await self._names.take(image.name.rpartition(".")[2])
        write = _nothing
        if self._bucket.directory is not None and len(data) <= _LITTLE:
            write = partial(self._bucket.write_here, name, data)
        else:
            await self._bucket.write(name, data, attributes(name, image.expires - self._clock()))
        self._fresh.keep(name, data)
        return Draft(image._replace(name=name), data, write=write)

    async def _mend(self, name: str, data: bytes, ttl: float) -> None:
        """See that the file of an input is there; if it was lost, by whatever hand, write it again."""
        self._fresh.keep(name, data)
        try:
            await self._bucket.look(name)
        except FileNotFoundError:
            await self._bucket.write(name, data, attributes(name, ttl))

    async def find(self, account: AccountId, image_uuid: str, scope: str | None = None) -> ImageRecord | None:
        """The account's image of this UUID; None if there is none, or no more, or it is not of `scope`."""
        record = await self._database.run(find_image, account, image_uuid, self._clock())
        return record if record is None or scope in (None, record.scope) else None

    async def find_named(self, name: str) -> ImageRecord | None:
        """The image of this name; None if there is none, or no more."""
        return await self._database.run(image_named, name, self._clock())

    def is_at_hand(self, name: str) -> bool:
        """Whether the next `read` of an image need not wait for the bucket."""
        return name in self._fresh

    async def read(self, name: str) -> bytes:
        """The bytes of an image. What was just written is at hand, once.

        Raises:
            FileNotFoundError: if they are gone.
        """
        fresh = self._fresh.take(name)
        return await self._bucket.read(name) if fresh is None else fresh

    async def read_part(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes of an image, from `start` on.

        Raises:
            FileNotFoundError: if they are gone.
        """
        return await self._bucket.read(name, start, length)

    async def look(self, name: str) -> None:
        """See whether the bytes of an image are there, without reading them.

        Raises:
            FileNotFoundError: if they are gone.
        """
        await self._bucket.look(name)

    async def url(self, name: str, base_url: str) -> str:
        """Where a client gets an image: from this server, or for as long as it is kept from the store itself.

        Args:
            name: of the image.
            base_url: what the client reaches this server as.

        Raises:
            FileNotFoundError: if it has expired, and the URL would have to be signed.
        """
        if not self._presigned:
            return f"{base_url}/images/{name}"
        record = await self.find_named(name)
        if record is None:
            raise FileNotFoundError(name)
        return await self._bucket.sign(name, min(record.expires - self._clock(), _LONGEST_SIGNATURE))

    async def check(self) -> None:
        """See whether the bucket takes an object, and has it then."""
        await self._bucket.check()

    async def drop(self, name: str) -> None:
        """Delete a file that was to be recorded, and will not be; if that fails, a sweep does."""
        self._fresh.take(name)
        await self._deletion.drop(name)

    def forget_unread(self) -> None:
        """Give back the memory of images that have been at hand since the last call, and nobody read."""
        self._fresh.age()

    async def sweep(self) -> int:
        """Delete the images whose time has passed, and what a crash left behind; returns how many images."""
        return await self._deletion.sweep(self._fresh.take)


def _record_of(account: AccountId, file: ImageFile, expires: float, scope: str | None) -> ImageRecord:
    """What is recorded of an image, but that its name is yet to be made: it is the extension alone."""
    return ImageRecord(
        uuid=str(uuid.uuid4()),
        account=account,
        name=f".{file.extension}",
        size=len(file.data),
        width=file.width,
        height=file.height,
        expires=expires,
        scope=scope,
    )


def attributes(name: str, ttl: float) -> dict[str, str]:
    """The headers that a bucket gives an image out with."""
    return {
        "Content-Type": MEDIA_TYPES[name.rpartition(".")[2]],
        "Cache-Control": f"private, max-age={round(ttl)}, immutable",
    }


def _digest(account: AccountId, scope: str | None, data: bytes) -> bytes:
    digest = hashlib.sha256((account + (scope or "")).encode())
    digest.update(data)
    return digest.digest()
