"""Has an attempt worked on, and records its outcome: the result, or the error that it failed with."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from engines import EngineError, SpoiltResultError
from server.images.store import ImageStore, written_first
from server.protocol.errors import ErrorItem, ServerError, TaskError, TaskTimeoutError
from server.state import tasks
from server.state.database import Database
from server.state.records import Attempt, StoredResult, TaskRecord
from server.state.requests import Destination
from server.state.tasks import LostTaskError
from server.telemetry.story import Story
from server.upscale.pipeline import Pipeline
from server.upscale.running import News, Running
from server.upscale.streams import Streams
from server.upscale.work import Work

__all__ = ["Outcomes"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Recorder = Callable[[Connection, Attempt, T, float, Destination | None], TaskRecord]


class Outcomes:
    """Does the work of attempts, and records how it ended."""

    def __init__(
        self,
        database: Database,
        pipeline: Pipeline,
        images: ImageStore,
        news: News,
        streams: Streams,
        task_timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Bring attempts to their outcomes.

        Args:
            database: where outcomes are recorded.
            pipeline: does the work.
            images: where results are stored.
            news: sends how far it is.
            streams: where frames of streams wait for their turns.
            task_timeout: seconds that a task may take.
            clock: the time in seconds since the epoch.
        """
        self._database = database
        self._pipeline = pipeline
        self._images = images
        self._news = news
        self._streams = streams
        self._task_timeout = task_timeout
        self._clock = clock

    async def reach(self, running: Running, story: Story) -> TaskRecord:
        """The recorded outcome of an attempt: its result, or why it failed.

        Raises:
            LostTaskError: if the task has another attempt by now, or another outcome.
            CancelledError: if the work was abandoned; nothing is recorded then.
        """
        try:
            async with asyncio.timeout(self._task_timeout), self._streams.place(running):
                with self._news.in_line(running) as on_start:
                    work = Work(
                        attempt=running.attempt,
                        request=running.request,
                        picture=running.pixels and running.pixels.picture,
                        image=running.image,
                        quote=running.quote,
                        story=story,
                        on_start=on_start,
                        on_progress=partial(self._news.note_progress, running),
                        regions=self._news.regions(running),
                    )
                    result, draft = await self._pipeline.run(work)
        except LostTaskError:
            raise
        except Exception as failure:  # noqa: BLE001 - the task fails with it
            return await self._fail(running, self._as_task_error(failure))
        succeed: Recorder[StoredResult] = tasks.succeed
        if draft is not None:
            recorder, limit = written_first([draft], tasks.succeed), self._images.limit
            succeed = partial(recorder, image=draft.image, limit=limit)
        try:
            return await self._record(succeed, running, result, running.request.webhook(running.base_url))
        except LostTaskError:
            raise
        except TaskError as error:  # there is no room for its image
            if draft is not None:
                await self._images.drop(draft.image.name)
            return await self._fail(running, error)
        except Exception:
            log.exception("the result cannot be recorded")
            return await self._fail(running, ServerError())

    async def give_up(self, record: TaskRecord) -> TaskRecord:
        """Record that a task failed, as it cannot be run."""
        why = (
            "its request cannot be read"
            if record.readable_request is None
            else "its outcome was not recorded"
        )
        log.error("task %s fails: %s", record.task_uuid, why)
        return await self._database.run(tasks.fail, record.attempt, _plain(record.task_uuid), self._clock())

    async def _fail(self, running: Running, error: TaskError) -> TaskRecord:
        request, base_url = running.request, running.base_url
        try:
            item = request.failure(error, base_url)
            return await self._record(tasks.fail, running, item, request.webhook(base_url))
        except LostTaskError:
            raise
        except Exception:  # something of the task itself cannot be recorded: leave all that out
            log.exception("the error cannot be recorded")
            return await self._record(tasks.fail, running, _plain(running.key), None)

    async def _record(
        self, recorder: Recorder[T], running: Running, outcome: T, webhook: Destination | None
    ) -> TaskRecord:
        """Record an outcome as soon as the database can be used. The task cannot be cancelled any more."""
        await self._streams.turn(running)
        running.is_recording = True
        try:
            return await self._database.insist(recorder, running.attempt, outcome, self._clock(), webhook)
        finally:
            self._streams.leave(running)

    def _as_task_error(self, failure: Exception) -> TaskError:
        """What the client gets to see of a failure; the log has the rest."""
        match failure:
            case TaskError():
                return failure
            case TimeoutError():
                return TaskTimeoutError(self._task_timeout)
            case SpoiltResultError():
                log.warning("the result is spoilt: %s", failure)
                return ServerError(str(failure))
            case EngineError():
                log.error("the engine failed", exc_info=failure)
                return ServerError("the model failed on this image")
            case _:
                log.error("the server failed", exc_info=failure)
                return ServerError()


def _plain(task_uuid: str) -> ErrorItem:
    return ServerError().item(None, task_uuid, None)
