"""The names that other services have for upscalers."""

from collections.abc import Mapping
from typing import Final

from onnx_models import Catalogue, Model, UnknownModelError

__all__ = ["UPSCALERS", "model_called", "upscalers"]

UPSCALERS: Final[Mapping[str, str]] = {
    "R-ESRGAN 4x+": "realesrgan-x4plus",
    "R-ESRGAN 4x+ Anime6B": "realesrgan-x4plus-anime",
    "R-ESRGAN AnimeVideo": "realesr-animevideov3",
    "R-ESRGAN General 4xV3": "realesr-general-x4v3",
    "ESRGAN_4x": "realesrgan-x4plus",
    "SwinIR 4x": "swinir-x4",
    "SwinIR_4x": "swinir-x4",
    "RealESRGAN_x4plus": "realesrgan-x4plus",
    "RealESRGAN_x4plus_anime_6B": "realesrgan-x4plus-anime",
    "esrgan-v1-x2plus": "realesrgan-x4plus",
}
"""What A1111's, Novita's and Stability's clients ask for, and the model of the catalogue that does it."""


def model_called(catalogue: Catalogue, name: str) -> Model | None:
    """The model that another service calls so, or that the catalogue does; None if it is not installed."""
    try:
        return catalogue.get(UPSCALERS.get(name, name))
    except UnknownModelError:
        return None


def upscalers(catalogue: Catalogue) -> list[tuple[str, Model]]:
    """What is offered, under the name that users of A1111 know, where there is one."""
    known = {model: name for name, model in reversed(list(UPSCALERS.items()))}
    return [(known.get(model.name, model.name), model) for model in catalogue]
