"""Raw pixels that are not stored: in memory alone, and within bounds there.

Inputs are there until their tasks have ended; who brings too many is refused. Results are there until they
are old, or others need the room: the oldest of the account that has most go first.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines import Channels, Picture, picture_of
from server.protocol.errors import BusyError, RateLimitError
from server.protocol.raw_image import RawImage
from server.state.accounts import AccountId
from server.state.records import Attempt, AttemptId

__all__ = ["HeldPicture", "RawImages", "raw_image"]

_SHARE: Final = 4
"""One account has the whole of the bytes divided by this, at most."""


_RESULTS_FOR: Final = 600.0
"""Seconds that a client has to come back for a result."""


class HeldPicture(NamedTuple):
    """An input in memory. `release` is to be called once its task has ended."""

    picture: Picture
    release: Callable[[], None]


def raw_image(pixels: NDArray[np.uint8]) -> RawImage:
    """(H, W), (H, W, 3) or (H, W, 4), C-contiguous, as they are sent; they are not copied."""
    channels: Channels = 1 if pixels.ndim == 2 else 4 if pixels.shape[2] == 4 else 3
    height, width = pixels.shape[:2]
    return RawImage(width=width, height=height, channels=channels, pixels=pixels.data.cast("B"))


class _Result(NamedTuple):
    account: AccountId
    image: RawImage
    since: float


class RawImages:
    """The inputs and the results that are in the memory of this server."""

    def __init__(self, limit: int) -> None:
        """Hold nothing yet.

        Args:
            limit: bytes of inputs, and as many of results; a quarter of them are one account's.
        """
        self._limit = limit
        self._inputs: Counter[AccountId] = Counter()
        self._results: dict[AttemptId, _Result] = {}  # the oldest first
        self._bytes: Counter[AccountId] = Counter()

    def take(self, account: AccountId, image: RawImage) -> HeldPicture:
        """Hold an input.

        Raises:
            RateLimitError: if the account has too many in memory.
            BusyError: if all accounts together have.
        """
        size = len(image.pixels)
        if self._inputs[account] and self._inputs[account] + size > self._limit // _SHARE:
            raise RateLimitError(
                "taskRateLimit",
                f"{self._inputs[account]} bytes of raw pixels of this account wait for their tasks; "
                "wait for some of them, or store them: true",
                retry_after=1,
            )
        if self._inputs and self._inputs.total() + size > self._limit:
            raise BusyError(1)
        self._inputs[account] += size

        def release() -> None:
            nonlocal size
            self._inputs[account] -= size
            size = 0
            if not self._inputs[account]:
                del self._inputs[account]

        picture = picture_of(image.pixels, image.width, image.height, image.channels)
        return HeldPicture(picture, release)

    def keep(self, attempt: Attempt, image: RawImage, now: float) -> None:
        """Hold the result of an attempt, whatever else must go for it."""
        self._forget(attempt.id)
        self._results[attempt.id] = _Result(attempt.account, image, now)
        self._bytes[attempt.account] += len(image.pixels)
        while len(self._results) > 1 and self._bytes.total() > self._limit:
            (most, _), *_ = self._bytes.most_common(1)
            oldest = next(one for one, result in self._results.items() if result.account == most)
            if oldest == attempt.id:
                break
            self._forget(oldest)

    def find(self, attempt: Attempt) -> RawImage | None:
        """The result of an attempt; None if it is not, or no more, in the memory of this server."""
        found = self._results.get(attempt.id)
        return None if found is None else found.image

    def sweep(self, now: float) -> None:
        """Let go of old results."""
        for attempt in [one for one, result in self._results.items() if result.since < now - _RESULTS_FOR]:
            self._forget(attempt)

    def _forget(self, attempt: AttemptId) -> None:
        if (result := self._results.pop(attempt, None)) is not None:
            self._bytes[result.account] -= len(result.image.pixels)
            if not self._bytes[result.account]:
                del self._bytes[result.account]
