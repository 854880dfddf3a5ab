"""Sees accepted tasks through to their outcome.

`submit` records a task; from then on it is not lost, whatever happens: it is run, and run again after a
restart, until it has an outcome. Result, charge and reply are recorded in one transaction; then the session,
the webhook and whoever waits are told.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from engines import EngineError, OnRegion
from server.admission import Admission
from server.fetch import WebClient
from server.pipeline import Pipeline
from server.protocol.codec import JSON
from server.protocol.errors import (
    ConflictError,
    ServerError,
    TaskCancelledError,
    TaskError,
    TaskTimeoutError,
)
from server.protocol.messages import Acknowledgement, Progress, Tile
from server.results import Results
from server.sessions import Sessions, encode_reply
from server.settings import Settings
from server.stages import Story, Subject, told
from server.state import ledger, tasks
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.tasks import Status, TaskRecord
from server.telemetry import Telemetry
from server.tiles import TileStreams
from server.upscaling import UpscaleRequest
from server.webhooks import call_webhook

__all__ = ["Runner", "Running"]

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Running:
    """A task under way. `outcome` is set when it has one, and cancelled if the server stops before."""

    account: AccountId
    key: str
    request: UpscaleRequest
    session: str | None
    base_url: str
    outcome: asyncio.Future[TaskRecord]
    progress: float = 0.0
    cancelled: bool = False
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


class Runner:
    """Takes tasks on and sees them through."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        pipeline: Pipeline,
        sessions: Sessions,
        results: Results,
        tiles: TileStreams,
        web: WebClient,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._database = database
        self._pipeline = pipeline
        self._sessions = sessions
        self._results = results
        self._tiles = tiles
        self._web = web
        self._telemetry = telemetry
        self._clock = clock
        self._running: dict[tuple[AccountId, str], Running] = {}
        self._admission = Admission(limit=settings.max_tasks, limit_per_account=settings.max_tasks_in_flight)
        self._background: set[asyncio.Task[Any]] = set()

    async def submit(
        self,
        account: AccountId,
        request: UpscaleRequest,
        *,
        session: str | None,
        base_url: str,
        acknowledge: bool = False,
    ) -> Running | TaskRecord:
        """Take a task on; or, for one that was sent before, what became of it.

        Args:
            session: where the outcome is to be sent.
            base_url: what the client reaches this server as.
            acknowledge: whether to tell the session after a while that the result will follow.

        Raises:
            ConflictError: if the account used the UUID for another request.
            RateLimitError: if the account has too many tasks under way.
            BusyError: if all accounts together have.
        """
        key = request.task_uuid.lower()
        encoded = msgspec.json.encode(request)
        self._admission.enter(account)
        try:
            previous = await self._database.run(tasks.accept, account, key, encoded, session, self._clock())
        except BaseException:
            self._admission.leave(account, self._clock())
            raise
        taken: Running | TaskRecord
        if previous is None:
            taken = self._start(account, key, request, session, base_url)
        else:
            self._admission.leave(account, self._clock())
            if previous.request != encoded:
                raise ConflictError(f"taskUUID {request.task_uuid} was used for another request")
            taken = await self._rejoin(previous, session)
        if acknowledge and isinstance(taken, Running):
            self._acknowledge_later(taken)
        return taken

    @property
    def count(self) -> int:
        """How many tasks are under way."""
        return len(self._running)

    def find(self, account: AccountId, task_uuid: str) -> Running | None:
        """The account's task of this UUID, if it is under way."""
        return self._running.get((account, task_uuid.lower()))

    def works_for(self, account: AccountId, session: str) -> bool:
        """Whether any task is under way whose outcome goes to this session."""
        return any(
            running.account == account and running.session == session for running in self._running.values()
        )

    async def cancel(self, running: Running) -> bool:
        """Stop a task; False if it was finished first."""
        await asyncio.sleep(0)  # work that was never begun could not record its end
        if running.work is None or running.outcome.done():
            return False
        running.cancelled = True
        running.work.cancel()
        record = await asyncio.shield(running.outcome)
        return record.status is Status.FAILED

    async def resume(self, base_url: str) -> int:
        """Run again what was accepted before the last stop; returns how many."""
        records = await self._database.run(tasks.unfinished)
        for record in records:
            await self._database.run(ledger.release, record.account, record.task_uuid)
            self._admission.resume(record.account)
            request = msgspec.json.decode(record.request, type=UpscaleRequest)
            self._start(record.account, record.task_uuid, request, record.session, base_url)
        return len(records)

    async def drain(self, patience: float) -> None:
        """Let what runs finish for a while; the rest runs again after the next start."""
        work = [running.work for running in self._running.values() if running.work is not None]
        if work:
            await asyncio.wait(work, timeout=patience)
        left = [*work, *self._background]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _start(
        self, account: AccountId, key: str, request: UpscaleRequest, session: str | None, base_url: str
    ) -> Running:
        loop = asyncio.get_running_loop()
        running = Running(account, key, request, session, base_url, loop.create_future())
        self._running[account, key] = running
        running.work = asyncio.create_task(self._see_through(running), name=f"task {key}")
        running.work.add_done_callback(lambda _: self._forget(running))
        return running

    async def _rejoin(self, previous: TaskRecord, session: str | None) -> Running | TaskRecord:
        """A task sent again: its outcome goes to the session that asked last."""
        account, key = previous.account, previous.task_uuid
        running = self._running.get((account, key))
        if running is not None and session is not None:
            if await self._database.run(tasks.watch, account, key, session):
                running.session = session
                return running
        elif running is not None and not running.outcome.done():
            return running
        return await self._database.run(tasks.find, account, key) or previous

    async def _see_through(self, running: Running) -> None:
        subject = Subject(running.key, running.account, running.session, running.request.model)
        with told(subject, self._telemetry) as story:
            log.info("task accepted")
            await self._see_told_through(running, story)

    async def _see_told_through(self, running: Running, story: Story) -> None:
        record = await self._outcome(running, story)
        story.finish(record)
        if running.acknowledgement is not None:
            running.acknowledgement.cancel()
        running.outcome.set_result(record)
        if running.request.webhook_url is not None:
            self._spawn(self._tell_webhook(running.request.webhook_url, record, running.base_url))
        if self._sessions.link(running.account, record.session) is not None:
            with story.measure("deliver"):
                await self._sessions.deliver(running.account, record.session)

    async def _outcome(self, running: Running, story: Story) -> TaskRecord:
        """Do the work and record how it ended."""
        account, key, request = running.account, running.key, running.request
        try:
            async with asyncio.timeout(self._settings.task_timeout):
                result = await self._pipeline.run(
                    account,
                    key,
                    request,
                    story,
                    lambda share: self._note_progress(running, share),
                    self._regions(running),
                )
            return await _to_the_end(self._database.run(tasks.succeed, account, key, result, self._clock()))
        except asyncio.CancelledError:
            if not running.cancelled:
                raise  # the server stops: the task stays accepted, and runs again after the next start
            error: TaskError = TaskCancelledError()
        except TaskError as failure:
            error = failure
        except TimeoutError:
            error = TaskTimeoutError(self._settings.task_timeout)
        except EngineError:
            log.exception("the engine failed")
            error = ServerError("the model failed on this image")
        except Exception:
            log.exception("the server failed")
            error = ServerError()
        item = error.item(request.task_type, request.task_uuid, f"{running.base_url}/docs/errors")
        return await _to_the_end(self._database.run(tasks.fail, account, key, item, self._clock()))

    def _note_progress(self, running: Running, share: float) -> None:
        running.progress = share
        if running.request.include_progress and share < 1:
            self._spawn(self._sessions.push(running.account, running.session, running.news()))

    def _regions(self, running: Running) -> AbstractAsyncContextManager[OnRegion | None]:
        """Gives what takes the finished parts of the result, if they are wanted."""
        if not running.request.include_tiles:
            return nullcontext()
        return self._tiles.open(lambda: self._sessions.link(running.account, running.session), running.news)

    def _acknowledge_later(self, running: Running) -> None:
        """Hold the acknowledgement back: a client that gets one waits before it looks for the result."""
        item = Acknowledgement(task_type=running.request.task_type, task_uuid=running.request.task_uuid)
        if running.acknowledgement is not None:
            running.acknowledgement.cancel()
        running.acknowledgement = asyncio.get_running_loop().call_later(
            self._settings.acknowledge_after,
            lambda: self._spawn(self._sessions.push(running.account, running.session, item)),
        )

    async def _tell_webhook(self, url: str, record: TaskRecord, base_url: str) -> None:
        frame = encode_reply(JSON, await self._results.item(record, base_url))
        await call_webhook(self._web, url, frame, record.task_uuid)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _forget(self, running: Running) -> None:
        running.outcome.cancel()  # does nothing to one that is set
        if running.acknowledgement is not None:
            running.acknowledgement.cancel()
        if self._running.get((running.account, running.key)) is running:  # else it was sent again meanwhile
            del self._running[running.account, running.key]
        self._admission.leave(running.account, self._clock())


async def _to_the_end(record: Coroutine[Any, Any, TaskRecord]) -> TaskRecord:
    """Await a transaction; a cancellation that comes while it runs comes too late."""
    transaction = asyncio.ensure_future(record)
    try:
        return await asyncio.shield(transaction)
    except asyncio.CancelledError:
        return await transaction
