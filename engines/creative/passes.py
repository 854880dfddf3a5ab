"""How often a creative upscaler draws a picture, at which sizes, and how much work that is."""

from fractions import Fraction

from engines.latent.diffusion import Creative, Diffusion
from engines.passes import sizes_of_passes

__all__ = ["looks_drawn", "sizes_drawn"]

_LARGEST = 2
"""By how much a picture is enlarged before it is drawn once: more and there would be too little to go by."""


def sizes_drawn(source: tuple[int, int], size: tuple[int, int], refinements: int) -> list[tuple[int, int]]:
    """The size of a picture each time that it is drawn.

    Args:
        source: width and height to begin with, in pixels.
        size: width and height to reach.
        refinements: how often it is drawn before it is enlarged.
    """
    return [source] * refinements + sizes_of_passes(source, size, _LARGEST)


def looks_drawn(source: tuple[int, int], size: tuple[int, int], wanted: Diffusion) -> Fraction:
    """How often the model looks at each pixel of the result, all passes together.

    Args:
        source: width and height to begin with, in pixels.
        size: width and height to reach.
        wanted: what is asked for.
    """
    creative = wanted.creative or Creative()
    width, height = size
    looks = sum(
        across * down * wanted.of_pass(number).evaluations
        for number, (across, down) in enumerate(sizes_drawn(source, size, creative.refinements))
    )
    return Fraction(looks, width * height)
