"""Finished parts of a result, handed over while the rest of it is still being made."""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import Picture
from engines.tiling.alpha import bound_alpha
from engines.tiling.tiles import NO_WRAPS, Area, Wraps

__all__ = ["OnRegion", "Region", "RegionReporter", "report_whole"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Region:
    """A finished part of a result. It holds views of the result, which stays in memory as long as it does."""

    area: Area
    """Its place in the result."""
    width: int
    """Of the whole result, in pixels; as is `height`."""
    height: int
    source: Picture
    """What is upscaled."""
    colours: NDArray[np.uint8]
    """(h, w, 3), or (h, w) of a grey picture, as they came out of the network."""
    alpha: NDArray[np.uint8] | None
    """(h, w), as it came out of the network."""
    wraps: Wraps = NO_WRAPS
    """Where the source goes on at its opposite edge."""

    def picture(self) -> Picture:
        """The same pixels that the result has there, with its colour profile but without metadata.

        It has no alpha where it is opaque, even if other parts of the result are not.
        """
        alpha = None
        if self.alpha is not None and self.source.alpha is not None:
            alpha = bound_alpha(self.alpha, self.source.alpha, self.area, self.width, self.height, self.wraps)
            if alpha.min() == 255:
                alpha = None
        return Picture(
            pixels=np.ascontiguousarray(self.colours), alpha=alpha, icc_profile=self.source.icc_profile
        )

    def pieces(self, side: int) -> Iterator["Region"]:
        """The region in pieces of at most `side` × `side` pixels, about equally large, row by row."""
        for top, bottom in _cut(self.area.height, side):
            for left, right in _cut(self.area.width, side):
                yield replace(
                    self,
                    area=Area(
                        self.area.left + left,
                        self.area.top + top,
                        self.area.left + right,
                        self.area.top + bottom,
                    ),
                    colours=self.colours[top:bottom, left:right],
                    alpha=None if self.alpha is None else self.alpha[top:bottom, left:right],
                )


OnRegion = Callable[[Region], None]


class RegionReporter:
    """Reports each region when all planes of it are finished; may be used from any thread.

    A picture that is begun again, with smaller tiles, is finished in other areas: what overlaps a region that
    was reported is not reported again.
    """

    def __init__(
        self, source: Picture, width: int, height: int, on_region: OnRegion, wraps: Wraps = NO_WRAPS
    ) -> None:
        """Begin with nothing finished.

        Args:
            source: what is upscaled; two planes if it has alpha, otherwise one.
            width: of the result, in pixels.
            height: of the result, in pixels.
            on_region: called with each region; if it raises, that is logged.
            wraps: where the source goes on at its opposite edge.
        """
        self._source = source
        self._width = width
        self._height = height
        self._on_region = on_region
        self._wraps = wraps
        self._count = 1 if source.alpha is None else 2
        self._lock = threading.Lock()
        self._finished: defaultdict[Area, dict[int, NDArray[np.uint8]]] = defaultdict(dict)
        self._reported: list[Area] = []

    def take(self, plane: int, area: Area, pixels: NDArray[np.uint8]) -> None:
        """An area of a plane, 0 for colours and 1 for alpha, is finished; `pixels` are (h, w, …)."""
        with self._lock:
            planes = self._finished[area]
            planes[plane] = pixels
            if len(planes) < self._count:
                return
            del self._finished[area]
            if any(area.overlaps(reported) for reported in self._reported):
                return
            self._reported.append(area)
        region = Region(
            area=area,
            width=self._width,
            height=self._height,
            source=self._source,
            colours=planes[0],
            alpha=planes.get(1),
            wraps=self._wraps,
        )
        try:
            self._on_region(region)
        except Exception:
            log.exception("a finished region could not be passed on")


def report_whole(result: Picture, source: Picture, on_region: OnRegion, wraps: Wraps = NO_WRAPS) -> None:
    """Report a finished result as one region.

    Args:
        result: all of it.
        source: what was upscaled.
        on_region: called with it; if it raises, that is logged.
        wraps: where the source goes on at its opposite edge.
    """
    regions = RegionReporter(source, result.width, result.height, on_region, wraps)
    area = Area(0, 0, result.width, result.height)
    for index, plane in enumerate([result.pixels] if result.alpha is None else [result.pixels, result.alpha]):
        regions.take(index, area, plane)


def _cut(length: int, limit: int) -> list[tuple[int, int]]:
    """[0, length) in parts of at most `limit`."""
    count = -(-length // limit)
    cuts = [length * index // count for index in range(count + 1)]
    return list(pairwise(cuts))
