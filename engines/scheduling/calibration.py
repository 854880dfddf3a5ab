"""How many tiles one run should take, measured once and kept.

More tiles a run use a GPU better, until it is busy; beyond that they only need memory and make every task
wait longer. So the smallest batch is taken that comes close to the best throughput. It depends on the
hardware, the runtime, the network and the size of its tiles, so the measurement is kept under all of these.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta

from engines.devices.device import Device
from engines.devices.kept import Kept
from engines.devices.sessions import MeasuringSession, Network, Session
from engines.errors import DeviceLostError, DeviceOutOfMemoryError, ModelError
from onnx_models import one_line

__all__ = ["Calibration", "choose_batch", "measure_rates"]

log = logging.getLogger(__name__)

_NEARLY_BEST = 0.95
_TIMED_RUNS = 3
_ENOUGH_SECONDS = 5.0


def choose_batch(rates: Mapping[int, float]) -> int:
    """The smallest batch whose throughput is within 5 % of the best.

    Args:
        rates: tiles per second by batch size, at least one.
    """
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= _NEARLY_BEST * best)


def measure_rates(
    session: Session, tile: int, largest: int, clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """Tiles per second by batch size: 1, 2, 4 … up to `largest`, as far as the device runs them. Blocks.

    Stops after some seconds with what is known by then, as batches that take so long gain nothing; and at the
    first batch that fails, for want of memory or otherwise: smaller ones are of use.

    Raises:
        DeviceLostError: if the device is lost.
        ModelError: if not even one tile can be run.
    """
    rates: dict[int, float] = {}
    begun = clock()
    size = 1
    while size <= largest and (not rates or clock() - begun < _ENOUGH_SECONDS):
        try:
            rates[size] = size / _fastest_run(session, size, tile, clock)
        except DeviceLostError:
            raise
        except ModelError as error:
            if not rates:
                raise
            if not isinstance(error, DeviceOutOfMemoryError):
                log.warning("batches of %d fail, so they stay smaller: %s", size, one_line(error))
            break
        size *= 2
    return rates


def _fastest_run(session: Session, size: int, tile: int, clock: Callable[[], float]) -> float:
    """Seconds; the fastest of some runs, as whatever disturbs one only makes it slower."""
    # Noise, not one colour: flat data takes less power, and lets a GPU clock higher than pictures do.
    tiles = np.random.default_rng(0).integers(0, 256, (size, tile, tile, 3), np.uint8)
    session.run(tiles)  # the first of a shape also chooses algorithms
    fastest = float("inf")
    for _ in range(_TIMED_RUNS):
        begun = clock()
        session.run(tiles)
        fastest = min(fastest, clock() - begun)
    return max(fastest, 1e-9)


class Calibration:
    """The measured batch sizes, in a JSON file; may be used from any thread."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.perf_counter) -> None:
        """Use what a file holds.

        Args:
            file: where they are kept; a missing or broken one means that all is measured again.
            clock: the time in seconds.
        """
        self._kept = Kept(file, dict[str, Annotated[int, Meta(ge=1)]])
        self._clock = clock
        # A second device of the kind finds what the first has measured.
        self._one_at_a_time = threading.Lock()

    def known(self, device: Device, network: Network) -> int | None:
        """What `batch` gives, if it was measured before and is still possible."""
        known = self._kept.get(_key(device, network))
        return known if known is not None and known <= device.largest_batch else None

    def batch(self, device: Device, session: Session, network: Network) -> int:
        """How many of the network's largest tiles one run should take on this device. Blocks.

        Raises:
            ModelError: see `measure_rates`.
        """
        with self._one_at_a_time:
            if (known := self.known(device, network)) is not None:
                return known
            if isinstance(session, MeasuringSession):
                rates = session.rates(network.tile, device.largest_batch)
            else:
                rates = measure_rates(session, network.tile, device.largest_batch, self._clock)
            chosen = choose_batch(rates)
            shown = ", ".join(f"{size}: {rate:.1f}" for size, rate in rates.items())
            log.info("%s: %s in batches of %d (tiles/s: %s)", device.name, network.path.name, chosen, shown)
            self._kept.keep(_key(device, network), chosen)
            return chosen


def _key(device: Device, network: Network) -> str:
    return f"{device.kind}; {network.path.name} {network.sha256[:16]}; {network.tile} px"
