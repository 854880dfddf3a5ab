"""The tasks that run on this server: each is begun, worked on, and ends with an outcome that is delivered."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

from server.delivery.sessions import Sessions
from server.delivery.webhooks import WebhookSender
from server.limits.admission import Admission
from server.protocol.trace import task_span
from server.state import tasks
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.records import Attempt, AttemptId, Status, TaskRecord
from server.state.tasks import LostTaskError
from server.telemetry.story import Story, Subject, Trace, story_of
from server.telemetry.telemetry import Telemetry
from server.upscale.outcomes import Outcomes
from server.upscale.running import News, Running
from server.upscale.streams import Streams

__all__ = ["Execution"]

log = logging.getLogger(__name__)

_LAST_RECORDS: Final = 1.5
"""Seconds that outcomes may take to be recorded once the server has stopped waiting for work."""


class Execution:
    """Runs tasks, each at most once at a time.

    Attributes:
        is_stopping: whether nothing more is begun.
        without_outcome: attempts that have ended, and whose outcome could not be recorded: they are given up.
    """

    def __init__(
        self,
        *,
        database: Database,
        outcomes: Outcomes,
        news: News,
        streams: Streams,
        sessions: Sessions,
        webhooks: WebhookSender,
        admission: Admission,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Run nothing yet.

        Args:
            database: where tasks are recorded.
            outcomes: does the work, and records how it ended.
            news: sends how far it is.
            streams: where frames of streams wait for their turns.
            sessions: who gets outcomes.
            webhooks: sends the outcomes that are to be POSTed.
            admission: counts the tasks under way.
            telemetry: counts and records what happens.
            clock: the time in seconds since the epoch.
        """
        self._database = database
        self._outcomes = outcomes
        self._news = news
        self._streams = streams
        self._sessions = sessions
        self._webhooks = webhooks
        self._admission = admission
        self._telemetry = telemetry
        self._clock = clock
        self._running: dict[tuple[AccountId, str], Running] = {}
        self.is_stopping = False
        self.without_outcome: set[AttemptId] = set()

    def __len__(self) -> int:
        """How many tasks run."""
        return len(self._running)

    def __iter__(self) -> Iterator[Running]:
        """The tasks that run."""
        return iter(list(self._running.values()))

    def find(self, account: AccountId, key: str) -> Running | None:
        """The task that is recorded under a UUID, if it runs."""
        return self._running.get((account, key))

    def find_attempt(self, attempt: Attempt) -> Running | None:
        """An attempt, if it runs."""
        running = self.find(attempt.account, attempt.task_uuid)
        return running if running is not None and running.attempt == attempt else None

    def start(self, running: Running) -> Running:
        """Run an attempt, in place of an earlier one at its task; while the server stops, do not begin it."""
        if self.is_stopping:
            self._forget(running)
            return running
        if (earlier := self.find(running.account, running.key)) is not None:
            earlier.abandon()
        self._admission.resume(running.account, running.attempt.id)
        self._running[running.account, running.key] = running
        self._streams.enter(running)
        running.work = asyncio.create_task(self._see_through(running), name=f"task {running.key}")
        running.work.add_done_callback(lambda _: self._forget(running))
        return running

    async def drain(self, patience: float) -> None:
        """Begin nothing more, and let what runs finish for a while."""
        self.is_stopping = True
        if work := self._work():
            await asyncio.wait(work, timeout=patience)

    async def stop(self) -> None:
        """Stop what still runs; it runs again after the next start."""
        self.is_stopping = True
        self._database.hurry(_LAST_RECORDS)
        for running in self:
            if running.work is not None and not running.is_recording:
                running.work.cancel()
        if work := self._work():
            await asyncio.wait(work, timeout=_LAST_RECORDS)
        left = self._work()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._news.stop()

    def _work(self) -> list[asyncio.Task[None]]:
        return [running.work for running in self if running.work is not None]

    async def _see_through(self, running: Running) -> None:
        """Bring an attempt to its outcome, and give that to whoever waits for it."""
        account, request = running.account, running.request
        subject = Subject(running.key, account, running.session, request.model, request.service, request.key)
        trace = Trace(task_span(running.attempt.id), request.traceparent)
        with story_of(subject, self._telemetry, trace) as story:
            log.info("task accepted")
            try:
                record = await self._outcome(running, story)
            except LostTaskError as error:
                log.info("the task has another attempt")
                running.outcome.set_exception(error)
                running.outcome.exception()  # nobody has to wait for it
                return
            except Exception:
                log.exception("no outcome can be recorded")
                self.without_outcome.add(running.attempt.id)
                return
            story.finish(record)
            self._admission.leave(running.attempt.id, self._clock())
            self._news.cancel_acknowledgement(running)
            running.outcome.set_result(record)
            if request.webhook_url is not None:
                self._webhooks.wake()
            if self._sessions.link(account, record.session) is not None:
                with story.measure("deliver"):
                    await self._sessions.deliver_outcome(record)

    async def _outcome(self, running: Running, story: Story) -> TaskRecord:
        """The outcome of an attempt, by its work or from outside.

        Raises:
            LostTaskError: if the task has another attempt.
        """
        try:
            return await self._outcomes.reach(running, story)
        except LostTaskError:
            pass
        except asyncio.CancelledError:
            if not running.is_abandoned or self.is_stopping:
                raise  # the server stops: the task stays accepted, and runs again after the next start
        record = running.ended
        if record is None:
            record = await self._database.insist(tasks.find, running.account, running.key)
        if record is None or record.attempt != running.attempt or record.status is Status.ACCEPTED:
            raise LostTaskError
        return record

    def _forget(self, running: Running) -> None:
        self._streams.leave(running)
        if running.pixels is not None:
            running.pixels.release()
            running.pixels = None
        running.outcome.cancel()  # does nothing to one that is set
        self._news.cancel_acknowledgement(running)
        if self._running.get((running.account, running.key)) is running:  # else it was sent again meanwhile
            del self._running[running.account, running.key]
        self._admission.leave(running.attempt.id, self._clock())
