"""What a task wants of models that work beside the upscaler: checked, and done."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from msgspec import UNSET

from engines import Face, OnRegion, Picture, RestoredFace, Upscaler, within
from onnx_models import Auxiliary, AuxiliaryKind, Catalogue, UnknownModelError
from server.protocol.errors import invalid, unsupported
from server.protocol.requests import SafetyAction, Upscale
from server.state.requests import Denoiser, FaceRestorer
from server.upscale.safety import safety_of
from server.upscale.work import Work

__all__ = ["Beside", "Steps", "beside_of", "offered_beside"]


_DENOISING: Final = 0.15
_FACES: Final = 0.3
"""The shares of the progress that the steps beside the upscale are taken to have: a guess."""


class Beside(NamedTuple):
    """What a task wants beside the upscale.

    Attributes:
        denoiser: removes noise before.
        face_restorer: restores faces.
        safety: what becomes of what is not safe for work.
    """

    denoiser: Denoiser | None = None
    face_restorer: FaceRestorer | None = None
    safety: SafetyAction | None = None


def beside_of(task: Upscale, catalogue: Catalogue) -> Beside:
    """What a task wants of other models than the upscaler.

    Raises:
        ParameterError: if one is not installed, and the message names the command that fetches it; or the
            restorer of faces has no weight.
    """
    return Beside(_denoiser(task, catalogue), _face_restorer(task, catalogue), safety_of(task, catalogue))


def _denoiser(task: Upscale, catalogue: Catalogue) -> Denoiser | None:
    if task.denoise is None or task.denoise.strength == 0:
        return None
    model = _installed(catalogue, "denoiser", task.denoise.model, "denoise.model")
    return Denoiser(model=model.name, strength=task.denoise.strength)


def _face_restorer(task: Upscale, catalogue: Catalogue) -> FaceRestorer | None:
    wanted = task.face_restoration
    if wanted is None or wanted.visibility == 0:
        return None
    model = _installed(catalogue, "faceRestorer", wanted.model, "faceRestoration.model")
    _installed(catalogue, "faceDetector", None, "faceRestoration")
    if wanted.weight is not UNSET and "weight" not in model.parameters:
        raise unsupported("faceRestoration.weight", f"{model.name} takes no weight; CodeFormer does")
    return FaceRestorer(
        model=model.name,
        visibility=wanted.visibility,
        weight=None if wanted.weight is UNSET else wanted.weight,
        upscale_first=wanted.upscale_first,
    )


def offered_beside(catalogue: Catalogue) -> list[str]:
    """The parameters of a task that ask for a step beside the upscale, and can be honoured here."""
    kinds = {each.kind for each in catalogue.auxiliaries}
    needed = {"denoise": {"denoiser"}, "faceRestoration": {"faceDetector", "faceRestorer"}}
    return [name for name, models in needed.items() if models <= kinds]


def _installed(catalogue: Catalogue, kind: AuxiliaryKind, name: str | None, parameter: str) -> Auxiliary:
    try:
        return catalogue.auxiliary(kind, name)
    except UnknownModelError as error:
        raise invalid(parameter, str(error)) from error


class Steps:
    """The steps of one task: `before` the upscale, and `after` it.

    Attributes:
        on_start: called when a device takes the first tile; perhaps again.
        on_progress: takes the progress of the upscale itself.
    """

    def __init__(
        self, catalogue: Catalogue, upscaler: Upscaler, work: Work, on_start: Callable[[], None]
    ) -> None:
        """Prepare the steps that a task wants; others do nothing.

        Args:
            catalogue: has the models.
            upscaler: runs them.
            work: what is to be done, and who learns how much of everything is finished.
            on_start: called when a device takes the first tile; perhaps again.
        """
        self._catalogue = catalogue
        self._auxiliaries = upscaler.auxiliaries
        self._request = request = work.request
        self._account = work.account
        self.on_start = on_start
        before = 0.0 if request.denoiser is None else _DENOISING
        faces = 0.0 if request.face_restorer is None else _FACES
        first = (
            faces if request.face_restorer is not None and not request.face_restorer.upscale_first else 0.0
        )
        self._denoising = within(work.on_progress, 0.0, before)
        self.on_progress = within(work.on_progress, before + first, 1 - faces + first)
        restoring = (before, before + first) if first else (1 - faces, 1.0)
        self._restoring = within(work.on_progress, *restoring)
        self._source: Picture
        self._faces: Sequence[Face] = ()
        self._restored: Sequence[RestoredFace] = ()

    async def before(self, picture: Picture) -> Picture:
        """The picture that is to be enlarged: without noise. Its faces are found, and maybe restored.

        Raises:
            EngineError: what a model could not do.
        """
        if (denoiser := self._request.denoiser) is not None:
            picture = await self._auxiliaries.denoise(
                picture,
                self._catalogue.auxiliary("denoiser", denoiser.model),
                denoiser.strength,
                seamless=self._request.seamless,
                account=self._account,
                on_start=self.on_start,
                on_progress=self._denoising,
            )
        self._source = picture
        if (restorer := self._request.face_restorer) is not None:
            self._faces = await self._auxiliaries.find_faces(
                picture,
                self._catalogue.auxiliary("faceDetector"),
                account=self._account,
                on_start=self.on_start,
            )
            if not restorer.upscale_first:
                self._restored = await self._restore(picture, restorer)
        return picture

    async def after(self, picture: Picture, on_region: OnRegion | None) -> Picture:
        """The finished picture: with restored faces.

        Args:
            picture: as it was enlarged; its pixels may be changed.
            on_region: called with each part of it that has changed.

        Raises:
            EngineError: what a model could not do.
        """
        restorer, cut_from = self._request.face_restorer, self._source
        if restorer is None or not self._faces:
            return picture
        if restorer.upscale_first:
            cut_from = picture
            self._restored = await self._restore(picture, restorer)
        return await self._auxiliaries.blend_faces(
            picture,
            self._restored,
            cut_from=cut_from,
            visibility=restorer.visibility,
            on_region=on_region,
        )

    async def _restore(self, picture: Picture, restorer: FaceRestorer) -> Sequence[RestoredFace]:
        if not self._faces:
            return ()
        return await self._auxiliaries.restore_faces(
            picture,
            self._faces,
            self._catalogue.auxiliary("faceRestorer", restorer.model),
            found_in=(self._source.width, self._source.height),
            weight=restorer.weight,
            account=self._account,
            on_start=self.on_start,
            on_progress=self._restoring,
        )
