"""Whether tasks can be run now."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from engines import Upscaler
from server.images.store import ImageStore
from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.state.database import Database

__all__ = ["Readiness"]

_EVERY: Final = 1.0
"""Seconds that an answer stands for: each look writes, and anyone may ask."""

_FULL: Final = ("no space left", "is full", "disk full", "quota", "too many links")
_READ_ONLY: Final = ("read-only", "readonly")


class Readiness:
    """Looks at what tasks need: a device, a database and an image store that can be written to."""

    def __init__(
        self,
        upscaler: Upscaler,
        database: Database,
        images: ImageStore,
        patience: float = 5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at nothing yet.

        Args:
            upscaler: which has the devices.
            database: where tasks are recorded.
            images: where their images are kept.
            patience: seconds that the database and the store may take to answer, together.
            clock: seconds of any beginning.
        """
        self._upscaler = upscaler
        self._parts = {"database": database.check, "image store": images.check}
        self._patience = patience
        self._clock = clock
        self._look: asyncio.Task[str | None] | None = None
        self._looked_at = -_EVERY
        self._looking_at = ""

    async def obstacle(self) -> str | None:
        """Why tasks cannot be run now; None if they can."""
        if not self._upscaler.usable:
            return "no device is left to run tasks on"
        # One look at a time: what hangs would otherwise have a thread of its own for each who asks.
        if self._look is None or (self._look.done() and self._clock() >= self._looked_at + _EVERY):
            self._looked_at = self._clock()
            self._look = asyncio.create_task(self._unusable_part())
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(self._look)
        except TimeoutError:
            return f"the {self._looking_at} does not answer"

    def restriction(self) -> str | None:
        """What is not as it should be though tasks can be run; None if all is."""
        device = self._upscaler.stand_in
        if device is None:
            return None
        others = "all other devices are lost" if self._upscaler.nodes is None else "the cluster has no device"
        return f"{device.name} has taken over, {others}"

    def nodes(self) -> str | None:
        """How many devices the cluster has; None without a cluster."""
        if not (nodes := self._upscaler.nodes):
            return None
        return f"devices: {len(self._upscaler.devices)}, on nodes: {len(nodes)}"

    async def _unusable_part(self) -> str | None:
        for name, check in self._parts.items():
            self._looking_at = name
            try:
                await check()
            except (DatabaseUnavailableError, UnavailableError) as error:
                return f"the {name} {_what_is_wrong(error)}"
        return None


def _what_is_wrong(error: Exception) -> str:
    """What an operator can do something about; all else is in the log."""
    cause = str(error.__cause__).lower()
    if any(word in cause for word in _FULL):
        return "is full"
    return "is read-only" if any(word in cause for word in _READ_ONLY) else "cannot be used"
