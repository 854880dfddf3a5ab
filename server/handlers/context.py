"""What a handler knows beside its task."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import UNSET

from server.delivery.sessions import Session
from server.protocol.codec import RawTask
from server.protocol.errors import ErrorItem, RateLimitError
from server.protocol.replies import Progress, UpscaleResult
from server.services import Services
from server.state.accounts import AccountId
from server.state.records import TaskRecord

__all__ = ["Context", "Telling"]


class Telling:
    """Reads results for one client, one after the other: images are in memory until they are sent.

    Args:
        budget: bytes of images that go into one answer; over a socket each is an answer of its own.
    """

    def __init__(self, budget: float = math.inf) -> None:
        self._budget = budget
        self._left = budget
        self._turn = asyncio.Lock()

    async def item(
        self, services: Services, record: TaskRecord, base_url: str, *, status: bool = False
    ) -> UpscaleResult | ErrorItem | Progress:
        """The item for a task, as `Results.item` makes it.

        Raises:
            RateLimitError: if the answer holds as much as it may.
        """
        async with self._turn:
            if self._left <= 0:
                raise RateLimitError(
                    "replyRateLimit",
                    f"one answer holds {self._budget:g} bytes of images; ask for this one by getResponse",
                    retry_after=1,
                )
            item = await services.results.item(record, base_url, status=status)
            if isinstance(item, UpscaleResult):
                for image in (item.image_base64_data, item.image_data_uri):
                    self._left -= 0 if image is UNSET else len(image)
            return item


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Whose task it is and how it came.

    Attributes:
        session: where later replies go; None for HTTP, where the one reply is the response.
        base_url: what the client reaches this server as.
        raw: the task as it came.
        telling: through which results are read.
        accepting: upscales that came before over the same connection and may not be taken on yet, by UUID.
    """

    services: Services
    account: AccountId
    session: Session | None
    base_url: str
    raw: RawTask
    telling: Telling
    accepting: Mapping[str, asyncio.Task[None]] = field(default_factory=dict)

    async def settled(self, task_uuid: str) -> None:
        """Return when a task of this connection is taken on, or refused: one may be sent right behind it."""
        if (earlier := self.accepting.get(task_uuid.lower())) is not None:
            await asyncio.wait([earlier])

    async def item(self, record: TaskRecord, *, status: bool = False) -> UpscaleResult | ErrorItem | Progress:
        """The item for a task, as `Telling.item` gives it."""
        return await self.telling.item(self.services, record, self.base_url, status=status)
