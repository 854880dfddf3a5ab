"""How near a network in low precision comes to itself in fp32: measured on a photograph of 96 × 96 pixels."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.devices.sessions import Session

__all__ = ["LEAST_DECIBELS", "decibels", "parity", "photograph"]

LEAST_DECIBELS = 45.0
"""Of low precision against fp32, below which it is not used."""

_PHOTOGRAPH = Path(__file__).with_name("parity.jpg")  # Eileen Collins, by NASA; public domain


def photograph() -> NDArray[np.uint8]:
    """A batch of one picture, (1, 96, 96, 3) uint8."""
    with Image.open(_PHOTOGRAPH) as image:
        return np.asarray(image.convert("RGB"))[np.newaxis]


def decibels(result: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """The peak signal-to-noise ratio of a result; infinite if it is the reference."""
    difference = result.astype(np.int16) - reference
    error = float(np.square(difference, dtype=np.float64).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def parity(low: Session, full: Session) -> float:
    """How near two sessions of one network are, in decibels, on the photograph.

    Raises:
        ModelError: if one of them cannot run it.
    """
    picture = photograph()
    return decibels(low.run(picture), full.run(picture))
