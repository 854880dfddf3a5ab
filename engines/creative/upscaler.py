"""One creative upscaler on the devices: the shell around `draw_anew`."""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import Picture, as_grey, as_rgb, resize_columns, resize_rows
from engines.creative.drawing import draw_anew
from engines.creative.passes import side_drawn, sizes_drawn, window_side
from engines.devices.parts import Part
from engines.latent.colour_fix import fix_colours
from engines.latent.diffusion import Creative, Diffusion
from engines.latent.parts import LoadedParts, as_pixels
from engines.latent.runs import Calls
from engines.progress import Progress, rising, within
from engines.scheduling.executor import Executor
from engines.threads import Threads
from engines.tiling.alpha import fill_hidden, with_planes
from engines.tiling.regions import OnRegion, report_whole
from engines.tiling.tiles import Wraps, continued
from onnx_models import CreativeWeights, Model

__all__ = ["CreativeUpscaler", "Enlarge", "resized"]

_ENLARGING = 0.1
"""The share of the progress that enlarging is taken to have in a pass: a guess."""


class Enlarge(Protocol):
    """Enlarges a picture by other means, to (width, height)."""

    def __call__(
        self,
        picture: Picture,
        size: tuple[int, int],
        *,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
    ) -> Awaitable[Picture]:
        """The picture, larger."""
        ...


class CreativeUpscaler:
    """A creative upscaler whose parts are loaded."""

    def __init__(self, weights: CreativeWeights, executor: Executor, threads: Threads) -> None:
        """Load the parts on all devices. Blocks.

        Args:
            weights: verified.
            executor: what runs them.
            threads: for the work beside the devices.

        Raises:
            ModelError: if something cannot be loaded.
        """
        self._weights = weights
        self._threads = threads
        self._loaded = LoadedParts(weights, executor, threads, spread=1, scale=1)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those that run on the devices."""
        return self._loaded.parts

    async def upscale(
        self,
        picture: Picture,
        model: Model,
        wanted: Diffusion,
        *,
        size: tuple[int, int],
        enlarge: Enlarge,
        styles: Sequence[Picture],
        account: str,
        keep_hidden: bool,
        wraps: Wraps,
        on_start: Callable[[], None] | None,
        on_progress: Progress | None,
        on_region: OnRegion | None,
    ) -> Picture:
        """See `Upscaler.upscale`.

        In each pass the picture is enlarged by at most two and drawn anew, with less and less strength.
        Alpha is not drawn but enlarged; the whole result is one region, as it is finished at once.

        Args:
            picture: what to upscale.
            model: whose weights they are; its windows are as large as its tiles.
            wanted: what is asked for.
            size: the wanted width and height.
            enlarge: what enlarges it before each pass.
            styles: images to take a style from.
            account: as there.
            keep_hidden: as there.
            wraps: where the picture goes on at its opposite edge.
            on_start: as there.
            on_progress: as there.
            on_region: as there.

        Raises:
            ModelError: if a run fails, or what comes out is no picture.
        """
        source = picture
        if picture.alpha is not None and not keep_hidden:
            filled = await self._threads.run(fill_hidden, picture.pixels, picture.alpha, wraps)
            picture = replace(picture, pixels=filled)
        creative = wanted.creative or Creative()
        style = [as_rgb(each.pixels) for each in styles]
        sizes = sizes_drawn((picture.width, picture.height), size, creative.refinements)
        ends = list(itertools.accumulate(width * height for width, height in sizes))
        report, begun = rising(on_progress), 0
        starting = _once(on_start)
        for number, (reached, end) in enumerate(zip(sizes, ends, strict=True)):
            progress = within(report, begun / ends[-1], end / ends[-1])
            to_draw = self._to_draw(reached, wraps)
            if to_draw != (picture.width, picture.height):
                picture = await enlarge(
                    picture, to_draw, on_start=starting, on_progress=within(progress, 0, _ENLARGING)
                )
                progress = within(progress, _ENLARGING, 1)
            pixels = as_rgb(picture.pixels)
            of_pass = wanted.of_pass(number)
            generated = await self._loaded.in_windows(
                model,
                window_side(model, creative),
                pixels,
                partial(self._calls, pixels, of_pass, number, wraps, style),
                account=account,
                on_start=starting,
                on_progress=progress,
            )
            if wanted.colour_fix is not None:
                generated = await self._threads.run(fix_colours, generated, pixels, wanted.colour_fix, wraps)
            picture = await self._threads.run(_redrawn, picture, generated, reached, wraps)
            begun = end
        return await self._threads.run(_finished, picture, source, on_region, wraps)

    def _calls(
        self,
        pixels: NDArray[np.uint8],
        wanted: Diffusion,
        number: int,
        wraps: Wraps,
        styles: Sequence[NDArray[np.uint8]],
        *,
        side: int,
        overlap: int,
    ) -> Calls:
        tokens = self._loaded.tokens(wanted)
        assert tokens is not None, "a creative upscaler takes prompts"
        return draw_anew(
            pixels,
            tokens,
            wanted,
            self._weights,
            side=side,
            overlap=overlap,
            number=number,
            wraps=wraps,
            styles=styles,
        )

    def _to_draw(self, size: tuple[int, int], wraps: Wraps) -> tuple[int, int]:
        """The size that is drawn for a wanted one: what wraps cannot be continued to one that can be."""
        width, height = (
            side_drawn(length, self._weights) if ring else length
            for length, ring in zip(size, (wraps.columns, wraps.rows), strict=True)
        )
        return width, height


def _once(on_start: Callable[[], None] | None) -> Callable[[], None]:
    """Passes on the first call only."""
    waiting = [on_start] if on_start is not None else []
    return lambda: waiting.pop()() if waiting else None


def _redrawn(
    picture: Picture, generated: NDArray[np.float32], size: tuple[int, int], wraps: Wraps
) -> Picture:
    """The picture with generated colours, which are spent, at `size` (width, height)."""
    pixels = as_pixels(generated)
    drawn = replace(picture, pixels=as_grey(pixels) if picture.is_grey else pixels)
    return drawn if size == (drawn.width, drawn.height) else resized(drawn, *size, wraps)


def _finished(drawn: Picture, source: Picture, on_region: OnRegion | None, wraps: Wraps) -> Picture:
    """The result: its alpha is kept within the range of the source, where Lanczos has overshot it."""
    planes = [drawn.pixels] if drawn.alpha is None else [drawn.pixels, drawn.alpha]
    result = with_planes(source, planes, wraps)
    if on_region is not None:
        report_whole(result, source, on_region, wraps)
    return result


def resized(picture: Picture, width: int, height: int, wraps: Wraps) -> Picture:
    """A picture resampled as `resize` does it, but looking beyond an edge where it wraps.

    Args:
        picture: with its alpha.
        width: in pixels.
        height: in pixels.
        wraps: where it goes on at its opposite edge.
    """
    alpha = None if picture.alpha is None else _resized(picture.alpha, width, height, wraps)
    return replace(picture, pixels=_resized(picture.pixels, width, height, wraps), alpha=alpha)


_BEYOND = 16
"""How many pixels beyond an edge are looked at when what wraps is resized."""


def _resized(plane: NDArray[np.uint8], width: int, height: int, wraps: Wraps) -> NDArray[np.uint8]:
    top, left = _BEYOND * wraps.rows, _BEYOND * wraps.columns
    columns = resize_columns(continued(plane, wraps, _BEYOND), width, left, left + plane.shape[1])
    return resize_rows(columns, height, top, top + len(plane))
