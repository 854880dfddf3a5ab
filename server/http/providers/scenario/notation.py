"""Times and prices as Scenario writes them."""

from datetime import UTC, datetime
from typing import Final

__all__ = ["creative_units", "iso_time"]

_CREATIVE_UNIT: Final = 10**7
"""Nanodollars: a cent."""


def creative_units(nanodollars: int) -> float:
    """A price in creative units: cents of a US dollar."""
    return nanodollars / _CREATIVE_UNIT


def iso_time(seconds: float) -> str:
    """A time in seconds since the epoch, by ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
