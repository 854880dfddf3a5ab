"""A task under way, and the news of it that its client gets meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msgspec import UNSET, UnsetType

from engines import OnRegion
from server.delivery.previews import TileStreams
from server.delivery.sessions import Sessions
from server.images.raw_images import HeldPicture
from server.protocol.replies import Acknowledgement, Progress, Tile
from server.state import tasks
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.images import ImageRecord
from server.state.records import Attempt, TaskRecord
from server.state.requests import UpscaleRequest
from server.upscale.pricing import Quote
from server.upscale.queue import Queue

__all__ = ["News", "Running"]


@dataclass(slots=True, eq=False)
class Running:
    """A task under way.

    Attributes:
        attempt: which attempt at the task it is.
        session: where the outcome is to be sent.
        base_url: what the client reaches this server as.
        pixels: its input, if that is not stored.
        image: its input, if that was recorded with it.
        quote: what it comes to, if its price was reserved when it was accepted.
        outcome: set when there is one; cancelled if the server stops before; LostTaskError if the task has
            another attempt by then, here or elsewhere.
        progress: the finished share of the work, from 0 to 1.
        queue_position: 1 if it is the next of those that wait; None while it does not.
        ended: what ended it from outside, such as a `cancel`.
        is_recording: it has its outcome, which is being recorded: too late to stop it.
        is_abandoned: its work is being stopped.
        work: the asyncio task that sees it through; None if it was not begun.
        acknowledgement: what will acknowledge it unless its outcome comes first.
    """

    attempt: Attempt
    request: UpscaleRequest
    session: str | None
    base_url: str
    pixels: HeldPicture | None = None
    image: ImageRecord | None = None
    quote: Quote | None = None
    outcome: asyncio.Future[TaskRecord] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    progress: float = 0.0
    queue_position: int | None = None
    ended: TaskRecord | None = None
    is_recording: bool = False
    is_abandoned: bool = False
    work: asyncio.Task[None] | None = None
    acknowledgement: asyncio.TimerHandle | None = None

    @property
    def account(self) -> AccountId:
        """Whose task it is."""
        return self.attempt.account

    @property
    def key(self) -> str:
        """The UUID that the task is recorded under."""
        return self.attempt.task_uuid

    def abandon(self, ended: TaskRecord | None = None) -> None:
        """Stop the work, as the task has another attempt, or an outcome from outside.

        Args:
            ended: that outcome, if it is at hand.
        """
        if not self.is_recording and not self.is_abandoned and self.work is not None:
            self.ended = ended
            self.is_abandoned = True
            self.work.cancel()

    def news(self, tile: Tile | UnsetType = UNSET) -> Progress:
        """The message that says how far it is, with a finished part of the result if there is one to send."""
        return Progress(
            task_type=self.request.task_type,
            task_uuid=self.request.task_uuid,
            status="processing",
            progress=min(int(100 * self.progress), 99),
            queue_position=UNSET if self.queue_position is None else self.queue_position,
            tile=tile,
        )


class News:
    """Sends sessions what happens to their tasks before the outcome: accepted, progress, finished parts."""

    def __init__(
        self, database: Database, sessions: Sessions, tiles: TileStreams, acknowledge_after: float
    ) -> None:
        """Send news to `sessions`.

        Args:
            database: where it is recorded how much of a result was sent.
            sessions: who is connected.
            tiles: sends finished parts of results.
            acknowledge_after: seconds for which an acknowledgement is held back.
        """
        self._database = database
        self._sessions = sessions
        self._tiles = tiles
        self._acknowledge_after = acknowledge_after
        self._background: set[asyncio.Task[Any]] = set()
        self._queue = Queue(self._send_progress)

    @contextmanager
    def in_line(self, running: Running) -> Iterator[Callable[[], None]]:
        """Have a task in the queue, within the block; gives what to call when its work begins."""
        self._queue.enter(running)
        try:
            yield lambda: self._queue.begin(running)
        finally:
            self._queue.leave(running)

    def note_progress(self, running: Running, share: float) -> None:
        """Note which share of the work is done, from 0 to 1, and send that if it is a whole percent more."""
        before, running.progress = int(100 * running.progress), share
        if before < int(100 * share) < 100:
            self._send_progress(running)

    def _send_progress(self, running: Running) -> None:
        if running.request.include_progress:
            self._spawn(self._sessions.push(running.account, running.session, running.news()))

    def regions(self, running: Running) -> AbstractAsyncContextManager[OnRegion | None]:
        """Send the finished parts of a result within the block, if they are wanted; gives what takes them."""
        if not running.request.include_tiles:
            return nullcontext()
        return self._tiles.open(
            lambda: self._sessions.link(running.account, running.session),
            running.news,
            partial(self._note_sent, running.attempt),
        )

    async def _note_sent(self, attempt: Attempt, sent: int, total: int) -> bool:
        return await self._database.run(tasks.note_sent, attempt, sent, total)

    def acknowledge_later(self, running: Running) -> None:
        """Acknowledge a task after a while, unless its outcome comes first: clients then look less often."""
        item = Acknowledgement(task_type=running.request.task_type, task_uuid=running.request.task_uuid)
        self.cancel_acknowledgement(running)
        running.acknowledgement = asyncio.get_running_loop().call_later(
            self._acknowledge_after,
            lambda: self._spawn(self._sessions.push(running.account, running.session, item)),
        )

    @staticmethod
    def cancel_acknowledgement(running: Running) -> None:
        """Send no acknowledgement any more, as the outcome is sent instead, or nothing."""
        if running.acknowledgement is not None:
            running.acknowledgement.cancel()

    async def stop(self) -> None:
        """Send nothing more."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
