"""What goes on beside the requests: work that is done again and again for as long as the server runs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from engines import trim_heap
from onnx_models import one_line
from server.delivery.sessions import Sessions
from server.images.inputs import Inputs
from server.images.raw_images import RawImages
from server.images.store import ImageStore
from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.settings import Settings
from server.state.accounts import revoked_keys
from server.state.claims import ServerLock
from server.state.database import Database
from server.state.retention import AT_ONCE, forget_failed, forget_tokens, forget_webhooks
from server.upscale.runner import Runner

__all__ = ["close_revoked", "every", "give_back_memory", "keep_up", "reconcile", "running", "sweep"]

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run loops beside the block; they are cancelled at its end."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def every(seconds: float, what: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do some work for ever, pausing for so many seconds after each time, however it ends.

    Args:
        seconds: of each pause.
        what: the work is called in the log.
        work: what is done.
    """
    while True:
        await _attempt(what, work)
        await asyncio.sleep(seconds)


async def _attempt(what: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do some work; if it fails, the log says so."""
    try:
        await work()
    except (DatabaseUnavailableError, SQLAlchemyError, UnavailableError) as error:
        log.warning("%s is put off: %s", what, one_line(error))
    except Exception:  # it may work the next time
        log.exception("%s failed", what)


async def reconcile(runner: Runner, base_url: str) -> None:
    """Run the tasks that nobody runs: of servers that are gone, and of this one."""
    if count := await runner.reconcile(base_url):
        log.info("unfinished tasks that run now: %d", count)


async def keep_up(lock: ServerLock, runner: Runner, sessions: Sessions, base_url: str) -> None:
    """See what other servers on the database did: replies they left for us, tasks they left behind."""
    if await asyncio.to_thread(lock.hold):
        await reconcile(runner, base_url)
    await sessions.look()


async def sweep(
    images: ImageStore,
    raw_images: RawImages,
    sessions: Sessions,
    database: Database,
    settings: Settings,
    clock: Callable[[], float],
) -> None:
    """Delete what has expired, each kind whether or not another fails."""
    before = clock() - settings.record_ttl
    raw_images.sweep(clock())
    await _attempt("deleting images", images.sweep)
    await _attempt("dropping undelivered replies", partial(sessions.sweep, settings.undelivered_ttl))
    await _attempt(
        "forgetting tokens", partial(_forget_all, database, forget_tokens, clock() - settings.undelivered_ttl)
    )
    for what, forget in (
        ("forgetting webhooks", forget_webhooks),
        ("forgetting failed tasks", forget_failed),
    ):
        await _attempt(what, partial(_forget_all, database, forget, before))


async def _forget_all(database: Database, forget: Callable[[Connection, float], int], before: float) -> None:
    """Forget some at a time: others wait for the transaction."""
    while await database.run(forget, before) == AT_ONCE:
        continue


async def give_back_memory(images: ImageStore, inputs: Inputs, runner: Runner) -> None:
    """Keep no images at hand that nobody reads; without tasks, no memory that is freed either."""
    images.forget_unread()
    inputs.age()
    if not runner.count:
        await asyncio.to_thread(trim_heap)


async def close_revoked(sessions: Sessions, database: Database, clock: Callable[[], float]) -> None:
    """Close the connections of keys that were revoked, by whichever process, or have expired."""
    if keys := sessions.keys():
        await sessions.close_keys(await database.run(revoked_keys, keys, clock()))
