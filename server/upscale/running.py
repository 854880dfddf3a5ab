"""A task under way, and what its client is told of it meanwhile."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, UnsetType

from engines import OnRegion
from server.delivery.previews import TileStreams
from server.delivery.sessions import Sessions
from server.protocol.replies import Acknowledgement, Progress, Tile
from server.state.accounts import AccountId
from server.state.records import TaskRecord
from server.state.requests import UpscaleRequest

__all__ = ["News", "Running"]


@dataclass(slots=True, eq=False)
class Running:
    """A task under way.

    Attributes:
        outcome: set when there is one; cancelled if the server stops before; LostTaskError if another server
            has the task by then.
        cancelled: the client wants no outcome.
        recording: it has its outcome, which is being recorded.
    """

    account: AccountId
    key: str
    request: UpscaleRequest
    session: str | None
    base_url: str
    outcome: asyncio.Future[TaskRecord]
    progress: float = 0.0
    cancelled: bool = False
    recording: bool = False
    work: asyncio.Task[None] | None = None
    acknowledgement: asyncio.TimerHandle | None = None

    def news(self, tile: Tile | UnsetType = UNSET) -> Progress:
        """Where it stands, as an item; with a part of the result that is finished."""
        return Progress(
            task_type=self.request.task_type,
            task_uuid=self.request.task_uuid,
            status="processing",
            progress=round(self.progress, 4),
            tile=tile,
        )


class News:
    """Tells sessions of tasks under way: that they were accepted, how far they are, what is finished."""

    def __init__(self, sessions: Sessions, tiles: TileStreams, acknowledge_after: float) -> None:
        """
        Args:
            acknowledge_after: seconds for which an acknowledgement is held back.
        """
        self._sessions = sessions
        self._tiles = tiles
        self._acknowledge_after = acknowledge_after
        self._background: set[asyncio.Task[Any]] = set()

    def note_progress(self, running: Running, share: float) -> None:
        """So much of the work is done."""
        running.progress = share
        if running.request.include_progress and share < 1:
            self._spawn(self._sessions.push(running.account, running.session, running.news()))

    def regions(self, running: Running) -> AbstractAsyncContextManager[OnRegion | None]:
        """Gives what takes the finished parts of the result, if they are wanted."""
        if not running.request.include_tiles:
            return nullcontext()
        return self._tiles.open(lambda: self._sessions.link(running.account, running.session), running.news)

    def acknowledge_later(self, running: Running) -> None:
        """Hold the acknowledgement back: a client that gets one waits before it looks for the result."""
        item = Acknowledgement(task_type=running.request.task_type, task_uuid=running.request.task_uuid)
        self.need_no_acknowledgement(running)
        running.acknowledgement = asyncio.get_running_loop().call_later(
            self._acknowledge_after,
            lambda: self._spawn(self._sessions.push(running.account, running.session, item)),
        )

    @staticmethod
    def need_no_acknowledgement(running: Running) -> None:
        """Its outcome is told instead, or nothing."""
        if running.acknowledgement is not None:
            running.acknowledgement.cancel()

    async def stop(self) -> None:
        """Tell nothing more."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
