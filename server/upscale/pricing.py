"""What an upscale costs."""

from decimal import Decimal
from fractions import Fraction

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
from onnx_models import Model
from server.upscale.sizing import Size

__all__ = ["effort", "price"]


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
