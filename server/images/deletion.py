"""Deletes the files of images: when their time has passed, or when nothing names them after all.

A file is condemned in the database before it is deleted: what cannot be deleted now, a later sweep deletes.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from server.images.bucket import Bucket
from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.state.database import Database
from server.state.images import condemn_expired
from server.state.loose_files import condemn, condemn_stale, condemned, forget_loose

__all__ = ["Deletion"]

log = logging.getLogger(__name__)

_LOOSE_FOR: Final = 86400.0
"""Seconds after which a file that no image names was left behind: longer than any task, or upload, takes."""

_AT_ONCE: Final = 100
"""Files that are deleted together."""


class Deletion:
    """Deletes the files of a bucket that nothing needs any more."""

    def __init__(self, bucket: Bucket, database: Database, clock: Callable[[], float]) -> None:
        """Delete nothing yet.

        Args:
            bucket: where the files are.
            database: says which of them are to go.
            clock: the time in seconds since the epoch.
        """
        self._bucket = bucket
        self._database = database
        self._clock = clock

    async def drop(self, name: str) -> None:
        """Delete a file that was to be recorded, and will not be; if that fails, a sweep does."""
        with suppress(UnavailableError, DatabaseUnavailableError):
            await self._database.run(condemn, name)
            await self._delete([name])

    async def delete_condemned(self, name: str) -> None:
        """Delete a file that is condemned already; if that fails, the next sweep does it."""
        with suppress(UnavailableError, DatabaseUnavailableError):
            await self._delete([name])

    async def sweep(self, forget: Callable[[str], object]) -> int:
        """Delete the images whose time has passed, and what a crash left behind; returns how many images.

        A file that cannot be deleted stops no other; it is tried again at the next sweep.

        Args:
            forget: called with the name of each image whose time has passed.
        """
        await self._database.run(condemn_stale, self._clock() - _LOOSE_FOR)
        count = 0
        while names := await self._database.run(condemn_expired, self._clock(), _AT_ONCE):
            for name in names:
                forget(name)
            count += len(names)
        last, kept = "", 0
        while names := await self._database.run(condemned, last, _AT_ONCE):
            last = names[-1]
            kept += len(names) - len(await self._delete(names))
        if kept:
            log.warning("%d files cannot be deleted for now", kept)
        return count

    async def _delete(self, names: list[str]) -> list[str]:
        """Delete condemned files; returns those that could be.

        Raises:
            UnavailableError: if the bucket cannot be used at all.
        """
        deleted = names
        try:
            await self._bucket.delete(names)
        except UnavailableError:
            await self._bucket.check()
            deleted = [name for name in names if await self._is_deleted(name)]
        await self._bucket.delete_staged(deleted)
        await self._database.run(forget_loose, deleted)
        return deleted

    async def _is_deleted(self, name: str) -> bool:
        """Delete a file; False if that fails."""
        try:
            await self._bucket.delete([name])
        except UnavailableError:
            return False
        return True
