"""A network loaded on a device, whatever runtime is behind it.

1. `Session` is the seam: a batch in, a batch out. Some can also be warmed up (`WarmingSession`), measure
   themselves (`MeasuringSession`), or say how long the device worked (`TimedSession`).
2. `run_checked` and `probe` hold every session to what it must give, so that a foreign or broken ONNX file
   is refused before a task meets it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError
from onnx_models import Model, ModelBuildError, Split, Weights, ensure_network

__all__ = [
    "MeasuringSession",
    "Network",
    "Session",
    "TimedSession",
    "WarmingSession",
    "probe",
    "run_checked",
    "warmed_up",
]


@dataclass(frozen=True, slots=True)
class Network:
    """An ONNX file that takes `(N, H, W, 3) uint8` and gives `(N, H × scale, W × scale, 3) uint8`."""

    path: Path
    scale: int
    tile: int
    """The largest side of a tile, in input pixels."""
    weights: Weights | None = field(default=None, compare=False)
    """What the file was made of, for runtimes that would rather have that; None if it is not known."""
    split: Split | None = field(default=None, compare=False)
    """The network in two parts, for CPUs, where its end is best run in blocks."""
    sha256: str = ""
    """Of the file. What was measured of a network holds for all of an equal one."""
    overlap: int = 0
    """Of neighbouring tiles, in input pixels."""

    @classmethod
    def build(cls, model: Model, weights: Weights, directory: Path) -> "Network":
        """A model's network at one native scale, built on first use. Blocks.

        Args:
            model: an entry of the catalogue.
            weights: one of `model.weights`.
            directory: where ONNX files are kept.

        Raises:
            ModelError: if it cannot be built.
        """
        try:
            built = ensure_network(model, weights, directory)
        except ModelBuildError as error:
            raise ModelError(f"{model.name} cannot be built: {error}") from error
        return cls(built.path, weights.scale, model.tile, weights, built.split, built.sha256, model.overlap)


class Session(Protocol):
    """A network loaded on a device."""

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Upscale a batch, (N, H, W, 3) uint8 → (N, H × scale, W × scale, 3) uint8.

        Raises:
            DeviceOutOfMemoryError: if the batch is too large for the device.
            DeviceLostError: if the device does not work any longer.
            ModelError: if the run fails.
        """

    def release_memory(self) -> None:
        """Give back the main memory that large runs took; the next ones take it again."""


@runtime_checkable
class WarmingSession(Session, Protocol):
    """A session that can get ready for the tiles that come most often."""

    def warm_up(self) -> None:
        """Get ready; called once, after all trial runs. The memory that those took is given back.

        Raises:
            ModelError: see `Session.run`.
        """


@runtime_checkable
class MeasuringSession(Protocol):
    """A session that measures itself, where to do so from here would measure the way there as well."""

    def rates(self, tile: int, largest: int) -> dict[int, float]:
        """Tiles per second by batch size; see `engines.scheduling.calibration.measure_rates`."""


@runtime_checkable
class TimedSession(Protocol):
    """A session, of a network or a part, that says how long its device worked: the rest is the way there."""

    seconds: float
    """For the last run."""


def warmed_up(session: Session) -> Session:
    """The session, warmed up where it can be: before that it is of use for trial runs."""
    if isinstance(session, WarmingSession):
        session.warm_up()
    return session


def run_checked(session: Session, network: Network, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Upscale a batch, and make sure that what comes out is what a network must give.

    Raises:
        ModelError: see `Session.run`; also if it gives anything else than uint8 of the right shape.
    """
    count, height, width, _ = tiles.shape
    expected = (count, height * network.scale, width * network.scale, 3)
    upscaled: Any = session.run(tiles)
    if not isinstance(upscaled, np.ndarray) or upscaled.dtype != np.uint8 or upscaled.shape != expected:
        found = f"{upscaled.shape} {upscaled.dtype}" if isinstance(upscaled, np.ndarray) else type(upscaled)
        raise ModelError(
            f"{network.path.name} is not an upscaler of scale {network.scale}: "
            f"of {tiles.shape} it makes {found}, not {expected} uint8"
        )
    return upscaled


def probe(session: Session, network: Network) -> None:
    """Run a tiny picture, from black to white, and refuse a network that does not give a larger one.

    The levels that come out need not be those that went in, but they must be near: weights that are not
    numbers, or that overflow in low precision, give black, white or noise.

    Raises:
        ModelError: if the network is not an upscaler of its scale.
    """
    ramp = np.linspace(0, 255, _PROBE_SIDE).astype(np.uint8)
    picture = np.broadcast_to(ramp[np.newaxis, :, np.newaxis], (_PROBE_SIDE, _PROBE_SIDE, 3))
    upscaled = run_checked(session, network, np.ascontiguousarray(picture[np.newaxis]))[0]
    scale = network.scale
    reduced = upscaled.reshape(_PROBE_SIDE, scale, _PROBE_SIDE, scale, 3).mean((1, 3))
    difference = np.abs(reduced - picture).mean()
    if difference > _PROBE_TOLERANCE:
        raise ModelError(
            f"{network.path.name} does not give the picture that it takes, only larger: "
            f"they differ by {difference:.0f} levels of 255 on average"
        )


_PROBE_SIDE = 16
_PROBE_TOLERANCE = 48  # levels; the networks of the catalogue differ by 3 at most, black or noise by over 64
