"""How often a creative upscaler draws a picture, at which sizes and in which windows; how much work it is."""

import math
from fractions import Fraction

from engines.latent.diffusion import Creative, Diffusion
from engines.latent.windows import Windows, overlap_of
from engines.passes import sizes_of_passes
from engines.tiling.tiles import NO_WRAPS, Wraps
from onnx_models import CreativeWeights, Model

__all__ = ["looks_drawn", "side_drawn", "sizes_drawn", "window_side", "windows_over"]

_LARGEST = 2
"""By how much a picture is enlarged before it is drawn once: more and there would be too little to go by."""

_STEP = 64
"""Sides of windows are multiples of it, in pixels, so that those of different pictures can share runs."""


def sizes_drawn(source: tuple[int, int], size: tuple[int, int], refinements: int) -> list[tuple[int, int]]:
    """The size of a picture each time that it is drawn.

    Args:
        source: width and height to begin with, in pixels.
        size: width and height to reach.
        refinements: how often it is drawn before it is enlarged.
    """
    return [source] * refinements + sizes_of_passes(source, size, _LARGEST)


def side_drawn(length: int, weights: CreativeWeights) -> int:
    """The least side that the UNet takes and that is no shorter than this one, in pixels."""
    multiple = weights.multiple_in_pixels
    return max(2 * multiple, -(-length // multiple) * multiple)


def window_side(model: Model, creative: Creative) -> int:
    """The largest side of a window that is wanted, in pixels."""
    return round(model.tile * creative.window)


def windows_over(
    height: int, width: int, weights: CreativeWeights, *, side: int, overlap: int, wraps: Wraps = NO_WRAPS
) -> Windows:
    """The windows that a picture is drawn in once it is continued to sides that the UNet takes.

    Args:
        height: in pixels.
        width: in pixels.
        weights: what is known of the model.
        side: of the windows, in pixels; rounded down to one that the UNet takes.
        overlap: of the windows, in pixels.
        wraps: where the picture goes on at its opposite edge.
    """
    multiple = weights.multiple_in_pixels
    return Windows(
        side_drawn(height, weights) // weights.cell,
        side_drawn(width, weights) // weights.cell,
        side=max(2 * multiple, side // multiple * multiple) // weights.cell,
        overlap=overlap // weights.cell,
        step=math.lcm(multiple, _STEP) // weights.cell,
        rings=wraps,
    )


def looks_drawn(
    source: tuple[int, int], size: tuple[int, int], wanted: Diffusion, model: Model, wraps: Wraps = NO_WRAPS
) -> Fraction:
    """How many pixels of windows the model looks at in all passes together, for each pixel of the result.

    Args:
        source: width and height to begin with, in pixels.
        size: width and height to reach.
        wanted: what is asked for.
        model: a creative upscaler.
        wraps: where the picture goes on at its opposite edge.
    """
    creative, weights = wanted.creative or Creative(), model.creative
    assert weights is not None
    side = window_side(model, creative)
    overlap, looks = overlap_of(model, side), 0
    for number, (width, height) in enumerate(sizes_drawn(source, size, creative.refinements)):
        windows = windows_over(height, width, weights, side=side, overlap=overlap, wraps=wraps)
        looks += windows.area * weights.cell**2 * wanted.of_pass(number).evaluations
    return Fraction(looks, size[0] * size[1])
