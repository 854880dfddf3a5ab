"""Tells how probable it is that a picture is not safe for work."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.codecs.picture import Picture
from engines.devices.parts import Part
from engines.part_job import run_part
from engines.scheduling.executor import Executor
from engines.scheduling.work import PartKey
from engines.threads import Threads

__all__ = ["SafetyChecker"]

_SIDE, _SEEN = 256, 224
"""The picture is squeezed into a square; the network sees the middle of it, as in its authors' program."""

_REDUCING_GAP = 3.0
"""Pillow may halve a large picture first as long as it stays so many times larger than the square."""


class SafetyChecker:
    """What looks at pictures, on the devices of an executor."""

    def __init__(self, executor: Executor, pixels: Threads) -> None:
        """Begin with nothing to do.

        Args:
            executor: runs the network.
            pixels: threads for the work beside the devices.
        """
        self._executor = executor
        self._pixels = pixels

    async def score(self, picture: Picture, part: Part, *, account: str) -> float:
        """From 0, safe for work, to 1, not.

        Args:
            picture: to look at; its colours count even where they are transparent.
            part: the network, loaded.
            account: whose share of the devices it uses.

        Raises:
            ModelError: if it cannot be run.
        """
        seen = await self._pixels.run(_seen, picture.pixels)
        key = PartKey(part, (seen.shape,), _SEEN * _SEEN, 0)
        ((scores,),) = await run_part(self._executor, key, [(seen,)], account=account)
        return float(np.clip(scores, 0, 1))


def _seen(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the network sees of a picture, (224, 224, 3).

    Yahoo's program hands it over as a JPEG, which it was trained on: scores are a little different without.
    """
    square = Image.fromarray(pixels).convert("RGB")
    square = square.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)
    edge = (_SIDE - _SEEN) // 2
    buffer = io.BytesIO()
    square.crop((edge, edge, edge + _SEEN, edge + _SEEN)).save(buffer, "JPEG")
    return np.asarray(Image.open(buffer))
