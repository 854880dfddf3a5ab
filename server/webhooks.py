"""Tells outcomes to the URLs that tasks named."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from server.fetch import FetchError, ForbiddenAddressError, WebClient
from server.protocol.codec import JSON

__all__ = ["DELAYS", "call_webhook"]

log = logging.getLogger(__name__)

DELAYS: Final = (0.0, 1.0, 5.0, 25.0)
"""Seconds before each attempt."""


async def call_webhook(
    web: WebClient, url: str, frame: bytes, task_uuid: str, delays: Sequence[float] = DELAYS
) -> bool:
    """POST the JSON frame that a socket would get, trying for half a minute; whether it arrived."""
    for delay in delays:
        await asyncio.sleep(delay)
        try:
            await web.send("POST", url, frame, JSON.media_type)
        except ForbiddenAddressError as error:
            log.warning("webhook of task %s refused: %s", task_uuid, error)
            return False
        except FetchError as error:
            log.warning("webhook of task %s: %s", task_uuid, error)
        else:
            return True
    return False
