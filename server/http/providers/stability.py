"""Stability's upscaling: v1 with its engines and account, v2beta and v2alpha with `stable-image/upscale`.

Differences: images may be larger than Stability allows, as far as this server's limits go; `fast` ignores a
prompt, as Stability does. `conservative` and `creative` need a diffusion upscaler that takes prompts.

Source: Stability's OpenAPI documents of v1 and v2beta.
"""

import base64
import hashlib
import math
import uuid
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from onnx_models import LARGEST_FACTOR
from server.http.providers.bodies import read_form
from server.http.providers.caller import Caller, not_offered, status_of, wrong
from server.http.providers.diffusion import diffusion_model, diffusion_settings
from server.http.providers.routes import Fallback, ServiceRoute
from server.http.providers.upscalers import model_called
from server.protocol.errors import ErrorItem, NotFoundError
from server.protocol.replies import Progress, UpscaleResult

__all__ = ["FALLBACKS", "ROUTES"]

T = TypeVar("T", int, float)

_NAMES: Final = {
    "inputImage": "image",
    "upscaleFactor": "width",
    "settings.positivePrompt": "prompt",
    "settings.negativePrompt": "negative_prompt",
    "settings.CFGScale": "cfg_scale",
    "settings.steps": "steps",
    "settings.seed": "seed",
    "settings.strength": "creativity",
    "settings.style": "style_preset",
}
_V2_NAMES: Final = _NAMES | {"upscaleFactor": "image"}
"""There the client does not say how large the result is to be."""
_FORMATS: Final = {"png": "PNG", "jpeg": "JPG", "webp": "WEBP"}
_ENGINES: Final = {
    "esrgan-v1-x2plus": "Real-ESRGAN",
    "stable-diffusion-x4-latent-upscaler": "Stable Diffusion x4 latent upscaler",
}
_LATENT: Final = "stable-diffusion-x4-latent-upscaler"
_LATENT_MODEL: Final = "stable-diffusion-x4-upscaler"
_UNLIMITED: Final = 1e9
_4K: Final = 3840 * 2160 / 1e6
_CREDITS: Final = 100
"""Of Stability's, in a US dollar."""


async def upscale_v1(request: Request, caller: Caller) -> Response:
    """`POST /v1/generation/{engine}/image-to-image/upscale`."""
    engine = request.path_params["engine"]
    form = await read_form(request)
    if engine not in _ENGINES:
        raise NotFoundError(
            "modelNotFound", f"The specified engine (ID {engine}) was not found.", "engine_id"
        )
    if "width" in form and "height" in form:
        raise wrong("width", "only one of width and height may be given")
    size: dict[str, Any] = {
        name: _number(form, name, int, 512, 16_384) for name in ("width", "height") if name in form
    }
    result = await caller.upscale(
        inputImage=_image(form),
        outputType="base64Data",
        outputFormat="PNG",
        **(size or {"upscaleFactor": 2}),
        **_engine(engine, form, caller),
    )
    data, seed = _data(result), _seed(result)
    if request.headers.get("accept", "").startswith("image/png"):
        headers = {"finish-reason": _finish_reason(result), "seed": str(seed)}
        return Response(data, headers=headers, media_type="image/png")
    artifact = {
        "base64": base64.b64encode(data).decode(),
        "seed": seed,
        "finishReason": _finish_reason(result),
    }
    return JSONResponse({"artifacts": [artifact]})


def _engine(engine: str, form: Mapping[str, bytes], caller: Caller) -> dict[str, Any]:
    """The model of an engine, and its settings."""
    if engine != _LATENT:
        model = model_called(caller.services.catalogue, engine)
        return {"model": model.name if model is not None else None}
    model = model_called(caller.services.catalogue, _LATENT_MODEL)
    if model is None:
        raise not_offered(
            "engine_id",
            f"{engine} is not installed; `tilewire models export DIRECTORY` makes it of its weights",
        )
    settings: dict[str, Any] = {"steps": _number(form, "steps", int, 10, 150, 50)}
    settings["CFGScale"] = _number(form, "cfg_scale", float, 0, 35, 7)
    if seed := _number(form, "seed", int, 0, 2**32 - 1, 0):
        settings["seed"] = seed
    for sign, name in ((1, "positivePrompt"), (-1, "negativePrompt")):
        if texts := [text for text, weight in _prompts(form) if weight * sign > 0]:
            settings[name] = ", ".join(texts)
    return {"model": model.name, "settings": settings}


def _prompts(form: Mapping[str, bytes]) -> list[tuple[str, float]]:
    """The texts and weights of `text_prompts[i][…]`; indices need not be in sequence."""
    found = []
    for name in form:
        if name.startswith("text_prompts[") and name.endswith("][text]"):
            weight = name.removesuffix("[text]") + "[weight]"
            found.append((_text(form, name), _number(form, weight, float, -10, 10, 1)))
    return found


async def list_engines(_request: Request, caller: Caller) -> Response:
    """The engines that are installed."""
    catalogue = caller.services.catalogue
    installed = {
        engine: model_called(catalogue, _LATENT_MODEL if engine == _LATENT else engine) for engine in _ENGINES
    }
    return JSONResponse(
        [
            {"id": engine, "name": _ENGINES[engine], "description": model.description, "type": "PICTURE"}
            for engine, model in installed.items()
            if model is not None
        ]
    )


async def account(_request: Request, caller: Caller) -> Response:
    """Who the key belongs to."""
    caller.check_account()
    name = str(caller.account)
    organization = {"id": f"org-{name}", "name": name, "role": "MEMBER", "is_default": True}
    return JSONResponse({"id": f"user-{name}", "email": f"{name}@localhost", "organizations": [organization]})


async def balance(_request: Request, caller: Caller) -> Response:
    """What the account has left, in credits of a hundredth of a dollar."""
    usd = await caller.available()
    return JSONResponse({"credits": _UNLIMITED if usd is None else float(usd * _CREDITS)})


async def fast(request: Request, caller: Caller) -> Response:
    """`POST /v2beta/stable-image/upscale/fast`: four times as large."""
    form = await read_form(request)
    result = await caller.upscale(
        inputImage=_image(form), upscaleFactor=4, outputType="base64Data", outputFormat=_format(form)
    )
    return _v2_result(request, result, "image", _format(form))


async def conservative(request: Request, caller: Caller) -> Response:
    """`POST /v2beta/stable-image/upscale/conservative`: to four megapixels, guided by a prompt."""
    form = await read_form(request)
    task = await _diffusion(form, caller, default=0.35, lowest=0.2, megapixels=4)
    result = await caller.upscale(outputType="base64Data", outputFormat=_format(form), **task)
    return _v2_result(request, result, "image", _format(form))


async def creative(request: Request, caller: Caller) -> Response:
    """`POST /v2beta/stable-image/upscale/creative`: to 4K with more freedom, to be asked for later."""
    form = await read_form(request)
    task = await _diffusion(form, caller, default=0.3, lowest=0.1, megapixels=_4K)
    if style := _text(form, "style_preset"):
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
    return _v2_result(request, item, "result", None)


async def _diffusion(
    form: Mapping[str, bytes], caller: Caller, *, default: float, lowest: float, megapixels: float
) -> dict[str, Any]:
    """The task of an upscale by prompt; to so many megapixels where the model makes any size."""
    image = _image(form)
    prompt = _text(form, "prompt")
    if not prompt:
        raise wrong("prompt", "prompt: is required")
    creativity = _number(form, "creativity", float, lowest, 0.5, default)
    model = diffusion_model(caller.services.catalogue, "prompt")
    settings = {
        "positivePrompt": prompt,
        "negativePrompt": _text(form, "negative_prompt") or None,
        "strength": creativity,
        "seed": _number(form, "seed", int, 0, 2**32 - 2, 0) or None,
    }
    task = {"model": model.name, "settings": diffusion_settings(model, settings)}
    if model.creative is None:
        return task | {"inputImage": image}
    kept = await caller.keep(image)
    factor = math.sqrt(megapixels * 1e6 / (kept.width * kept.height))
    return task | {"inputImage": kept.uuid, "upscaleFactor": min(max(factor, 1), LARGEST_FACTOR)}


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


def _v2_result(request: Request, item: UpscaleResult, key: str, wanted: str | None) -> Response:
    """A result as `Accept` asks for it: bytes, or JSON."""
    data, seed = _data(item), _seed(item)
    if request.headers.get("accept", "").startswith("application/json"):
        reason = _finish_reason(item)
        return JSONResponse({key: base64.b64encode(data).decode(), "finish_reason": reason, "seed": seed})
    headers = {"finish-reason": _finish_reason(item), "seed": str(seed), "x-request-id": item.task_uuid}
    return Response(data, headers=headers, media_type=_media_type(data, wanted))


def _media_type(data: bytes, wanted: str | None) -> str:
    if wanted is not None:
        return {"PNG": "image/png", "JPG": "image/jpeg", "WEBP": "image/webp"}[wanted]
    return "image/png" if data[:4] == b"\x89PNG" else "image/webp" if data[:4] == b"RIFF" else "image/jpeg"


def _image(form: Mapping[str, bytes]) -> bytes:
    if not form.get("image"):
        raise wrong("image", "image: is required")
    return form["image"]


def _format(form: Mapping[str, bytes]) -> str:
    name = _text(form, "output_format") or "png"
    if name not in _FORMATS:
        raise wrong("output_format", f"output_format: must be one of {', '.join(_FORMATS)}")
    return _FORMATS[name]


def _text(form: Mapping[str, bytes], name: str) -> str:
    try:
        return form.get(name, b"").decode().strip()
    except UnicodeDecodeError as error:
        raise wrong(name, f"{name}: must be UTF-8") from error


def _number(
    form: Mapping[str, bytes], name: str, kind: type[T], least: float, most: float, default: T | None = None
) -> T:
    text = _text(form, name)
    if not text and default is not None:
        return default
    try:
        value: T = msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise wrong(name, f"{name}: must be a number") from error
    if not least <= value <= most:
        raise wrong(name, f"{name}: must be from {least:g} to {most:g}")
    return value


def _finish_reason(item: UpscaleResult) -> str:
    """Stability says so where its filter has found something; here the image is not blurred."""
    return "CONTENT_FILTERED" if item.nsfw_content is True else "SUCCESS"


def _data(item: UpscaleResult) -> bytes:
    assert item.image_base64_data is not UNSET
    return item.image_base64_data


def _seed(item: UpscaleResult) -> int:
    return 0 if item.seed is UNSET else item.seed


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


def fail_v1(item: ErrorItem) -> Response:
    """An error of v1: a name and a message."""
    name, status = _named(item)
    return JSONResponse({"id": uuid.uuid4().hex, "name": name, "message": item.message}, status)


def fail_v2(item: ErrorItem) -> Response:
    """An error of v2beta: a name and a list of messages."""
    name, status = _named(item)
    return JSONResponse({"id": uuid.uuid4().hex, "name": name, "errors": [item.message]}, status)


def _named(item: ErrorItem) -> tuple[str, int]:
    """What an error is called, and its status."""
    if item.code == "nsfwContentDetected":
        return "content_moderation", 403
    status = status_of(item)
    name = {
        401: "unauthorized",
        402: "insufficient_balance",
        403: "permission_denied",
        404: "not_found",
        409: "cancelled",
        413: "payload_too_large",
        429: "rate_limit_exceeded",
        500: "internal_error",
        503: "service_unavailable",
        504: "timeout",
    }.get(status, "bad_request")
    return name, status


_V1_FORM: Final = {
    "image": "The file.",
    "width": "Of the result; or `height`. Default: twice the image.",
    "height": "Of the result.",
    "text_prompts[i][text]": "Latent engine only; with a negative weight it is a negative prompt.",
    "text_prompts[i][weight]": "Default: 1.",
    "cfg_scale": "Latent engine only: 0 to 35, default 7.",
    "seed": "Latent engine only.",
    "steps": "Latent engine only: 10 to 150, default 50.",
}
_FAST_FORM: Final = {"image": "The file.", "output_format": "png (default), jpeg or webp."}
_PROMPT_FORM: Final = _FAST_FORM | {
    "prompt": "What is to be seen.",
    "negative_prompt": "What is not.",
    "seed": "0, the default, is random.",
    "creativity": "How far from the image: 0.2 to 0.5; for creative from 0.1.",
}
_V2: Final = "/v2beta/stable-image/upscale"
_V2ALPHA: Final = "/v2alpha/generation/stable-image/upscale"

ROUTES: Final = [
    ServiceRoute(
        "/v1/generation/{engine}/image-to-image/upscale", "POST", upscale_v1, fail_v1, _NAMES, form=_V1_FORM
    ),
    ServiceRoute("/v1/engines/list", "GET", list_engines, fail_v1),
    ServiceRoute("/v1/user/account", "GET", account, fail_v1),
    ServiceRoute("/v1/user/balance", "GET", balance, fail_v1),
    *(
        ServiceRoute(path, method, handle, fail_v2, _V2_NAMES, form=form)
        for path, method, handle, form in (
            (f"{_V2}/fast", "POST", fast, _FAST_FORM),
            (f"{_V2}/conservative", "POST", conservative, _PROMPT_FORM),
            (f"{_V2}/creative", "POST", creative, _PROMPT_FORM),
            (f"{_V2}/creative/result/{{id}}", "GET", result, None),
            ("/v2beta/results/{id}", "GET", result, None),
            (_V2ALPHA, "POST", creative, _PROMPT_FORM),
            (f"{_V2ALPHA}/result/{{id}}", "GET", result, None),
        )
    ),
]

FALLBACKS: Final = [
    *(Fallback(f"/v1/{path}", "stability", fail_v1) for path in ("generation", "engines", "user")),
    *(Fallback(path, "stability", fail_v2) for path in ("/v2beta", "/v2alpha")),
]
