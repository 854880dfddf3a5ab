"""Streams of frames: a few are worked on at a time, results come in order, and live video skips what is late.

The tasks of a stream name it, and have numbers. A task that waits for its place is recorded as any other; one
that is dropped ends with an error, and costs nothing.
"""

import asyncio
from bisect import insort
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakValueDictionary

from server.protocol.errors import FrameDroppedError
from server.protocol.requests import Sequence
from server.upscale.running import Running

__all__ = ["Streams"]


@dataclass(slots=True, eq=False)
class _Frame:
    """A task of a stream.

    Attributes:
        may_begin: set when it has its place, or is dropped.
        is_first: set when no earlier frame is under way.
    """

    number: int
    in_flight: int
    state: Literal["waits", "works", "done", "dropped"] = "waits"
    may_begin: asyncio.Event = field(default_factory=asyncio.Event)
    is_first: asyncio.Event = field(default_factory=asyncio.Event)


class _Stream:
    """The frames of one stream that are under way, by their numbers."""

    def __init__(self) -> None:
        self.frames: list[_Frame] = []
        self._working = 0

    def enter(self, frame: _Frame, *, latest: bool) -> None:
        insort(self.frames, frame, key=lambda one: one.number)
        self._go_on()
        waiting = [one for one in self.frames if one.state == "waits"]
        if latest and len(waiting) > 1:
            for late in waiting[:-1]:
                late.state = "dropped"
                late.may_begin.set()

    def finish(self, frame: _Frame) -> None:
        """The work on a frame has ended; its result may still have to wait for those before it."""
        if frame.state == "works":
            frame.state = "done"
            self._working -= 1
            self._go_on()

    def leave(self, frame: _Frame) -> None:
        self.finish(frame)
        self.frames.remove(frame)
        self._go_on()

    def _go_on(self) -> None:
        if self.frames:
            self.frames[0].is_first.set()
        for frame in self.frames:
            if frame.state != "waits":
                continue
            if self._working >= frame.in_flight:
                return
            frame.state = "works"
            frame.may_begin.set()
            self._working += 1


class Streams:
    """The streams of all accounts, each token's its own. Tasks that belong to none pass."""

    def __init__(self) -> None:
        self._arrivals: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._frames: dict[Running, _Frame] = {}

    def arrival(self, owner: str, sequence: Sequence | None) -> AbstractAsyncContextManager[object]:
        """Held while a task is taken on: those of a stream take turns, in the order of the calls.

        Args:
            owner: whose stream it is: of a token, or of an account.
            sequence: which stream it is of.
        """
        if sequence is None:
            return nullcontext()
        return self._arrivals.setdefault((owner, sequence.name), asyncio.Lock())

    def enter(self, running: Running) -> None:
        """A task is about to begin: if its stream wants the latest only, those that wait are dropped."""
        if (sequence := running.request.sequence) is None:
            return
        frame = self._frames[running] = _Frame(sequence.number, sequence.in_flight)
        stream = self._streams.setdefault(self._key(running), _Stream())
        stream.enter(frame, latest=sequence.latest)

    @asynccontextmanager
    async def place(self, running: Running) -> AsyncIterator[None]:
        """Wait until a task may be worked on; it is worked on within the block.

        Raises:
            FrameDroppedError: if a newer frame came first.
        """
        if (frame := self._frames.get(running)) is None:
            yield
            return
        await frame.may_begin.wait()
        if frame.state == "dropped":
            raise FrameDroppedError
        try:
            yield
        finally:
            self._stream(running).finish(frame)

    async def turn(self, running: Running) -> None:
        """Wait until a task may have its outcome: until all before it have theirs."""
        if (frame := self._frames.get(running)) is not None:
            await frame.is_first.wait()

    def leave(self, running: Running) -> None:
        """A task has its outcome, or is given up; harmless if it has left."""
        if (frame := self._frames.get(running)) is None:
            return
        stream = self._stream(running)
        del self._frames[running]
        stream.leave(frame)
        if not stream.frames:
            del self._streams[self._key(running)]

    def _stream(self, running: Running) -> _Stream:
        return self._streams[self._key(running)]

    @staticmethod
    def _key(running: Running) -> tuple[str, str]:
        assert running.request.sequence is not None
        return running.request.scope or running.account, running.request.sequence.name
