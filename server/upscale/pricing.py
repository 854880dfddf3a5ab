"""What an upscale costs."""

from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from engines import (
    TURNS,
    Controls,
    Creative,
    Diffusion,
    Seamless,
    looks_drawn,
    sizes_of_passes,
    wraps_of,
)
from onnx_models import Auxiliary, Catalogue, Model
from server.settings import Settings
from server.state.requests import UpscaleRequest
from server.upscale.sizing import Area, Size, sizing

__all__ = ["Prices", "Quote", "effort", "price"]


class Quote(NamedTuple):
    """What a request comes to; see `sizing`, and `price` in nanodollars."""

    size: Size
    area: Area | None
    price: int


class Prices:
    """What requests cost here."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        """Price requests.

        Args:
            catalogue: has the models, and their usual prices.
            settings: the limits, and other prices.
        """
        self._catalogue = catalogue
        self._settings = settings

    def quote(self, request: UpscaleRequest, width: int, height: int) -> Quote:
        """How large the result will be, of which part of the input, and what it costs.

        Args:
            request: what is to be done.
            width: of the input, in pixels.
            height: of the input, in pixels.

        Raises:
            ParameterError: if the result is larger than the limit, or cannot be reached by the model.
        """
        source = Size(width, height)
        model = None if request.restore_only else self._catalogue.get(request.model)
        size, area = sizing(request, model, source, self._settings)
        shown = source if area is None else Size(area.width, area.height)
        return Quote(
            size, area, self._of_upscale(request, shown, size) + self._of_beside(request, shown, size)
        )

    def _of_upscale(self, request: UpscaleRequest, source: Size, size: Size) -> int:
        """The price of both models where two are blended, and of what enlarges for them."""
        layers = [] if request.restore_only else [(request.model, request.diffusion)]
        if request.blend is not None:
            layers.append((request.blend.model, request.blend.diffusion))
        total = 0
        for name, diffusion in layers:
            model = self._catalogue.get(name)
            total += self._of_model(request, model, source, size, diffusion)
            if model.creative is not None and request.enlarger is not None and size != source:
                enlarger = self._catalogue.get(request.enlarger)
                total += self._of_model(request, enlarger, source, size, None)
        return total

    def _of_model(
        self, request: UpscaleRequest, model: Model, source: Size, size: Size, diffusion: Diffusion | None
    ) -> int:
        work = effort(model, source, size, diffusion=diffusion, tta=request.tta, seamless=request.seamless)
        return price(self._per_megapixel(model), size, work)

    def _of_beside(self, request: UpscaleRequest, source: Size, size: Size) -> int:
        """The price of removing noise from the source, and of looking for faces in the result to restore."""
        cost = 0
        if request.denoiser is not None:
            denoiser = self._catalogue.auxiliary("denoiser", request.denoiser.model)
            cost += price(self._per_megapixel(denoiser), source)
        if request.face_restorer is not None:
            restorer = self._catalogue.auxiliary("faceRestorer", request.face_restorer.model)
            cost += price(self._per_megapixel(restorer), size)
        return cost

    def _per_megapixel(self, model: Model | Auxiliary) -> Decimal:
        return self._settings.prices.get(model.name, model.price_per_megapixel)


def price(usd_per_megapixel: Decimal, size: Size, effort: Fraction = Fraction(1)) -> int:
    """What a result of this size costs, in nanodollars; rounded up to whole microdollars.

    Args:
        usd_per_megapixel: of the model.
        size: of the result.
        effort: see `effort`.
    """
    dollars, parts = usd_per_megapixel.as_integer_ratio()  # as integers: fractions take ten times as long
    microdollars = dollars * size.width * size.height * effort.numerator
    return -(-microdollars // (parts * effort.denominator)) * 1000


def effort(
    model: Model,
    source: Size,
    size: Size,
    *,
    diffusion: Diffusion | None = None,
    tta: bool = False,
    seamless: Seamless | None = None,
) -> Fraction:
    """How many times the work that the model's price is for it does.

    The price of a latent upscaler is for its default number of steps. More steps cost more, and so does what
    looks at a picture twice in each: guidance, and some schedulers; it is at least 1. Beyond the model's own
    scale each pass costs what its result has in pixels. That of a creative upscaler is for one pass with all
    settings as they are by default, in one window; it rises and falls with the steps that are done and the
    pixels of all windows, which overlap. Test-time augmentation does all that for each flip and turn.

    Args:
        model: what does it.
        source: the size of what is enlarged.
        size: of the result.
        diffusion: what is wanted of a latent or creative upscaler.
        tta: whether the mean over all flips and turns is wanted.
        seamless: where the picture goes on at its opposite edge.
    """
    if model.creative is not None and diffusion is not None:
        usual = Controls().diffusion(Diffusion(steps=model.creative.default_steps, creative=Creative()))
        drawn = looks_drawn(source, size, diffusion, model, wraps_of(seamless)) / usual.evaluations
        return drawn * len(TURNS) if tta else drawn
    passes = sizes_of_passes(source, size, model.reach)
    work = Fraction(sum(width * height for width, height in passes), size.width * size.height)
    if tta:
        work *= len(TURNS)
    if model.latent is None or diffusion is None:
        return work
    drafts = int(diffusion.strength < 1 and model.latent.draft_steps > 0)  # in one step
    return work * max(Fraction(1), Fraction(diffusion.evaluations + drafts, model.latent.default_steps))
