"""Takes tasks on, and sees that each has an outcome.

`submit` records a task. From then on it is not lost, whatever happens: it is run, and run again after a
restart or by another server, until it has an outcome. Result, charge, reply and webhook are recorded in one
transaction; then the session gets the reply, and so does whoever waits for it.

The database decides what runs. Once a second `reconcile` compares it with what runs here: tasks that no
server runs are begun, and tasks that were ended by another server are stopped.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from server.delivery.previews import TileStreams
from server.delivery.sessions import Sessions
from server.delivery.webhooks import WebhookSender
from server.images.raw_images import HeldPicture
from server.images.store import Draft, ImageStore, written_first
from server.limits.admission import Admission
from server.protocol.errors import ConflictError, DatabaseUnavailableError, TaskError, UnavailableError
from server.protocol.requests import Sequence
from server.protocol.sources import StoredImage
from server.settings import Settings
from server.state import takeover, tasks
from server.state.accounts import AccountId
from server.state.claims import ServerLock
from server.state.database import Database
from server.state.images import ImageRecord, Recorded
from server.state.logins import Login
from server.state.records import Attempt, Status, TaskRecord
from server.state.requests import UpscaleRequest
from server.telemetry.telemetry import Telemetry
from server.upscale.execution import Execution
from server.upscale.outcomes import Outcomes
from server.upscale.pipeline import Pipeline
from server.upscale.pricing import Quote
from server.upscale.running import News, Running
from server.upscale.streams import Streams

__all__ = ["Runner"]

log = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0
_DOUBT: Final = 60.0
"""Seconds after which a transaction that failed cannot be committed any more: all waiting ends before."""


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
        images: ImageStore,
        lock: ServerLock,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Run tasks by `pipeline`.

        Args:
            settings: the limits.
            database: where tasks are recorded.
            pipeline: does the work.
            sessions: who gets outcomes.
            tiles: sends finished parts of results.
            webhooks: sends the outcomes that are to be POSTed.
            images: where inputs and results are kept.
            lock: says which server this is, and which others are gone.
            telemetry: counts and records what happens.
            clock: the time in seconds since the epoch.
        """
        admission = Admission(limit=settings.max_tasks, limit_per_account=settings.max_tasks_in_flight)
        news = News(database, sessions, tiles, settings.acknowledge_after)
        streams = self._streams = Streams()
        outcomes = Outcomes(database, pipeline, images, news, streams, settings.task_timeout, clock)
        self._database = database
        self._images = images
        self._admission = admission
        self._news = news
        self._outcomes = outcomes
        self._webhooks = webhooks
        self._execution = Execution(
            database=database,
            outcomes=outcomes,
            news=news,
            streams=streams,
            sessions=sessions,
            webhooks=webhooks,
            admission=admission,
            telemetry=telemetry,
            clock=clock,
        )
        self._lock = lock
        self._clock = clock
        self._turns: WeakValueDictionary[tuple[AccountId, str], asyncio.Lock] = WeakValueDictionary()
        self._in_doubt: dict[Attempt, float] = {}
        """Attempts that may be recorded though their clients got an error, and since when."""

    @property
    def count(self) -> int:
        """How many tasks are under way."""
        return len(self._execution)

    def find(self, account: AccountId, task_uuid: str) -> Running | None:
        """The account's task of this UUID, if it is under way."""
        return self._execution.find(account, task_uuid.lower())

    def works_for(self, account: AccountId, session: str) -> bool:
        """Whether any task is under way whose outcome goes to this session."""
        return any(running.account == account and running.session == session for running in self._execution)

    def arrival(self, owner: str, sequence: Sequence | None) -> AbstractAsyncContextManager[object]:
        """Held while a task is taken on, so that frames of a stream stay in order; see `Streams.arrival`."""
        return self._streams.arrival(owner, sequence)

    async def submit(
        self,
        account: AccountId,
        request: UpscaleRequest,
        *,
        session: str | None,
        base_url: str,
        acknowledge: bool = False,
        pixels: HeldPicture | None = None,
        quote: Quote | None = None,
        drafts: Collection[Draft] = (),
    ) -> Running | TaskRecord:
        """Take a task on; or, for one that was sent before, what became of it.

        While the server drains, a new task is recorded but not begun: it runs after the next start.

        If a record is returned that has no outcome, another server runs the task; the session gets its reply.

        Args:
            account: whose task it is.
            request: what is to be done.
            session: where the outcome is to be sent.
            base_url: what the client reaches this server as.
            acknowledge: whether to acknowledge the task to the session if its result takes a while.
            pixels: the input, if that is not stored. To be released by the caller unless the task that is
                returned has it.
            quote: what it comes to, if that is known: its price is reserved as it is accepted.
            drafts: the images that are to be recorded with the task, such as its input.

        Raises:
            UnavailableError: if the input is not stored, and the server is stopping.
            ConflictError: if the account, or another token of it, used the UUID for another request.
            QuotaError: if its token has begun as many tasks as it may.
            RateLimitError: if the account has too many tasks under way.
            BusyError: if all accounts together have.
            InsufficientCreditsError: if the account cannot pay the price.
        """
        if pixels is not None and self._execution.is_stopping:  # they would be gone after its next start
            raise UnavailableError("the server is stopping")
        attempt = Attempt.of(account, request.task_uuid)
        running = Running(attempt, request, session, base_url, pixels, quote=quote)
        encoded = msgspec.json.encode(request)
        taken: Running | TaskRecord
        async with self._turn(account, running.key):
            previous = await self._accept(running, encoded, drafts)
            if previous is None:
                taken = self._execution.start(running)
            elif previous.is_for(encoded):
                taken = await self._rejoin(previous, base_url, pixels)
            else:
                raise ConflictError(f"taskUUID {request.task_uuid} was used for another request")
        if acknowledge and isinstance(taken, Running):
            self._news.acknowledge_later(taken)
        return taken

    async def cancel(self, login: Login, task_uuid: str, base_url: str) -> bool:
        """Have a task end as cancelled, wherever it runs; False if there is none, or it has ended."""
        account = login.account
        key = task_uuid.lower()
        async with self._turn(account, key):
            ended = await self._database.run(tasks.cancel, account, key, base_url, self._clock(), login.scope)
            if ended is None:
                return False
            if (running := self._execution.find_attempt(ended.attempt)) is not None:
                running.abandon(ended)
            else:  # the server that runs it finds out within a second
                self._webhooks.wake()
            return True

    async def outcome_elsewhere(self, account: AccountId, key: str) -> TaskRecord:
        """The outcome of a task that another server runs, once it has one.

        Raises:
            UnavailableError: if the task is not there any more.
        """
        while True:
            record = await self._database.insist(tasks.find, account, key)
            if record is None:
                raise UnavailableError("the task was given up; send it again")
            if record.status is not Status.ACCEPTED:
                return record
            await asyncio.sleep(_LOOK_EVERY)

    async def reconcile(self, base_url: str) -> int:
        """Begin what nobody runs, stop what has ended elsewhere; returns how many tasks were begun.

        Args:
            base_url: what clients reach this server as, where a task does not say.
        """
        if self._execution.is_stopping:
            return 0
        await self._withdraw()
        before = list(self._execution)
        while await self._database.run(takeover.take_over, self._lock, self._clock()) == takeover.AT_ONCE:
            continue
        mine = await self._database.run(takeover.attempts_of, self._lock.server)
        for running in before:
            if running.attempt.id not in mine and not running.outcome.done():
                running.abandon()
        unknown = list(mine - {running.attempt.id for running in self._execution})
        begun = 0
        for first in range(0, len(unknown), takeover.AT_ONCE):
            some = unknown[first : first + takeover.AT_ONCE]
            for record in await self._database.run(takeover.records_of, self._lock.server, some):
                begun += await self._see_to(record.attempt, base_url)
        return begun

    async def drain(self, patience: float) -> None:
        """Begin nothing more, and let what runs finish for a while."""
        await self._execution.drain(patience)

    async def stop(self) -> None:
        """Stop what still runs; it runs again after the next start, but not what was refused."""
        await self._execution.stop()
        try:
            await self._withdraw()
        except DatabaseUnavailableError:
            log.warning("tasks whose clients got an error may run after the next start")

    def _turn(self, account: AccountId, key: str) -> asyncio.Lock:
        """To be held while it is decided whether, and where, a task runs."""
        return self._turns.setdefault((account, key), asyncio.Lock())

    async def _accept(self, running: Running, encoded: bytes, drafts: Collection[Draft]) -> TaskRecord | None:
        """Record a new task with its images, or return the record of one that was sent before."""
        attempt, request, quote = running.attempt, running.request, running.quote
        accept = partial(
            tasks.accept,
            attempt=attempt,
            request=encoded,
            session=running.session,
            now=self._clock(),
            owner=self._lock.server,
            admit=partial(self._admission.enter, attempt.account, attempt.id),
            service=request.service,
            token=request.token,
            price=None if quote is None else quote.price,
        )
        try:
            if not drafts:
                return await self._database.run(accept)
            previous, images = await self._accept_with(drafts, accept)
        except BaseException as error:
            self._admission.leave(attempt.id, self._clock())
            if isinstance(error, DatabaseUnavailableError) and error.may_be_done:
                self._in_doubt[attempt] = time.monotonic()
            raise
        if isinstance(source := request.source, StoredImage):
            running.image = next((image for image in images if image.uuid == source.uuid), None)
        return previous

    async def _accept_with(
        self, drafts: Collection[Draft], accept: Callable[..., TaskRecord | None]
    ) -> tuple[TaskRecord | None, list[ImageRecord]]:
        previous: TaskRecord | None = None
        is_recorded = False

        async def record(drafts: Collection[Draft]) -> list[Recorded] | None:
            nonlocal previous, is_recorded
            previous, recorded = await self._database.run(
                written_first(drafts, tasks.accept_with_inputs),
                [(draft.image, draft.is_written) for draft in drafts],
                lambda connection, keep_inputs: accept(connection, keep_inputs=keep_inputs),
                self._clock(),
                self._images.limit,
            )
            is_recorded = True
            return recorded

        images: list[ImageRecord] = []
        try:
            images = await self._images.settle(drafts, record)
        except TaskError:
            if not is_recorded:  # else it is accepted all the same, and looks for its input again
                raise
        return previous, images

    async def _withdraw(self) -> None:
        """Withdraw the tasks that were recorded though their clients got an error."""
        for attempt, since in list(self._in_doubt.items()):
            await self._withdrawn(attempt)
            if since < time.monotonic() - _DOUBT:
                del self._in_doubt[attempt]

    async def _withdrawn(self, attempt: Attempt) -> bool:
        """Withdraw an attempt that is in doubt; False if it was not accepted, or was sent again since."""
        if not await self._database.run(tasks.withdraw, attempt, self._clock()):
            return False
        self._admission.leave(attempt.id, self._clock())
        return True

    async def _rejoin(
        self, previous: TaskRecord, base_url: str, pixels: HeldPicture | None
    ) -> Running | TaskRecord:
        """What became of a task that is sent again."""
        if previous.status is not Status.ACCEPTED:
            return previous
        if (running := self._execution.find_attempt(previous.attempt)) is not None:
            running.session = previous.session
            return running
        if previous.owner != self._lock.server:
            return previous
        if self._execution.is_stopping:
            running = Running(previous.attempt, previous.request, previous.session, base_url)
            return self._execution.start(running)
        # The database failed just after it was accepted.
        await self._begin(previous.attempt, base_url, pixels)
        return self._execution.find_attempt(previous.attempt) or previous

    async def _see_to(self, attempt: Attempt, base_url: str) -> bool:
        """Begin an attempt that this server is to run, or withdraw or give it up; whether it was begun."""
        async with self._turn(attempt.account, attempt.task_uuid):
            if attempt in self._in_doubt and await self._withdrawn(attempt):
                return False
            return await self._begin(attempt, base_url)

    async def _begin(self, attempt: Attempt, base_url: str, pixels: HeldPicture | None = None) -> bool:
        """Begin an attempt that is recorded and does not run yet, or give it up; whether it was begun."""
        record = await self._database.run(tasks.find, attempt.account, attempt.task_uuid)
        if record is None or record.attempt != attempt or record.status is not Status.ACCEPTED:
            return False
        if self._execution.is_stopping or self._execution.find_attempt(attempt) is not None:
            return False
        if attempt.id in self._execution.without_outcome or record.readable_request is None:
            await self._outcomes.give_up(record)
            self._execution.without_outcome.discard(attempt.id)
            return False
        self._execution.start(Running(attempt, record.request, record.session, base_url, pixels))
        return True
