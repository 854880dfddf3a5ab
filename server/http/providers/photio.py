"""Photio's `/v1/inference/upscale`: by the default model, or with diffusion where a prompt asks for it."""

import base64
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.http.providers.bodies import read_json
from server.http.providers.caller import Caller, status_of
from server.http.providers.diffusion import Quality, diffusion_model, diffusion_settings
from server.http.providers.routes import Fallback, ServiceRoute
from server.protocol.errors import ErrorItem

__all__ = ["FALLBACKS", "ROUTES"]

_NAMES: Final = {
    "inputImage": "image",
    "upscaleFactor": "upscale_by",
    "settings.positivePrompt": "prompt",
    "settings.negativePrompt": "negative_prompt",
    "settings.strength": "denoising_strength",
}


_USUAL: Final[dict[str, str | float]] = {
    "prompt": "",
    "negative_prompt": "worst quality, low quality, illustration, 3d, 2d, painting, cartoons, sketch",
    "denoising_strength": 0.2,
    "quality": "LOW",
}
"""Photio's own defaults, which ask for nothing; with diffusion its negative prompt is used where none is."""


class Upscale(Struct, frozen=True, kw_only=True):
    """The body; null is as not given."""

    image: Annotated[str, Meta(min_length=1)]
    upscale_by: Literal[2, 4] | None = 2
    prompt: str | None = ""
    negative_prompt: str | None = None
    quality: Quality | None = None
    denoising_strength: Annotated[float, Meta(ge=0, le=1)] | None = None


async def upscale(request: Request, caller: Caller) -> Response:
    """Upscale one image."""
    body = await read_json(request, Upscale)
    result = await caller.upscale(
        inputImage=body.image,
        upscaleFactor=body.upscale_by or 2,
        outputType="base64Data",
        outputFormat="PNG",
        **_how(body, caller),
    )
    assert result.image_base64_data is not UNSET
    return JSONResponse({"status_code": 200, "body": base64.b64encode(result.image_base64_data).decode()})


def _how(body: Upscale, caller: Caller) -> dict[str, Any]:
    """Diffusion for what only diffusion can do, a GAN for everything else."""
    wanted = {name: getattr(body, name) for name in _USUAL if getattr(body, name) not in (None, "")}
    asked = [name for name, value in wanted.items() if value != _USUAL[name]]
    if not asked:
        return {}
    model = diffusion_model(caller.services.catalogue, asked[0])
    # By Photio's page a likeness of 1 is the most similar; its default is the model's own strength.
    likeness = body.denoising_strength if "denoising_strength" in asked else None
    settings = {
        "positivePrompt": wanted.get("prompt"),
        "negativePrompt": wanted.get("negative_prompt", _USUAL["negative_prompt"]),
        "strength": None if likeness is None else max(0.05, 1 - likeness),
    }
    return {"model": model.name, "settings": diffusion_settings(model, settings, body.quality or "LOW")}


def fail(item: ErrorItem) -> Response:
    """An error in the envelope of a result."""
    status = status_of(item)
    return JSONResponse({"status_code": status, "body": item.message}, status)


ROUTES: Final = [
    ServiceRoute("/v1/inference/upscale", "POST", upscale, fail, _NAMES, body=Upscale),
]

FALLBACKS: Final = [Fallback("/v1/inference", "photio", fail)]
