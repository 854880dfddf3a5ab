"""A stream of frames, such as video: sent as they come, given in order."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from tilewire.errors import FrameDroppedError
from tilewire.events import Result
from tilewire.sources import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Frame", "Frames", "stream_frames"]

Frames: TypeAlias = "AsyncIterable[Source] | Iterable[Source]"
"""What gives frames, one after another; what blocks, such as a camera's generator, is asked in a thread."""

Begin: TypeAlias = "Callable[[Source, dict[str, Any]], Coroutine[Any, Any, Result]]"
"""Upscales a frame, as a task with these parameters besides."""

_Coming: TypeAlias = "asyncio.Queue[tuple[int, Source] | Exception | None]"
"""Frames that are to be sent; last what the source raised, or None."""

_Begun: TypeAlias = "asyncio.Queue[tuple[int, asyncio.Task[Result]] | Exception | None]"
"""Frames that were sent; last the same."""

_ON_THEIR_WAY: Final = 2
"""Frames beside those that are worked on: one waits for its turn, one is being sent."""


class Frame(NamedTuple):
    """A frame of a stream, enlarged.

    Attributes:
        number: which frame of the source it is, from 0 on.
        pixels: (H, W), (H, W, 3) or (H, W, 4) uint8.
    """

    number: int
    pixels: NDArray[np.uint8]


async def stream_frames(
    frames: Frames, begin: Begin, in_flight: int, *, latest: bool
) -> AsyncGenerator[Frame, None]:
    """Give each frame as soon as it and those before it are done; those that are dropped are left out.

    Args:
        frames: the source.
        begin: upscales one.
        in_flight: how many are worked on at once.
        latest: whether frames are dropped that wait when a newer one comes.
    """
    coming: _Coming = asyncio.Queue(1)
    begun: _Begun = asyncio.Queue()
    tasks: set[asyncio.Task[Result]] = set()
    feeding = [
        asyncio.create_task(_read(frames, coming, latest=latest)),
        asyncio.create_task(_send(coming, begun, tasks, begin, in_flight, latest=latest)),
    ]
    try:
        while (one := await begun.get()) is not None:
            if isinstance(one, Exception):
                raise one
            number, task = one
            try:
                result = await task
            except FrameDroppedError:
                continue
            yield Frame(number, result.to_array())
    finally:
        left = [*feeding, *tasks]
        for waiting in left:
            waiting.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _read(frames: Frames, coming: _Coming, *, latest: bool) -> None:
    """Read the source no further than need be; of the latest only, as fast as it goes."""
    number = 0
    try:
        async for frame in _each(frames):
            if latest and coming.full():
                coming.get_nowait()
            await coming.put((number, frame))
            number += 1
        await coming.put(None)
    except Exception as error:  # noqa: BLE001 - it is raised where the frames are given, after them
        await coming.put(error)


async def _send(
    coming: _Coming,
    begun: _Begun,
    tasks: set[asyncio.Task[Result]],
    begin: Begin,
    in_flight: int,
    *,
    latest: bool,
) -> None:
    name, room = str(uuid.uuid4()), asyncio.Semaphore(in_flight + _ON_THEIR_WAY)
    while True:
        await room.acquire()
        one = await coming.get()
        if one is None or isinstance(one, Exception):
            begun.put_nowait(one)
            return
        number, frame = one
        sequence = {"name": name, "number": number, "inFlight": in_flight, "latest": latest}
        task = asyncio.create_task(begin(frame, {"sequence": sequence}))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: room.release())
        begun.put_nowait((number, task))


async def _each(frames: Frames) -> AsyncIterator[Source]:
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
        return
    left, end = iter(frames), object()
    while (one := await asyncio.to_thread(next, left, end)) is not end:
        yield one  # type: ignore[misc]  # it is not the end
