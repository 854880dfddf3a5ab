"""How large a result is, and what it costs."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from onnx_models import Model
from server.protocol.errors import invalid
from server.settings import Settings
from server.state.requests import UpscaleRequest

__all__ = ["Size", "effort", "output_size", "price"]


_ADJECTIVES: Final = {"width": "wide", "height": "high"}


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6


def output_size(request: UpscaleRequest, model: Model, source: Size, settings: Settings) -> Size:
    """How large the result will be.

    Raises:
        ParameterError: if that is larger than the limit, or cannot be reached by the model.
    """
    limit = settings.max_output_megapixels
    factor, parameter = _factor(request, model, source)
    size = Size(*(max(1, math.floor(side * factor + 0.5)) for side in source))
    if size.megapixels > limit:
        raise invalid(
            parameter,
            f"the result would have {size.width} × {size.height} pixels, more than {limit:g} megapixels",
            "number",
        )
    if max(size) > request.output_format.max_side:
        raise invalid(
            "outputFormat",
            f"{request.output_format.value} holds at most {request.output_format.max_side} pixels on a side; "
            f"the result would have {size.width} × {size.height}",
        )
    return size


def _factor(request: UpscaleRequest, model: Model, source: Size) -> tuple[float, str]:
    """By how much each side grows, and which parameter says so."""
    largest = model.factors[-1]
    if request.target_megapixels is not None:
        factor = math.sqrt(request.target_megapixels / source.megapixels)
        if not 1 < factor <= largest:
            reachable = f"{source.megapixels:.3g} to {source.megapixels * largest**2:.3g}"
            raise invalid(
                "targetMegapixels", f"{model.name} can make {reachable} megapixels of this image", "number"
            )
        return factor, "targetMegapixels"
    wanted = {"width": (request.width, source.width), "height": (request.height, source.height)}
    factors = {name: side / length for name, (side, length) in wanted.items() if side is not None}
    if not factors:
        return float(request.factor or largest), "upscaleFactor"
    parameter = min(factors, key=factors.__getitem__)
    if not 1 < factors[parameter] <= largest:
        length = wanted[parameter][1]
        reachable = f"{length + 1} to {length * largest}"
        raise invalid(
            parameter,
            f"{model.name} can make this image {reachable} pixels {_ADJECTIVES[parameter]}",
            "number",
        )
    return factors[parameter], parameter


def price(usd_per_megapixel: Decimal, size: Size, effort: Fraction = Fraction(1)) -> int:
    """What a result of this size costs, in nanodollars; rounded up to whole microdollars.

    Args:
        usd_per_megapixel: of the model.
        size: of the result.
        effort: see `effort`.
    """
    exact = Fraction(usd_per_megapixel) * size.width * size.height * effort  # microdollars
    return math.ceil(exact) * 1000


def effort(request: UpscaleRequest, model: Model) -> Fraction:
    """How many times the work that the model's price is for a request takes; at least 1.

    The price of a latent upscaler is for its default number of steps. More steps cost more, and so does what
    looks at a picture twice in each: guidance, and some schedulers.
    """
    if model.latent is None or request.diffusion is None:
        return Fraction(1)
    return max(Fraction(1), Fraction(request.diffusion.evaluations, model.latent.default_steps))
