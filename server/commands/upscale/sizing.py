"""How large each result becomes: what was asked for, or the largest sensible factor that fits."""

import math
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from onnx_models import LARGEST_FACTOR, Model
from server.commands.memory import Limit
from server.protocol.requests import ResizeMode
from server.upscale.sizing import largest_factor
from tilewire import Model as RemoteModel

__all__ = ["Offer", "Wanted", "check_wanted", "choose_offer", "factor_for"]

_SENSIBLE_MEGAPIXELS: Final = 256
"""What a default factor does not go beyond: more takes long, and few programs open it."""


class Wanted(Struct, frozen=True, kw_only=True):
    """How large the results are to be: by factor, by sides or by megapixels; None of them: as sensible.

    Attributes:
        factor: how many times as wide and high.
        width: in pixels; with a height too the result fits into both.
        height: in pixels.
        megapixels: width × height / 1e6.
        mode: what a width and a height together mean: `fit`, or as tasks have it.
    """

    factor: float | None = None
    width: int | None = None
    height: int | None = None
    megapixels: float | None = None
    mode: ResizeMode | None = None

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        asked = (self.factor, self.width or self.height, self.megapixels)
        if sum(each is not None for each in asked) > 1:
            raise ValueError("give --factor, --width and --height, or --megapixels, not several of them")
        if self.megapixels is not None and not 0 < self.megapixels < math.inf:
            raise ValueError(f"--megapixels must be more than 0, not {self.megapixels:g}")
        if self.mode is not None and None in (self.width, self.height):
            raise ValueError("--resize-mode needs both --width and --height")

    @property
    def box(self) -> tuple[int, int] | None:
        """Width and height of the result, where they are asked for whatever the picture's shape is."""
        if self.width is None or self.height is None or self.mode not in ("crop", "stretch"):
            return None
        return self.width, self.height

    @property
    def by_size(self) -> bool:
        """Whether the factor depends on the picture."""
        return self.factor is None


class Offer(Struct, frozen=True):
    """What a model offers, wherever it runs.

    Attributes:
        seconds: that a million pixels took before; None if nobody knows.
    """

    name: str
    air: str
    factors: tuple[int, ...]
    fractional: bool
    seconds: float | None = None

    def __str__(self) -> str:
        """Its factors, in words."""
        words = ", ".join(map(str, self.factors))
        more = f", or any number from 1 to {LARGEST_FACTOR}" if self.fractional else ""
        return f"{self.name} upscales by {words}{more}"

    def offers(self, factor: float) -> bool:
        """Whether it upscales by this factor."""
        return factor in self.factors or (self.fractional and 1 <= factor <= LARGEST_FACTOR)


def choose_offer(models: Sequence[Model] | Sequence[RemoteModel], name: str | None) -> Offer:
    """The model of this name or AIR identifier; without a name the first.

    Raises:
        ValueError: if there is none; the message names those that there are.
    """
    for model in models:
        if name in (None, model.name, model.air):
            if isinstance(model, RemoteModel):
                return Offer(
                    model.name,
                    model.air,
                    tuple(model.upscale_factors),
                    model.fractional_factors,
                    model.seconds_per_megapixel,
                )
            return Offer(model.name, model.air, model.factors, model.fractional)
    raise ValueError(f"there is no model {name!r}; there are: {', '.join(model.name for model in models)}")


def check_wanted(wanted: Wanted, offer: Offer) -> None:
    """See that the model can make what is asked for, as far as that does not depend on the picture.

    Raises:
        ValueError: if it cannot.
    """
    if wanted.factor is not None and not offer.offers(wanted.factor):
        raise ValueError(f"--factor {wanted.factor:g}: {offer}")
    if wanted.factor is None and wanted != Wanted() and not offer.fractional:
        raise ValueError(f"{offer}; --width, --height and --megapixels need a model that takes any factor")


def factor_for(wanted: Wanted, offer: Offer, size: tuple[int, int], limit: Limit, longest_side: int) -> float:
    """By how much a picture is upscaled.

    Args:
        wanted: what was asked for.
        offer: of the model.
        size: width and height of the picture, in pixels.
        limit: the largest result.
        longest_side: of a picture in the format of the result, in pixels.

    Raises:
        ValueError: if what is asked for cannot be, or nothing fits; the message has the largest that does.
    """
    width, height = size
    fits = min(math.sqrt(limit.megapixels * 1e6 / (width * height)), longest_side / max(size))
    factor = _asked(wanted, width, height)
    if factor is None:
        sensible = min(fits, math.sqrt(_SENSIBLE_MEGAPIXELS * 1e6 / (width * height)))
        factor = _largest(offer, sensible) or _largest(offer, fits)
        if factor is None:
            raise ValueError(
                f"{width} × {height} pixels cannot be upscaled: {_too_large(offer, fits, limit)}"
            )
    elif not offer.offers(factor):
        raise ValueError(f"{width} × {height} pixels would be upscaled by {factor:.3g}; {offer}")
    elif (megapixels := _megapixels(wanted, width, height, factor)) > limit.megapixels:
        raise ValueError(
            f"the result would have {megapixels:.3g} megapixels: {_too_large(offer, fits, limit)}"
        )
    return factor


def _asked(wanted: Wanted, width: int, height: int) -> float | None:
    if wanted.megapixels is not None:
        return math.sqrt(wanted.megapixels * 1e6 / (width * height))
    sides = [side / own for side, own in ((wanted.width, width), (wanted.height, height)) if side is not None]
    choose = min if wanted.mode in (None, "fit") else max
    return choose(sides) if sides else wanted.factor


def _megapixels(wanted: Wanted, width: int, height: int, factor: float) -> float:
    """Of the result."""
    wide, high = wanted.box or (round(width * factor), round(height * factor))
    return wide * high / 1e6


def _largest(offer: Offer, fits: float) -> float | None:
    return largest_factor(offer.factors, fits, fractional=offer.fractional)


def _too_large(offer: Offer, fits: float, limit: Limit) -> str:
    largest = _largest(offer, fits)
    advice = f"the largest factor that fits is {largest:g}" if largest else "no factor fits"
    return f"{limit.name} is {limit.megapixels:.3g} megapixels; {advice}"
