"""What goes on beside the requests: loops that run as long as the server."""

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from onnx_models import one_line
from server.delivery.sessions import Sessions
from server.images.store import ImageStore
from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.settings import Settings
from server.state.accounts import (
    revoked_keys,
)
from server.state.claims import ServerLock
from server.state.database import Database
from server.state.retention import forget_ended
from server.upscale.runner import Runner

__all__ = ["close_revoked", "keep_up", "sweep", "take_over"]

log = logging.getLogger(__name__)

_SWEEP_EVERY = 60.0
_KEEP_UP_EVERY = 1.0
_LOOK_FOR_REVOKED_EVERY = 1.0


async def take_over(runner: Runner, base_url: str) -> None:
    if count := await runner.take_over(base_url):
        log.info("running %d tasks that a server which is gone left unfinished", count)


async def keep_up(lock: ServerLock, runner: Runner, sessions: Sessions, base_url: str) -> None:
    """See what other servers on the database did: replies they left for us, tasks they left behind."""
    while True:
        await asyncio.sleep(_KEEP_UP_EVERY)
        try:
            if await asyncio.to_thread(lock.hold):
                await take_over(runner, base_url)
            await sessions.look()
        except (DatabaseUnavailableError, SQLAlchemyError) as error:
            log.warning("out of touch with other servers: %s", one_line(error))
        except Exception:  # it is tried again in a moment
            log.exception("keeping up with other servers failed")


async def sweep(
    images: ImageStore,
    sessions: Sessions,
    database: Database,
    settings: Settings,
    clock: Callable[[], float],
) -> None:
    """Delete what has expired, once a minute."""
    while True:
        try:
            await images.sweep()
            await sessions.sweep(settings.undelivered_ttl)
            await database.run(forget_ended, clock() - settings.record_ttl)
        except (DatabaseUnavailableError, UnavailableError) as error:  # may be back in a minute
            log.warning("sweeping is put off: %s", error)
        except Exception:
            log.exception("sweeping failed")
        await asyncio.sleep(_SWEEP_EVERY)


async def close_revoked(sessions: Sessions, database: Database) -> None:
    """Close the connections of keys that were revoked, by whichever process, within a second or so."""
    while True:
        await asyncio.sleep(_LOOK_FOR_REVOKED_EVERY)
        try:
            if keys := sessions.keys():
                await sessions.close_keys(await database.run(revoked_keys, keys))
        except Exception:  # the database may be back in a second
            log.exception("looking for revoked keys failed")
