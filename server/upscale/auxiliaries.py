"""What a task wants of models that work beside the upscaler: checked, priced, and done."""

from collections.abc import Callable
from decimal import Decimal

from engines import Picture, Upscaler
from onnx_models import Auxiliary, AuxiliaryKind, Catalogue, UnknownModelError
from server.protocol.errors import invalid
from server.protocol.requests import Upscale
from server.settings import Settings
from server.state.requests import Denoiser, UpscaleRequest
from server.upscale.pricing import price
from server.upscale.sizing import Size

__all__ = ["AuxiliarySteps", "denoiser_of"]

Progress = Callable[[float], None]

_DENOISING = 0.15
"""The share of the progress that is taken for the removal of noise; a guess, as models differ much."""


def denoiser_of(task: Upscale, catalogue: Catalogue) -> Denoiser | None:
    """Which model is to remove noise before the upscale, and how much; None if none is.

    Raises:
        ParameterError: if it is not installed; the message names the command that fetches it.
    """
    if task.denoise is None or task.denoise.strength == 0:
        return None
    model = _installed(catalogue, "denoiser", task.denoise.model, "denoise.model")
    return Denoiser(model=model.name, strength=task.denoise.strength)


def _installed(catalogue: Catalogue, kind: AuxiliaryKind, name: str | None, parameter: str) -> Auxiliary:
    try:
        return catalogue.auxiliary(kind, name)
    except UnknownModelError as error:
        raise invalid(parameter, str(error)) from error


class AuxiliarySteps:
    """The steps of a task before and after the upscale itself."""

    def __init__(self, catalogue: Catalogue, upscaler: Upscaler, settings: Settings) -> None:
        """Begin with nothing to do.

        Args:
            catalogue: has the models.
            upscaler: runs them.
            settings: may have other prices than the catalogue.
        """
        self._catalogue = catalogue
        self._auxiliaries = upscaler.auxiliaries
        self._prices = settings.prices

    def price(self, request: UpscaleRequest, source: Size) -> int:
        """What the steps cost, in nanodollars.

        Args:
            request: what is to be done.
            source: the size of what is enlarged; noise is removed from that.
        """
        if request.denoiser is None:
            return 0
        return price(self._price_of(self._denoiser(request.denoiser)), source)

    async def before(
        self,
        picture: Picture,
        request: UpscaleRequest,
        account: str,
        on_start: Callable[[], None],
        on_progress: Progress,
    ) -> tuple[Picture, Progress]:
        """The picture that is to be enlarged, and what takes the progress of that.

        Args:
            picture: as it came.
            request: what is to be done.
            account: whose share of the devices it uses.
            on_start: called when a device takes the first tile; perhaps again.
            on_progress: called with the finished share of everything, from 0 to 1.

        Raises:
            EngineError: what a model could not do.
        """
        if request.denoiser is None:
            return picture, on_progress
        denoised = await self._auxiliaries.denoise(
            picture,
            self._denoiser(request.denoiser),
            request.denoiser.strength,
            seamless=request.seamless,
            account=account,
            on_start=on_start,
            on_progress=lambda share: on_progress(_DENOISING * share),
        )
        return denoised, lambda share: on_progress(_DENOISING + (1 - _DENOISING) * share)

    def _denoiser(self, denoiser: Denoiser) -> Auxiliary:
        return self._catalogue.auxiliary("denoiser", denoiser.model)

    def _price_of(self, auxiliary: Auxiliary) -> Decimal:
        return self._prices.get(auxiliary.name, auxiliary.price_per_megapixel)
