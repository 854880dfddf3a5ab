"""Face restoration as A1111 and Novita ask for it: by GFPGAN or CodeFormer, each with its own visibility."""

from typing import Any, Final, Protocol

from onnx_models import Auxiliary, Catalogue, UnknownModelError
from server.http.providers.caller import not_offered

__all__ = ["WantsFaces", "face_restoration", "face_restorers"]

_MODELS: Final = {"gfpgan_visibility": "gfpgan-1.4", "codeformer_visibility": "codeformer"}
"""The parameter that asks for a restorer, and what is fetched for it; any other of that kind will do."""


class WantsFaces(Protocol):
    """The fields of a request that are about faces; None is as 0."""

    @property
    def gfpgan_visibility(self) -> float | None:
        """How much of GFPGAN's faces is to be seen."""

    @property
    def codeformer_visibility(self) -> float | None:
        """How much of CodeFormer's faces is to be seen."""

    @property
    def codeformer_weight(self) -> float | None:
        """How like the input those are."""


def face_restoration(
    wanted: WantsFaces, catalogue: Catalogue, *, upscale_first: bool = False
) -> dict[str, Any] | None:
    """The `faceRestoration` of a task; None if no faces are to be restored.

    Args:
        wanted: the request.
        catalogue: what is installed.
        upscale_first: the order.

    Raises:
        ParameterError: if the restorer is not installed, or both are wanted.
    """
    asked = [name for name in _MODELS if getattr(wanted, name)]
    if not asked:
        return None
    if len(asked) > 1:
        raise not_offered(asked[1], f"faces are restored once: give {asked[0]} or {asked[1]}, not both")
    (name,) = asked
    restorer = _restorer(catalogue, name)
    restoration = {"model": restorer.name, "visibility": getattr(wanted, name), "upscaleFirst": upscale_first}
    if name == "codeformer_visibility" and "weight" in restorer.parameters:
        restoration["weight"] = wanted.codeformer_weight or 0
    return restoration


def face_restorers(catalogue: Catalogue) -> list[Auxiliary]:
    """Those that are installed."""
    return [each for each in catalogue.auxiliaries if each.kind == "faceRestorer"]


def _restorer(catalogue: Catalogue, parameter: str) -> Auxiliary:
    published = _MODELS[parameter]
    family = published.partition("-")[0]
    for restorer in face_restorers(catalogue):
        if restorer.name.startswith(family):
            return restorer
    try:
        return catalogue.auxiliary("faceRestorer", published)
    except UnknownModelError as error:
        raise not_offered(parameter, f"{parameter}: {error}") from error
