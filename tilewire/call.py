"""A task of the client's that has no outcome yet."""

import asyncio
import contextlib
from collections import deque
from typing import Any, Final

import msgspec
from msgspec import Raw

from tilewire.errors import TilewireError
from tilewire.socket import Socket

__all__ = ["Call", "Reply", "WireTask"]

WireTask = dict[str, Any]
"""A task as it is on the wire."""

Reply = Raw | TilewireError

_MAX_NEWS: Final = 64
"""Replies that wait to be read. Beyond that the oldest news is dropped; an outcome comes last, and stays."""


class Call:
    """The task, and the replies that were not read yet.

    Attributes:
        type, uuid: the `taskType` and the `taskUUID`.
        frame: the message.
        sent_on: the connection that it was sent on; None if the server does not have it.
        answered: whether the server has said anything about it since it was sent.
        losses: how often the connection was lost before the outcome came.
    """

    def __init__(self, task: WireTask) -> None:
        self.type: str = task["taskType"]
        self.uuid: str = task["taskUUID"]
        self.frame = msgspec.msgpack.encode([task])
        self.sent_on: Socket | None = None
        self.answered = False
        self.losses = 0
        self._replies: deque[tuple[Reply, bool]] = deque(maxlen=_MAX_NEWS)
        self._lost = False
        self._filled = asyncio.Event()

    def begin(self, socket: Socket) -> None:
        """The task is about to be sent on a connection."""
        if self.sent_on is None:
            self._replies.clear()  # a refusal may have come twice
        self.sent_on = socket
        self.answered = False

    @property
    def unread(self) -> bool:
        """Whether there are replies to be read."""
        return bool(self._replies)

    def put(self, reply: Reply, *, last: bool) -> None:
        """Keep a reply until it is read."""
        self.answered = True
        self._replies.append((reply, last))
        self._filled.set()

    def lose(self) -> None:
        """The connection is gone, and no reply will come on it."""
        self._lost = True
        self._filled.set()

    async def get(self) -> tuple[Reply, bool] | None:
        """Give the next reply, and whether it is the last; None if the connection was lost before it came."""
        while not self._replies and not self._lost:
            self._filled.clear()
            await self._filled.wait()
        if self._replies:
            return self._replies.popleft()
        self._lost = False
        self.losses += 1
        return None

    async def ends_within(self, seconds: float) -> bool:
        """Tell whether the outcome comes in time; what is read meanwhile is dropped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    reply = await self.get()
                    if reply is not None and reply[1]:
                        return True
        return False
