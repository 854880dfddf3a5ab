"""Photographs to upscale: crops of a picture that no model and no setting was tuned on."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["jpeg", "photograph"]

PHOTO = Path(__file__).parents[1] / "tests" / "images" / "cat.jpg"


def photograph(side: int, index: int = 0) -> NDArray[np.uint8]:
    """A square crop at the photograph's own resolution, (side, side, 3) uint8, sRGB.

    Where the photograph ends, its mirror image goes on, so that a large one is as detailed as a small one.

    Args:
        index: crops of different index differ.
    """
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    margins = [(0, max(0, side - length)) for length in photo.shape[:2]]
    wide = np.pad(photo, [*margins, (0, 0)], mode="symmetric")
    middle = [(length - side) // 2 for length in wide.shape[:2]]
    shifted = np.roll(wide, (-middle[0] - 17 * index, -middle[1] - 23 * index), axis=(0, 1))
    return np.ascontiguousarray(shifted[:side, :side])


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """The pixels as a client would send them."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
