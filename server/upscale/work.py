"""What an attempt at a task needs to be worked on."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from engines import OnRegion, Picture
from server.state.accounts import AccountId
from server.state.images import ImageRecord
from server.state.records import Attempt
from server.state.requests import UpscaleRequest
from server.telemetry.story import Story
from server.upscale.pricing import Quote

__all__ = ["Work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done for an attempt, and who learns how far it is.

    Attributes:
        attempt: whom the price is reserved for.
        request: what is to be done.
        picture: the input, if that is not stored.
        image: the input, if that was recorded with the task.
        quote: what the request comes to, if its price was reserved as it was accepted.
        story: records how long each stage takes.
        on_start: called when a device takes the first tile; perhaps again.
        on_progress: called with the finished share, from 0 to 1.
        regions: open while the result is in memory; gives what takes its finished parts, if they are wanted.
    """

    attempt: Attempt
    request: UpscaleRequest
    picture: Picture | None
    image: ImageRecord | None
    quote: Quote | None
    story: Story
    on_start: Callable[[], None]
    on_progress: Callable[[float], None]
    regions: AbstractAsyncContextManager[OnRegion | None]

    @property
    def account(self) -> AccountId:
        """Whose task it is."""
        return self.attempt.account
