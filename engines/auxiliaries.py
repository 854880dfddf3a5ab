"""What models do that work beside an upscaler: before it, or after it."""

from collections.abc import Callable
from dataclasses import replace

from engines.codecs.picture import Picture
from engines.denoiser import Denoiser
from engines.ensemble import Seamless, wraps_of
from engines.loading import LoadedModels
from engines.progress import Progress, rising
from engines.safety import SafetyChecker
from engines.scheduling.executor import Executor
from engines.threads import Threads
from engines.tiling.tiles import continued, without
from onnx_models import Auxiliary

__all__ = ["Auxiliaries"]


class Auxiliaries:
    """Steps around an upscale, on the same devices; each loads its network on first use."""

    def __init__(self, executor: Executor, models: LoadedModels, pixels: Threads, resampler: Threads) -> None:
        """Begin with nothing to do.

        Args:
            executor: runs networks.
            models: loads them.
            pixels: threads for the work beside the devices.
            resampler: as of `TileJob`.
        """
        self._models = models
        self._denoiser = Denoiser(executor, pixels, resampler)
        self._safety = SafetyChecker(executor, pixels)

    async def denoise(
        self,
        picture: Picture,
        denoiser: Auxiliary,
        strength: float,
        *,
        seamless: Seamless | None = None,
        account: str = "",
        on_start: Callable[[], None] | None = None,
        on_progress: Progress | None = None,
    ) -> Picture:
        """The picture with less noise; its alpha stays as it is. Cancelling the call frees what has not run.

        Args:
            picture: what is to be cleaned.
            denoiser: the model.
            strength: the standard deviation of the noise that is to go, in levels of 255.
            seamless: where the picture goes on at its opposite edge.
            account: whose share of the devices it uses.
            on_start: called on the event loop when a device takes the first tile; again if the picture is
                begun again with smaller ones.
            on_progress: called on the event loop with the finished share, from 0 to 1.

        Raises:
            ModelError: if the model cannot be loaded or run.
        """
        part = await self._models.part(denoiser)
        wraps, margin = wraps_of(seamless), self._denoiser.reach
        pixels = await self._denoiser.denoise(
            continued(picture.pixels, wraps, margin),
            part,
            strength,
            account=account,
            on_start=on_start,
            on_progress=rising(on_progress or (lambda _share: None)),
        )
        return replace(picture, pixels=without(pixels, wraps, margin) if any(wraps) else pixels)

    async def nsfw_score(self, picture: Picture, checker: Auxiliary, *, account: str = "") -> float:
        """How probable it is that a picture is not safe for work, from 0 to 1.

        Args:
            picture: to look at.
            checker: the model.
            account: whose share of the devices it uses.

        Raises:
            ModelError: if the model cannot be loaded or run.
        """
        part = await self._models.part(checker)
        return await self._safety.score(picture, part, account=account)
