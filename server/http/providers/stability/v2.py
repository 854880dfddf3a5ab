"""Version 2, as v2beta and v2alpha have it: `fast`, `conservative` and `creative`."""

import base64
import hashlib
import math
import uuid
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from onnx_models import LARGEST_FACTOR
from server.http.providers.bodies import read_form
from server.http.providers.caller import Caller, not_offered, wrong
from server.http.providers.diffusion import diffusion_model, diffusion_settings
from server.http.providers.routes import Fallback, ServiceRoute
from server.http.providers.stability.forms import (
    data_of,
    finish_reason,
    image_of,
    named,
    number_of,
    seed_of,
    text_of,
)
from server.protocol.errors import ErrorItem, NotFoundError
from server.protocol.replies import Progress, UpscaleResult

__all__ = ["FALLBACKS", "ROUTES"]

_NAMES: Final = {
    "inputImage": "image",
    "upscaleFactor": "image",  # the client does not say how large the result is to be
    "settings.positivePrompt": "prompt",
    "settings.negativePrompt": "negative_prompt",
    "settings.seed": "seed",
    "settings.strength": "creativity",
    "settings.style": "style_preset",
}
_FORMATS: Final = {"png": "PNG", "jpeg": "JPG", "webp": "WEBP"}
_4K: Final = 3840 * 2160 / 1e6
_FAST_FORM: Final = {"image": "The file.", "output_format": "png (default), jpeg or webp."}
_PROMPT_FORM: Final = _FAST_FORM | {
    "prompt": "What is to be seen.",
    "negative_prompt": "What is not.",
    "seed": "0, the default, is random.",
    "creativity": "How far from the image: 0.2 to 0.5; for creative from 0.1.",
}
_CREATIVE_FORM: Final = _PROMPT_FORM | {"style_preset": "One that a creative upscaler has a style for."}
_BETA: Final = "/v2beta/stable-image/upscale"
_ALPHA: Final = "/v2alpha/generation/stable-image/upscale"


async def fast(request: Request, caller: Caller) -> Response:
    """`POST /v2beta/stable-image/upscale/fast`: four times as large."""
    form = await read_form(request)
    result = await caller.upscale(
        inputImage=image_of(form), upscaleFactor=4, outputType="base64Data", outputFormat=_format(form)
    )
    return _response(request, result, "image", _format(form))


async def conservative(request: Request, caller: Caller) -> Response:
    """`POST /v2beta/stable-image/upscale/conservative`: to four megapixels, guided by a prompt."""
    form = await read_form(request)
    task = await _diffusion(form, caller, default=0.35, lowest=0.2, megapixels=4)
    result = await caller.upscale(outputType="base64Data", outputFormat=_format(form), **task)
    return _response(request, result, "image", _format(form))


async def creative(request: Request, caller: Caller) -> Response:
    """`POST /v2beta/stable-image/upscale/creative`: to 4K with more freedom, to be asked for later."""
    form = await read_form(request)
    task = await _diffusion(form, caller, default=0.3, lowest=0.1, megapixels=_4K)
    if style := text_of(form, "style_preset"):
        task["settings"]["style"] = _style(style)
    task_uuid = await caller.accept(outputType="base64Data", outputFormat=_format(form), **task)
    return JSONResponse({"id": _public_id(task_uuid)})


async def result(request: Request, caller: Caller) -> Response:
    """What became of a `creative` upscale."""
    given = request.path_params["id"]
    task_uuid = _task_uuid(given)
    await caller.linger(task_uuid)
    item = await caller.response(task_uuid)
    if isinstance(item, Progress):
        return JSONResponse({"id": given, "status": "in-progress"}, 202)
    return _response(request, item, "result", None)


async def _diffusion(
    form: Mapping[str, bytes], caller: Caller, *, default: float, lowest: float, megapixels: float
) -> dict[str, Any]:
    """The task of an upscale by prompt; to so many megapixels where the model makes any size."""
    image = image_of(form)
    prompt = text_of(form, "prompt")
    if not prompt:
        raise wrong("prompt", "prompt: is required")
    creativity = number_of(form, "creativity", float, lowest, 0.5, default)
    model = diffusion_model(caller.services.catalogue, "prompt")
    settings = {
        "positivePrompt": prompt,
        "negativePrompt": text_of(form, "negative_prompt") or None,
        "strength": creativity,
        "seed": number_of(form, "seed", int, 0, 2**32 - 2, 0) or None,
    }
    task = {"inputImage": image, "model": model.name, "settings": diffusion_settings(model, settings)}
    if model.creative is None:
        return task
    width, height = await caller.size_of(image)
    factor = math.sqrt(megapixels * 1e6 / (width * height))
    return task | {"upscaleFactor": min(max(factor, 1), LARGEST_FACTOR)}


_STYLES: Final = {
    "3d-model": "3d-rendered",
    "analog-film": "analog-film",
    "anime": "anime",
    "cinematic": "cinematic",
    "comic-book": "comic",
    "digital-art": "digital-art",
    "enhance": "standard",
    "fantasy-art": "fantasy-art",
    "line-art": "line-art",
    "low-poly": "low-poly",
    "photographic": "photography",
    "pixel-art": "pixel-art",
    "tile-texture": "texture",
}
"""Stability's presets, and the styles of creative upscalers."""


def _style(preset: str) -> str:
    if preset not in _STYLES:
        raise not_offered(
            "style_preset", f"style_preset: offered are {', '.join(_STYLES)}; describe others in the prompt"
        )
    return _STYLES[preset]


def _response(request: Request, item: UpscaleResult, key: str, wanted: str | None) -> Response:
    """A result as `Accept` asks for it: bytes, or JSON."""
    data, seed = data_of(item), seed_of(item)
    if request.headers.get("accept", "").startswith("application/json"):
        reason = finish_reason(item)
        return JSONResponse({key: base64.b64encode(data).decode(), "finish_reason": reason, "seed": seed})
    headers = {"finish-reason": finish_reason(item), "seed": str(seed), "x-request-id": item.task_uuid}
    return Response(data, headers=headers, media_type=_media_type(data, wanted))


def _media_type(data: bytes, wanted: str | None) -> str:
    if wanted is not None:
        return {"PNG": "image/png", "JPG": "image/jpeg", "WEBP": "image/webp"}[wanted]
    return "image/png" if data[:4] == b"\x89PNG" else "image/webp" if data[:4] == b"RIFF" else "image/jpeg"


def _format(form: Mapping[str, bytes]) -> str:
    name = text_of(form, "output_format") or "png"
    if name not in _FORMATS:
        raise wrong("output_format", f"output_format: must be one of {', '.join(_FORMATS)}")
    return _FORMATS[name]


def _public_id(task_uuid: str) -> str:
    """64 hexadecimal digits, as Stability's ids have: the UUID, and what shows that it was made here."""
    identity = uuid.UUID(task_uuid)
    return identity.hex + hashlib.blake2b(identity.bytes, digest_size=16).hexdigest()


def _task_uuid(public_id: str) -> str:
    """The UUID in an id.

    Raises:
        NotFoundError: if it was not made by `_public_id`.
    """
    try:
        task_uuid = str(uuid.UUID(public_id[:32]))
    except ValueError:
        task_uuid = ""
    if not task_uuid or _public_id(task_uuid) != public_id:
        raise NotFoundError("taskNotFound", f"id: there is no generation {public_id[:64]}", "id")
    return task_uuid


def fail(item: ErrorItem) -> Response:
    """An error of v2beta: a name and a list of messages."""
    name, status = named(item)
    return JSONResponse({"id": uuid.uuid4().hex, "name": name, "errors": [item.message]}, status)


ROUTES: Final = [
    ServiceRoute(path, method, handle, fail, _NAMES, form=form)
    for path, method, handle, form in (
        (f"{_BETA}/fast", "POST", fast, _FAST_FORM),
        (f"{_BETA}/conservative", "POST", conservative, _PROMPT_FORM),
        (f"{_BETA}/creative", "POST", creative, _CREATIVE_FORM),
        (f"{_BETA}/creative/result/{{id}}", "GET", result, None),
        ("/v2beta/results/{id}", "GET", result, None),
        (_ALPHA, "POST", creative, _CREATIVE_FORM),
        (f"{_ALPHA}/result/{{id}}", "GET", result, None),
    )
]

FALLBACKS: Final = [Fallback(path, "stability", fail) for path in ("/v2beta", "/v2alpha")]
