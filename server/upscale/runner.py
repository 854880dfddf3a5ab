"""Sees accepted tasks through to their outcome.

`submit` records a task; from then on it is not lost, whatever happens: it is run, and run again after a
restart or by another server, until it has an outcome. Result, charge, reply and webhook are recorded in one
transaction; then the session and whoever waits are told.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import Connection

from engines import EngineError, SpoiltResultError
from server.delivery.previews import TileStreams
from server.delivery.sessions import Sessions
from server.delivery.webhooks import WebhookSender
from server.limits.admission import Admission
from server.protocol.errors import (
    ConflictError,
    DatabaseUnavailableError,
    ServerError,
    TaskCancelledError,
    TaskError,
    TaskTimeoutError,
)
from server.settings import Settings
from server.state import tasks
from server.state.accounts import AccountId
from server.state.claims import ServerId, ServerLock
from server.state.database import Database
from server.state.records import Status, TaskRecord
from server.state.requests import UpscaleRequest
from server.state.tasks import LostTaskError
from server.state.webhooks import Destination
from server.telemetry.story import Story, Subject, told
from server.telemetry.telemetry import Telemetry
from server.upscale.pipeline import Pipeline
from server.upscale.running import News, Running

__all__ = ["Runner"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Recorder = Callable[[Connection, AccountId, str, T, float, ServerId, Destination | None], TaskRecord]

_LOOK_EVERY = 1.0


class Runner:
    """Takes tasks on and sees them through."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        pipeline: Pipeline,
        sessions: Sessions,
        tiles: TileStreams,
        webhooks: WebhookSender,
        lock: ServerLock,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._database = database
        self._pipeline = pipeline
        self._sessions = sessions
        self._news = News(sessions, tiles, settings.acknowledge_after)
        self._webhooks = webhooks
        self._lock = lock
        self._telemetry = telemetry
        self._clock = clock
        self._running: dict[tuple[AccountId, str], Running] = {}
        self._admission = Admission(limit=settings.max_tasks, limit_per_account=settings.max_tasks_in_flight)
        self._submitting: WeakValueDictionary[tuple[AccountId, str], asyncio.Lock] = WeakValueDictionary()
        self._stopping = False
        self._refused: set[tuple[AccountId, str]] = set()
        """Tasks that may be recorded, though their clients were told that the database cannot be used."""
        self._in_doubt = False
        """Whether tasks may be this server's that it does not know of."""

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

        While the server drains a new task is recorded and not begun: it runs after the next start.

        A record without an outcome is of a task that runs on another server. The session will get its reply.

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
        taken: Running | TaskRecord
        one_at_a_time = self._submitting.setdefault((account, key), asyncio.Lock())
        async with one_at_a_time:
            self._admission.enter(account)
            try:
                previous = await self._database.run(
                    tasks.accept, account, key, encoded, session, self._clock(), self._lock.server
                )
            except BaseException as error:
                self._admission.leave(account, self._clock())
                if (
                    isinstance(error, DatabaseUnavailableError)
                    and len(self._refused) < self._settings.max_tasks
                ):
                    self._refused.add((account, key))  # it may have failed just after it was done
                raise
            self._refused.discard((account, key))
            if previous is None:
                taken = self._start(account, key, request, session, base_url)
            else:
                self._admission.leave(account, self._clock())
                if previous.encoded_request != encoded and not _is_same(previous.request, request):
                    raise ConflictError(f"taskUUID {request.task_uuid} was used for another request")
                taken = await self._rejoin(previous, session, base_url)
        if acknowledge and isinstance(taken, Running):
            self._news.acknowledge_later(taken)
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

    async def cancel(self, account: AccountId, task_uuid: str, base_url: str) -> bool:
        """Stop a task; False if there is none, or it was finished first."""
        running = self.find(account, task_uuid)
        if running is None:
            return await self._cancel_elsewhere(account, task_uuid.lower(), base_url)
        return await self._cancel(running)

    async def _cancel_elsewhere(self, account: AccountId, key: str, base_url: str) -> bool:
        """Give a task of another server its end; that server finds out when it comes to an end of its own."""
        record = await self._database.run(tasks.find, account, key)
        if record is None or record.status is not Status.ACCEPTED:
            return False
        request = record.request
        error = TaskCancelledError().item(request.task_type, request.task_uuid, f"{base_url}/docs/errors")
        webhook = _destination(request, base_url)
        return await self._database.run(tasks.cancel, account, key, error, self._clock(), webhook)

    async def outcome_elsewhere(self, account: AccountId, key: str) -> TaskRecord:
        """The outcome of a task that another server runs, once it has one."""
        while True:
            record = await self._database.insist(tasks.find, account, key)
            if record is not None and record.status is not Status.ACCEPTED:
                return record
            await asyncio.sleep(_LOOK_EVERY)

    async def _cancel(self, running: Running) -> bool:
        await asyncio.sleep(0)  # work that was never begun could not record its end
        if running.work is None or running.outcome.done():
            return False
        if not running.recording:
            running.cancelled = True
            running.work.cancel()
        try:
            record = await asyncio.shield(running.outcome)
        except LostTaskError:
            return await self._cancel_elsewhere(running.account, running.key, running.base_url)
        return record.status is Status.FAILED

    async def take_over(self, base_url: str) -> int:
        """Run again what servers that are gone left unfinished; returns how many tasks that is."""
        if self._stopping:
            return 0
        await self._withdraw_refused()
        in_doubt, self._in_doubt = self._in_doubt, True
        records = await self._database.run(tasks.take_over, self._lock, self._clock())
        if in_doubt:
            records += await self._not_begun()
        self._in_doubt = False
        for record in records:
            if (running := self.find(record.account, record.task_uuid)) is not None and running.work:
                running.work.cancel()  # it was lost to a server that is gone by now, and is begun anew
            self._admission.resume(record.account)
            request = record.request
            self._start(record.account, record.task_uuid, request, record.session, base_url)
        return len(records)

    async def _withdraw_refused(self) -> None:
        """Have no task run whose client was told that it was not accepted, unless it was sent again since."""
        for account, key in list(self._refused):
            async with self._submitting.setdefault((account, key), asyncio.Lock()):
                if (account, key) in self._refused and self.find(account, key) is None:
                    await self._database.run(tasks.withdraw, account, key, self._lock.server)
                self._refused.discard((account, key))

    async def _not_begun(self) -> list[TaskRecord]:
        """Tasks that this server took over in a transaction whose end it was not told of."""
        own = await self._database.run(tasks.unfinished, self._lock.server)
        return [
            record
            for record in own
            if (key := (record.account, record.task_uuid)) not in self._running
            and key not in self._submitting
        ]

    async def drain(self, patience: float) -> None:
        """Begin nothing more, and let what runs finish for a while."""
        self._stopping = True
        if work := self._work():
            await asyncio.wait(work, timeout=patience)

    async def stop(self) -> None:
        """Stop what still runs; it runs again after the next start."""
        self._stopping = True
        left = self._work()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._news.stop()

    def _work(self) -> list[asyncio.Task[None]]:
        return [running.work for running in self._running.values() if running.work is not None]

    def _start(
        self, account: AccountId, key: str, request: UpscaleRequest, session: str | None, base_url: str
    ) -> Running:
        loop = asyncio.get_running_loop()
        running = Running(account, key, request, session, base_url, loop.create_future())
        if self._stopping:
            self._forget(running)
            return running
        self._running[account, key] = running
        running.work = asyncio.create_task(self._see_through(running), name=f"task {key}")
        running.work.add_done_callback(lambda _: self._forget(running))
        return running

    async def _rejoin(self, previous: TaskRecord, session: str | None, base_url: str) -> Running | TaskRecord:
        """A task sent again: its outcome goes to the session that asked last."""
        account, key = previous.account, previous.task_uuid
        running = self._running.get((account, key))
        if running is not None and session is not None:
            if await self._database.run(tasks.watch, account, key, session):
                running.session = session
                return running
        elif running is not None and not running.outcome.done():
            return running
        if running is None and previous.status is Status.ACCEPTED:
            if session is not None:
                await self._database.run(tasks.watch, account, key, session)
            if previous.owner == self._lock.server:  # the database failed just after it was accepted
                request = previous.request
                self._admission.resume(account)
                return self._start(account, key, request, session, base_url)
        return await self._database.run(tasks.find, account, key) or previous

    async def _see_through(self, running: Running) -> None:
        subject = Subject(running.key, running.account, running.session, running.request.model)
        with told(subject, self._telemetry) as story:
            log.info("task accepted")
            await self._see_told_through(running, story)

    async def _see_told_through(self, running: Running, story: Story) -> None:
        try:
            record = await self._outcome(running, story)
        except LostTaskError as error:
            found = await self._database.insist(tasks.find, running.account, running.key)
            if found is None or found.owner != self._lock.server or found.status is Status.ACCEPTED:
                log.info("task taken over by another server")
                running.outcome.set_exception(error)
                running.outcome.exception()  # nobody has to wait for it
                return
            record = found  # it was cancelled at another server
        story.finish(record)
        self._news.need_no_acknowledgement(running)
        running.outcome.set_result(record)
        if running.request.webhook_url is not None:
            self._webhooks.wake()
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
                    lambda share: self._news.note_progress(running, share),
                    self._news.regions(running),
                )
            return await self._record(tasks.succeed, running, result)
        except LostTaskError:
            raise
        except asyncio.CancelledError:
            if not running.cancelled:
                raise  # the server stops: the task stays accepted, and runs again after the next start
            error: TaskError = TaskCancelledError()
        except TaskError as failure:
            error = failure
        except TimeoutError:
            error = TaskTimeoutError(self._settings.task_timeout)
        except SpoiltResultError as failure:
            log.warning("the result is spoilt: %s", failure)
            error = ServerError(str(failure))
        except EngineError:
            log.exception("the engine failed")
            error = ServerError("the model failed on this image")
        except Exception:
            log.exception("the server failed")
            error = ServerError()
        item = error.item(request.task_type, request.task_uuid, f"{running.base_url}/docs/errors")
        return await self._record(tasks.fail, running, item)

    async def _record(self, recorded: Recorder[T], running: Running, outcome: T) -> TaskRecord:
        """Record an outcome, as soon as the database can be used. To cancel the task is too late by now."""
        running.recording = True
        webhook = _destination(running.request, running.base_url)
        return await self._database.insist(
            recorded, running.account, running.key, outcome, self._clock(), self._lock.server, webhook
        )

    def _forget(self, running: Running) -> None:
        running.outcome.cancel()  # does nothing to one that is set
        self._news.need_no_acknowledgement(running)
        if self._running.get((running.account, running.key)) is running:  # else it was sent again meanwhile
            del self._running[running.account, running.key]
        self._admission.leave(running.account, self._clock())


def _is_same(one: UpscaleRequest, other: UpscaleRequest) -> bool:
    """Whether two requests differ in nothing but the spelling of their UUID (RFC 9562 section 4)."""
    return msgspec.structs.replace(one, task_uuid=other.task_uuid) == other


def _destination(request: UpscaleRequest, base_url: str) -> Destination | None:
    return None if request.webhook_url is None else Destination(request.webhook_url, base_url)
