"""The image store: uploads and results, by URL or UUID, until their time has passed.

The bytes are in an object store (a local directory, or S3, GCS, Azure by URL), the facts in the database.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

import obstore
from obstore.exceptions import BaseError as StorageError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url

from server.protocol.errors import UnavailableError
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.images import (
    ImageRecord,
    expired,
    extend,
    find_image,
    forget,
    forget_loose,
    image_named,
    note_loose,
    record_image,
    stale_loose,
)

__all__ = ["MEDIA_TYPES", "ImageFile", "ImageStore", "StoreError", "open_store"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MEDIA_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "avif": "image/avif",
}


_PAUSES: Final = (0.1, 0.5)
"""Seconds before the second and the third try of what the store failed to do."""

_LOOSE_FOR: Final = 86400.0
"""Seconds after which a file that no image names was left behind: longer than any task, or upload, takes."""

_PROBE: Final = "readiness"
"""The name of an empty object, by which the store is seen to work; no image is called so."""

_LONGEST_SIGNATURE: Final = 7 * 86400
"""Seconds that a presigned URL may be valid: the most that S3 and GCS allow."""


class StoreError(Exception):
    """The image store cannot be used as it is set; the message says why, in one line."""


def open_store(url: str | None, directory: Path) -> ObjectStore:
    """The object store at a URL, or a local one in `directory`.

    Credentials, region and endpoint come from the environment, under the names that obstore gives them.

    Raises:
        StoreError: if the URL is of no store, or the directory cannot be made.
    """
    try:
        if url is None:
            return LocalStore(directory, mkdir=True)
        # Tries are repeated here, alike for all kinds of stores; its own go on for three minutes.
        retries: Any = {} if url.startswith(("file:", "memory:")) else {"retry_config": {"max_retries": 0}}
        store: ObjectStore = from_url(url, **retries)
    except (StorageError, OSError, ValueError) as error:
        raise StoreError(f"the image store {url or directory} cannot be used: {_reason(error)}") from error
    return store


class ImageFile(NamedTuple):
    """An encoded image; `extension` is a key of `MEDIA_TYPES`, the size is in pixels."""

    data: bytes
    extension: str
    width: int
    height: int


class ImageStore:
    """Images with an owner and a time to live.

    Where the store fails, and goes on to for some tries, all methods raise `UnavailableError`.
    """

    def __init__(
        self,
        store: ObjectStore,
        database: Database,
        clock: Callable[[], float] = time.time,
        pauses: Sequence[float] = _PAUSES,
        *,
        presigned: bool = False,
    ) -> None:
        """
        Args:
            pauses: seconds before each further try of what the store failed to do.
            presigned: whether clients get images from the store itself, by URLs that are signed for them.
        """
        self._store = store
        self._database = database
        self._clock = clock
        self._pauses = pauses
        self._presigned = presigned
        # obstore's coroutines are completed by threads of its own, which abort the process if they come to
        # that while the interpreter exits (PyO3/pyo3-async-runtimes#40). So its blocking calls, in ours.
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="images")

    async def open(self) -> None:
        """See to it that the store takes images, and signs URLs if it is to.

        Raises:
            StoreError: if it does not.
        """
        if self._presigned and not isinstance(self._store, S3Store | GCSStore | AzureStore):
            raise StoreError("image_urls: presigned needs a storage_url of S3, GCS or Azure")
        try:
            await self._write(_PROBE, b"", {})
            if self._presigned:
                await self._sign(_PROBE, 1)
        except UnavailableError as error:
            raise StoreError(f"the image store cannot be used: {_reason(error.__cause__)}") from error

    async def put(self, account: AccountId, file: ImageFile, ttl: float) -> ImageRecord:
        """Keep an image for `ttl` seconds."""
        return await self._put(account, file, ttl, str(uuid.uuid4()))

    async def put_input(self, account: AccountId, file: ImageFile, ttl: float) -> ImageRecord:
        """Keep an input image. The same bytes of the same account get the same UUID, and are kept once."""
        digest = await asyncio.to_thread(_digest, account, file.data)
        image_uuid = str(uuid.UUID(bytes=digest[:16], version=4))
        now = self._clock()
        known = await self._database.run(extend, account, image_uuid, now + ttl, now)
        return known or await self._put(account, file, ttl, image_uuid)

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
        return await self._in_store(_read, self._store, name, start, length)

    async def look(self, name: str) -> None:
        """See whether the bytes of an image are there, without reading them.

        Raises:
            FileNotFoundError: if they are gone.
        """
        await self._in_store(obstore.head, self._store, name)

    async def url(self, name: str, base_url: str) -> str:
        """Where a client gets an image: from this server, or for as long as it is kept from the store itself.

        Args:
            base_url: what the client reaches this server as.

        Raises:
            FileNotFoundError: if it has expired, and the URL would have to be signed.
        """
        if not self._presigned:
            return f"{base_url}/images/{name}"
        record = await self.find_named(name)
        if record is None:
            raise FileNotFoundError(name)
        return await self._sign(name, min(record.expires - self._clock(), _LONGEST_SIGNATURE))

    async def check(self) -> None:
        """See whether the store answers."""
        try:
            await self.look(_PROBE)
        except FileNotFoundError:  # or the bucket is missing: then this fails
            await self._write(_PROBE, b"", {})

    async def _put(self, account: AccountId, file: ImageFile, ttl: float, image_uuid: str) -> ImageRecord:
        now = self._clock()
        record = ImageRecord(
            uuid=image_uuid,
            account=account,
            name=f"{secrets.token_urlsafe(16)}.{file.extension}",
            size=len(file.data),
            width=file.width,
            height=file.height,
            expires=now + ttl,
        )
        attributes: dict[str, str] = {
            "Content-Type": MEDIA_TYPES[file.extension],
            "Cache-Control": f"private, max-age={int(ttl)}, immutable",
        }
        await self._database.run(note_loose, record.name, now)
        await self._write(record.name, file.data, attributes)
        kept, superfluous = await self._database.run(record_image, record, now)
        if superfluous is not None:
            await self._delete([superfluous])
            await self._database.run(forget_loose, [superfluous])
        return kept

    async def sweep(self) -> int:
        """Delete the images whose time has passed, and what a crash left behind; returns how many images."""
        while names := await self._database.run(stale_loose, self._clock() - _LOOSE_FOR, 100):
            await self._delete(names)
            await asyncio.to_thread(_delete_staged, self._store, names)
            await self._database.run(forget_loose, names)
        count = 0
        while batch := await self._database.run(expired, self._clock(), 100):
            names = [image.name for image in batch]
            await self._delete(names)
            await self._database.run(forget, names)
            count += len(batch)
        return count

    async def _write(self, name: str, data: bytes, attributes: dict[str, str]) -> None:
        # A local directory keeps no attributes, and refuses them.
        kept = None if isinstance(self._store, LocalStore) else attributes
        try:
            await self._in_store(obstore.put, self._store, name, data, attributes=kept)
        except FileNotFoundError as error:  # the bucket is missing
            raise _failure(error) from error

    async def _sign(self, name: str, seconds: float) -> str:
        assert isinstance(self._store, S3Store | GCSStore | AzureStore)
        lifetime = timedelta(seconds=max(1, int(seconds)))
        return await self._in_store(obstore.sign, self._store, "GET", name, lifetime)

    async def _delete(self, names: list[str]) -> None:
        """Delete files, if they are there."""
        try:
            await self._in_store(obstore.delete, self._store, names)
        except FileNotFoundError:
            # Some were deleted already; the store stops at the first of them.
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    await self._in_store(obstore.delete, self._store, name)

    async def _in_store(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the store in a thread; again after a moment if it fails.

        Raises:
            FileNotFoundError: if it has no such image; that is no failure.
            UnavailableError: if it still fails.
        """
        loop = asyncio.get_running_loop()
        for pause in (*self._pauses, None):
            try:
                return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))
            except FileNotFoundError:
                raise
            except (StorageError, OSError) as error:
                if pause is None:
                    raise _failure(error) from error
                await asyncio.sleep(pause)
        raise AssertionError

    def close(self) -> None:
        """Finish what runs."""
        self._threads.shutdown()


def _read(store: ObjectStore, name: str, start: int, length: int | None) -> bytes:
    if length is not None:
        return bytes(obstore.get_range(store, name, start=start, length=length))
    return bytes(obstore.get(store, name).bytes())


def _delete_staged(store: ObjectStore, names: Sequence[str]) -> None:
    """Delete what a killed process had written of files: a local store names them so until they are whole."""
    if isinstance(store, LocalStore) and store.prefix is not None:
        for name in names:
            (Path(store.prefix) / f"{name}#1").unlink(missing_ok=True)


def _failure(error: Exception) -> UnavailableError:
    log.error("the image store fails: %s", _reason(error))
    return UnavailableError("the image store cannot be used")


def _reason(error: BaseException | None) -> str:
    """What the store says, in one line."""
    text, _, debug = str(error).partition("Debug source:")  # obstore's, for its developers
    if "BadScheme" in debug:
        return "its endpoint is http, not https; AWS_ALLOW_HTTP=true allows that"
    said = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL)
    return f"{said[2]} ({said[1]})" if said else " ".join(text.split())


def _digest(account: AccountId, data: bytes) -> bytes:
    digest = hashlib.sha256(account.encode())
    digest.update(data)
    return digest.digest()
