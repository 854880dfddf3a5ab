"""UUIDs, times and prices as Scenario writes them."""

import uuid
from datetime import UTC, datetime
from typing import Final

from server.protocol.errors import NotFoundError

__all__ = ["creative_units", "iso_time", "known_uuid"]

_CREATIVE_UNIT: Final = 10**7
"""Nanodollars: a cent."""


def creative_units(nanodollars: int) -> float:
    """A price in creative units: cents of a US dollar."""
    return nanodollars / _CREATIVE_UNIT


def known_uuid(given: str, parameter: str) -> str:
    """A UUID of a path, in its usual form.

    Raises:
        NotFoundError: if it is none, so that nothing can have it.
    """
    try:
        return str(uuid.UUID(given))
    except ValueError as error:
        raise NotFoundError("taskNotFound", f"there is no {parameter} {given[:64]}", parameter) from error


def iso_time(seconds: float) -> str:
    """A time in seconds since the epoch, by ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
