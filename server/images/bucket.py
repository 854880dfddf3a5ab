"""The object store that images are kept in: a local directory, or S3, GCS or Azure by URL.

What it fails to do is tried again, alike for all kinds of stores.
"""

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import BaseError as StorageError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url

from server.private import private_directory
from server.protocol.errors import UnavailableError

__all__ = ["Bucket", "StoreError", "open_store"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSES: Final = (0.1, 0.5)
"""Seconds before the second and the third try of what the store failed to do."""

_SLOWEST: Final = 2**20
"""Bytes a second that a store takes at least."""

_TO_LIST: Final = 3600.0
"""Seconds that the names of all objects may take besides."""

_PROBE: Final = "readiness"
"""The name of an object, by which the store is seen to work; no image is called so."""

_STAGED: Final = "#1"
"""What a local store calls a file so with at its end until it is whole."""

_PROBE_BYTES: Final = bytes(4096)
"""A full disk still takes an empty file."""


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
            return LocalStore(private_directory(directory))
        # Tries are repeated here; the store's own go on for three minutes.
        retries: Any = {} if url.startswith(("file:", "memory:")) else {"retry_config": {"max_retries": 0}}
        store: ObjectStore = from_url(url, **retries)
    except (StorageError, OSError, ValueError) as error:
        raise StoreError(f"the image store {url or directory} cannot be used: {_reason(error)}") from error
    return store


class Bucket:
    """Objects by name.

    Where the store fails, and goes on to for some tries, all methods raise `UnavailableError`.

    Attributes:
        directory: where `write_here` writes; None if it cannot.
    """

    def __init__(
        self,
        store: ObjectStore,
        timeout: float = 30,
        pauses: Sequence[float] = _PAUSES,
        *,
        directory: Path | None = None,
    ) -> None:
        """Wrap a store; nothing is asked of it yet.

        Args:
            store: obstore's.
            timeout: seconds that all tries together may take; a second more for each MiB that is written.
            pauses: seconds before each further try of what the store failed to do.
            directory: that of a local store, if it is on the same disk as the database.
        """
        self.directory = directory
        self._timeout = timeout
        self._store = store
        self._pauses = pauses
        # obstore's coroutines are completed by threads of its own, which abort the process if they come to
        # that while the interpreter exits (PyO3/pyo3-async-runtimes#40). So its blocking calls, in ours.
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="images")

    @property
    def signs_urls(self) -> bool:
        """Whether it has URLs that are signed for one reader."""
        return isinstance(self._store, S3Store | GCSStore | AzureStore)

    async def open(self) -> None:
        """See to it that the store takes objects, and signs URLs if it can.

        Raises:
            StoreError: if it does not.
        """
        try:
            await self.check()
            if self.signs_urls:
                await self.sign(_PROBE, 1)
        except UnavailableError as error:
            raise StoreError(f"the image store cannot be used: {_reason(error.__cause__)}") from error

    async def check(self) -> None:
        """See whether the store takes an object, and has it then."""
        await self.write(_PROBE, _PROBE_BYTES, {})
        await self.look(_PROBE)

    async def write(self, name: str, data: bytes, attributes: dict[str, str]) -> None:
        """Keep an object, with HTTP headers that the store gives it out with."""
        # A local directory keeps no attributes, and refuses them.
        kept = None if isinstance(self._store, LocalStore) else attributes
        try:
            await self._try(
                partial(obstore.put, self._store, name, data, attributes=kept), len(data) / _SLOWEST
            )
        except FileNotFoundError as error:  # the bucket is missing
            raise _failure(error) from error

    def write_here(self, name: str, data: bytes) -> None:
        """Keep a small object, in this thread and by one try; only if there is a `directory`.

        It is not staged: nobody knows it before this has returned. Once more it can only be the same.
        """
        assert self.directory is not None
        try:
            with open(f"{self.directory}/{name}", "wb", opener=_untruncated) as file:
                file.write(data)
        except OSError as error:
            raise _failure(error) from error

    async def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes of an object, or `length` of them from `start` on.

        Raises:
            FileNotFoundError: if it is gone.
        """
        return await self._try(partial(_read, self._store, name, start, length))

    async def look(self, name: str) -> None:
        """See whether an object is there, without reading it.

        Raises:
            FileNotFoundError: if it is gone.
        """
        await self._try(partial(obstore.head, self._store, name))

    async def names(self) -> set[str]:
        """The names of all objects but those of the bucket's own."""
        try:
            return await self._try(partial(_names, self._store), _TO_LIST)
        except FileNotFoundError as error:  # the bucket is missing
            raise _failure(error) from error

    async def sign(self, name: str, seconds: float) -> str:
        """A URL by which anyone may read an object, for so many seconds; only if `signs_urls`."""
        assert isinstance(self._store, S3Store | GCSStore | AzureStore)
        lifetime = timedelta(seconds=max(1, int(seconds)))
        return await self._try(partial(obstore.sign, self._store, "GET", name, lifetime))

    async def delete(self, names: list[str]) -> None:
        """Delete objects, if they are there."""
        try:
            await self._try(partial(obstore.delete, self._store, names))
        except FileNotFoundError:
            # Some were deleted already; the store stops at the first of them.
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    await self._try(partial(obstore.delete, self._store, name))

    async def delete_staged(self, names: Sequence[str]) -> None:
        """Delete what a killed process had written of objects."""
        await asyncio.to_thread(_delete_staged, self._store, names)

    def close(self) -> None:
        """Finish what runs. Blocks."""
        self._threads.shutdown()

    async def _try(self, function: Callable[[], T], more_seconds: float = 0) -> T:
        """Call the store in a thread; again after a moment if it fails.

        Raises:
            FileNotFoundError: if it has no such object; that is no failure.
            UnavailableError: if it still fails, or does not answer in time.
        """
        try:
            async with asyncio.timeout(self._timeout + more_seconds):
                return await self._repeat(function)
        except TimeoutError:
            late = TimeoutError(f"it has not answered in {self._timeout + more_seconds:.0f} seconds")
            raise _failure(late) from late

    async def _repeat(self, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        for pause in (*self._pauses, None):
            try:
                return await loop.run_in_executor(self._threads, function)
            except FileNotFoundError:
                raise
            except (StorageError, OSError) as error:
                if pause is None:
                    raise _failure(error) from error
                await asyncio.sleep(pause)
        raise AssertionError


def _untruncated(path: str, flags: int) -> int:
    """Open a file so that whoever reads it meanwhile finds all that was in it."""
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def _read(store: ObjectStore, name: str, start: int, length: int | None) -> bytes:
    if length is not None:
        return bytes(obstore.get_range(store, name, start=start, length=length))
    return bytes(obstore.get(store, name).bytes())


def _names(store: ObjectStore) -> set[str]:
    return {str(found["path"]) for some in obstore.list(store) for found in some} - {_PROBE}


def _delete_staged(store: ObjectStore, names: Sequence[str]) -> None:
    """Nothing of a store that is not local."""
    if isinstance(store, LocalStore) and store.prefix is not None:
        for name in names:
            (Path(store.prefix) / f"{name}{_STAGED}").unlink(missing_ok=True)


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
