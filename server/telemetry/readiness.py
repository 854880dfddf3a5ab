"""Whether tasks can be run now."""

import asyncio

from engines import Upscaler
from server.images.store import ImageStore
from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.state.database import Database

__all__ = ["Readiness"]


class Readiness:
    """Looks at what tasks need: a device, the database, the image store."""

    def __init__(
        self, upscaler: Upscaler, database: Database, images: ImageStore, patience: float = 5
    ) -> None:
        """Look at nothing yet.

        Args:
            upscaler: which has the devices.
            database: where tasks are recorded.
            images: where their images are kept.
            patience: seconds that the database and the store may take to answer, together.
        """
        self._upscaler = upscaler
        self._parts = {"database": database.check, "image store": images.check}
        self._patience = patience
        self._look: asyncio.Task[str | None] | None = None
        self._looking_at = ""

    async def obstacle(self) -> str | None:
        """Why tasks cannot be run now; None if they can."""
        if not self._upscaler.usable:
            return "no device is left to run tasks on"
        # One look at a time: what hangs would otherwise have a thread of its own for each who asks.
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._unusable_part())
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(self._look)
        except TimeoutError:
            return f"the {self._looking_at} does not answer"

    def restriction(self) -> str | None:
        """What is not as it should be though tasks can be run; None if all is."""
        device = self._upscaler.stand_in
        return None if device is None else f"{device.name} has taken over, all other devices are lost"

    async def _unusable_part(self) -> str | None:
        for name, check in self._parts.items():
            self._looking_at = name
            try:
                await check()
            except (DatabaseUnavailableError, UnavailableError):
                return f"the {name} cannot be used"
        return None
