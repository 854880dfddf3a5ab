"""How large a result is, and which part of the input it shows."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from onnx_models import LARGEST_FACTOR, Model
from server.protocol.errors import invalid
from server.settings import Settings
from server.state.requests import UpscaleRequest

__all__ = ["Area", "Size", "Sizing", "largest_factor", "sizing"]

_ADJECTIVES: Final = {"width": "wide", "height": "high"}


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def megapixels(self) -> float:
        """In millions of pixels."""
        return self.width * self.height / 1e6


class Area(NamedTuple):
    """A part of the input, in its pixels."""

    left: int
    top: int
    width: int
    height: int


class Sizing(NamedTuple):
    """What becomes of a picture.

    Attributes:
        size: of the result.
        area: the part of the input that it shows; None for all of it.
    """

    size: Size
    area: Area | None = None


def sizing(request: UpscaleRequest, model: Model | None, source: Size, settings: Settings) -> Sizing:
    """How large the result will be, and of which part of the input.

    Args:
        request: what is to be done.
        model: that upscales; None if nothing is upscaled.
        source: the size of the input.
        settings: the limits.

    Raises:
        ParameterError: if that is larger than the limit, or cannot be reached by the model.
    """
    if model is None:
        _check_limits(source, "restoreOnly", request, source, settings)
        return Sizing(source)
    if request.width is not None and request.height is not None and request.resize_mode in _EXACT:
        wanted = Size(request.width, request.height)
        found = _exact(request, model, source, wanted)
        parameter = "width"
    else:
        factor, parameter = _factor(request, model, source, settings)
        found = Sizing(Size(_scaled(source.width, factor), _scaled(source.height, factor)))
    _check_limits(found.size, parameter, request, source, settings)
    return found


def largest_factor(factors: Sequence[int], fits: float, *, fractional: bool) -> float | None:
    """The largest whole factor that fits, or else the largest at all; None if none is worth the work.

    Args:
        factors: the whole ones that a model offers, smallest first.
        fits: what the factor must not be above.
        fractional: whether the model offers any number from 1 on.
    """
    whole = range(2, factors[-1] + 1) if fractional else factors
    if (largest := max((factor for factor in whole if factor <= fits), default=None)) is not None:
        return largest
    tenths = math.floor(fits * 10) / 10
    return tenths if fractional and tenths > 1 else None


def _exact(request: UpscaleRequest, model: Model, source: Size, wanted: Size) -> Sizing:
    """The very width and height that were asked for: stretched, or cut to their shape."""
    factors = {"width": wanted.width / source.width, "height": wanted.height / source.height}
    if request.resize_mode == "stretch":
        for name, factor in factors.items():
            _check_factor(name, factor, model, source)
        return Sizing(wanted)
    name = max(factors, key=factors.__getitem__)
    factor = factors[name]
    _check_factor(name, factor, model, source)
    width, height = (
        min(length, _scaled(side, 1 / factor)) for length, side in zip(source, wanted, strict=True)
    )
    if (width, height) == source:
        return Sizing(wanted)
    cut = {"x": width < source.width, "y": height < source.height}
    if any(cut[axis] and request.seamless in (axis, "both") for axis in cut):
        raise invalid(
            "resizeMode",
            "crop cuts this image at edges that seamless lets meet: take stretch, or a size of its shape",
        )
    return Sizing(wanted, Area((source.width - width) // 2, (source.height - height) // 2, width, height))


def _factor(request: UpscaleRequest, model: Model, source: Size, settings: Settings) -> tuple[float, str]:
    """By how much each side grows, and which parameter says so; if none does, as much as limits allow."""
    if request.target_megapixels is not None:
        factor = math.sqrt(request.target_megapixels / source.megapixels)
        least, most = _range(model)
        if not least <= factor <= most:
            reachable = f"{source.megapixels * least**2:.3g} to {source.megapixels * most**2:.3g}"
            raise invalid(
                "targetMegapixels", f"{model.name} can make {reachable} megapixels of this image", "number"
            )
        return factor, "targetMegapixels"
    wanted = {"width": (request.width, source.width), "height": (request.height, source.height)}
    factors = {name: side / length for name, (side, length) in wanted.items() if side is not None}
    if not factors:
        return float(request.factor or _fitting(request, model, source, settings) or 1), "upscaleFactor"
    choose = max if request.resize_mode == "fill" else min
    parameter = choose(factors, key=factors.__getitem__)
    _check_factor(parameter, factors[parameter], model, source)
    return factors[parameter], parameter


def _check_factor(side: str, factor: float, model: Model, source: Size) -> None:
    least, most = _range(model)
    if not least <= factor <= most:
        length = source.width if side == "width" else source.height
        reachable = f"{length * least} to {length * most} pixels {_ADJECTIVES[side]}"
        raise invalid(side, f"{model.name} can make this image {reachable}", "integer")


def _range(model: Model) -> tuple[int, int]:
    return (1, LARGEST_FACTOR) if model.fractional else (model.factors[0], model.factors[-1])


def _fitting(request: UpscaleRequest, model: Model, source: Size, settings: Settings) -> float | None:
    """The largest factor with which the result is within the limits."""
    limit, _ = _megapixels(request, settings)
    fits = min(
        math.sqrt(limit / source.megapixels),
        request.output_format.max_side / max(source),
    )
    return largest_factor(model.factors, fits, fractional=model.fractional)


def _check_limits(
    size: Size, parameter: str, request: UpscaleRequest, source: Size, settings: Settings
) -> None:
    limit, name = _megapixels(request, settings)
    if size.megapixels > limit:
        largest = math.floor(100 * math.sqrt(limit / source.megapixels)) / 100
        advice = f"the largest factor that fits is {largest:g}" if largest >= 1 else "the input is as large"
        raise invalid(
            parameter,
            f"the result would have {size.width} × {size.height} pixels, more than {limit:g} megapixels "
            f"({name}); {advice}",
            "number",
        )
    if max(size) > request.output_format.max_side:
        raise invalid(
            "outputFormat",
            f"{request.output_format.value} holds at most {request.output_format.max_side} pixels on a side; "
            f"the result would have {size.width} × {size.height}",
        )


def _megapixels(request: UpscaleRequest, settings: Settings) -> tuple[float, str]:
    """The most that the result may have, and what says so."""
    limit = settings.max_output_megapixels
    granted = request.grant.max_megapixels if request.grant is not None else None
    if granted is not None and granted < limit:
        return granted, "maxMegapixels of the token"
    return limit, "max_output_megapixels"


def _scaled(length: int, factor: float) -> int:
    """A side, scaled; halves are rounded up."""
    return max(1, math.floor(length * factor + 0.5))


_EXACT: Final = ("crop", "stretch")
