"""Names of files that are to be written, recorded as loose before they are needed.

A file must be known before it is written, or a crash would leave one behind that nobody knows. To record each
name by itself would cost a task two more commits. Those that are never used are forgotten after a day, as all
loose files are.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from server.state.database import Database
from server.state.loose_files import note_all_loose

__all__ = ["Names", "new_name"]

_TOGETHER: Final = 64
_GOOD_FOR: Final = 3600.0
"""Seconds after which an unused name is not used any more: its file would be taken for an old one."""


def new_name(extension: str) -> str:
    """A name that nobody guesses, for a new file; `extension` is a key of `MEDIA_TYPES`."""
    return f"{secrets.token_urlsafe(16)}.{extension}"


class Names:
    """Gives out names for new files."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        """Record none yet.

        Args:
            database: where they are recorded.
            clock: the time in seconds since the epoch.
        """
        self._database = database
        self._clock = clock
        self._ready: dict[str, list[str]] = {}
        self._good_until: dict[str, float] = {}
        self._recording: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def take(self, extension: str) -> str:
        """A name for a new file, which is recorded as loose; `extension` is a key of `MEDIA_TYPES`.

        Raises:
            DatabaseUnavailableError: if none can be recorded.
        """
        while (name := self._next(extension)) is None:
            async with self._recording[extension]:
                if not self._ready.get(extension):  # nobody else has recorded some meanwhile
                    await self._record(extension)
        return name

    def _next(self, extension: str) -> str | None:
        ready = self._ready.get(extension)
        if not ready:
            return None
        if self._clock() >= self._good_until[extension]:
            ready.clear()
            return None
        return ready.pop()

    async def _record(self, extension: str) -> None:
        names, now = [new_name(extension) for _ in range(_TOGETHER)], self._clock()
        await self._database.run(note_all_loose, names, now)
        self._ready[extension], self._good_until[extension] = names, now + _GOOD_FOR
