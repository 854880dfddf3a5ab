"""What the devices have done since they were started and what waits for them, as plain numbers."""

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Activity", "DeviceActivity", "Memory", "RunKind", "Waiting"]


class Memory(NamedTuple):
    """Bytes of a device's own memory: in use, by whomever, and in all."""

    used: int
    size: int


class RunKind(NamedTuple):
    """What equal runs have in common."""

    model: str
    tiles: int
    limit: int
    """How many tiles it could have had."""


class Waiting(NamedTuple):
    """Tiles that no device has taken yet, and the tasks that they are of."""

    tiles: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceActivity:
    """One device, and what it has done."""

    name: str
    usable: bool
    busy_seconds: float
    """Spent on runs and on the loading of networks, the one under way included."""
    runs: dict[RunKind, int]
    """How many succeeded, of each kind."""
    pixels: dict[str, int]
    """Output pixels of the runs that succeeded, overlaps of tiles included, by model."""
    memory: Memory | None
    """None where the device has none of its own, or does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """All devices, and the queue by model."""

    devices: tuple[DeviceActivity, ...]
    waiting: dict[str, Waiting]
    """Of all models that were used."""
