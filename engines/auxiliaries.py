"""What models do that work beside an upscaler: before it, or after it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from engines.codecs.picture import Picture
from engines.denoiser import Denoiser
from engines.ensemble import Seamless, wraps_of
from engines.faces.blending import RestoredFace
from engines.faces.detection import Face
from engines.faces.restoring import Faces
from engines.loading import LoadedModels
from engines.progress import Progress, rising
from engines.safety import SafetyChecker
from engines.scheduling.executor import Executor
from engines.threads import Threads
from engines.tiling.regions import OnRegion, Region
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
        self._faces = Faces(executor, pixels)
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
            on_progress=rising(on_progress),
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

    async def find_faces(
        self,
        picture: Picture,
        detector: Auxiliary,
        *,
        account: str = "",
        on_start: Callable[[], None] | None = None,
    ) -> list[Face]:
        """The faces of a picture that are worth restoring, the largest first; 64 at most.

        Args:
            picture: to look at.
            detector: the model.
            account: whose share of the devices it uses.
            on_start: called on the event loop when a device takes it; perhaps twice.

        Raises:
            ModelError: if the model cannot be loaded or run.
        """
        part = await self._models.part(detector)
        return await self._faces.find(picture, part, account=account, on_start=on_start)

    async def restore_faces(
        self,
        picture: Picture,
        faces: Sequence[Face],
        restorer: Auxiliary,
        *,
        found_in: tuple[int, int],
        weight: float | None = None,
        account: str = "",
        on_start: Callable[[], None] | None = None,
        on_progress: Progress | None = None,
    ) -> list[RestoredFace]:
        """What a restorer makes of the faces of a picture. Cancelling the call frees what has not run.

        Args:
            picture: the faces are cut from it.
            faces: where they are.
            restorer: the model.
            found_in: width and height of the picture that the faces were found in.
            weight: how near a face stays to what is seen, from 0 to 1; of models that take it.
            account: whose share of the devices it uses.
            on_start: called on the event loop when a device takes the first.
            on_progress: called on the event loop with the finished share, from 0 to 1.

        Raises:
            ModelError: if the model cannot be loaded or run.
        """
        part = await self._models.part(restorer)
        if "weight" in restorer.parameters and weight is None:
            weight = _DEFAULT_WEIGHT
        return await self._faces.restore(
            picture,
            faces,
            part,
            size=found_in,
            weight=weight,
            account=account,
            on_start=on_start,
            on_progress=on_progress,
        )

    async def blend_faces(
        self,
        picture: Picture,
        faces: Sequence[RestoredFace],
        *,
        cut_from: Picture,
        visibility: float = 1.0,
        on_region: OnRegion | None = None,
    ) -> Picture:
        """The picture with restored faces in it, at its own resolution.

        Args:
            picture: what they go into; its pixels are changed in place where that can be.
            faces: as `restore_faces` gave them.
            cut_from: what they were cut from; the same picture, of this or another size.
            visibility: how much of them is to be seen, from 0 to 1.
            on_region: called with each part of the picture that has changed.
        """
        pixels, areas = await self._faces.blend(
            picture.pixels, faces, visibility, size=(cut_from.width, cut_from.height)
        )
        blended = replace(picture, pixels=pixels)
        if on_region is None:
            return blended
        for area in areas:
            rows, columns = slice(area.top, area.bottom), slice(area.left, area.right)
            on_region(
                Region(
                    area=area,
                    width=picture.width,
                    height=picture.height,
                    source=picture,
                    colours=pixels[rows, columns],
                    alpha=None if picture.alpha is None else picture.alpha[rows, columns],
                )
            )
        return blended


_DEFAULT_WEIGHT = 0.5
"""That of CodeFormer's own program."""
