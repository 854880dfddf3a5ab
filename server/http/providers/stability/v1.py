"""Version 1: engines, the account, and upscales by an engine."""

import base64
import uuid
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.http.providers.bodies import read_form
from server.http.providers.caller import Caller, not_offered, wrong
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
from server.http.providers.upscalers import model_called
from server.protocol.errors import ErrorItem, NotFoundError

__all__ = ["FALLBACKS", "ROUTES"]

_NAMES: Final = {
    "inputImage": "image",
    "upscaleFactor": "width",
    "settings.positivePrompt": "text_prompts",
    "settings.negativePrompt": "text_prompts",
    "settings.CFGScale": "cfg_scale",
    "settings.steps": "steps",
    "settings.seed": "seed",
}
_ENGINES: Final = {
    "esrgan-v1-x2plus": "Real-ESRGAN",
    "stable-diffusion-x4-latent-upscaler": "Stable Diffusion x4 latent upscaler",
}
_LATENT: Final = "stable-diffusion-x4-latent-upscaler"
_LATENT_MODEL: Final = "stable-diffusion-x4-upscaler"
_UNLIMITED: Final = 1e9
_CREDITS: Final = 100
"""Of Stability's, in a US dollar."""
_FORM: Final = {
    "image": "The file.",
    "width": "Of the result; or `height`. Default: twice the image.",
    "height": "Of the result.",
    "text_prompts[i][text]": "Latent engine only; with a negative weight it is a negative prompt.",
    "text_prompts[i][weight]": "Default: 1.",
    "cfg_scale": "Latent engine only: 0 to 35, default 7.",
    "seed": "Latent engine only.",
    "steps": "Latent engine only: 10 to 150, default 50.",
}


async def upscale(request: Request, caller: Caller) -> Response:
    """`POST /v1/generation/{engine}/image-to-image/upscale`."""
    engine = request.path_params["engine"]
    form = await read_form(request)
    if engine not in _ENGINES:
        raise NotFoundError(
            "modelNotFound", f"The specified engine (ID {engine[:64]}) was not found.", "engine_id"
        )
    if "width" in form and "height" in form:
        raise wrong("width", "only one of width and height may be given")
    size: dict[str, Any] = {
        name: number_of(form, name, int, 512, 16_384) for name in ("width", "height") if name in form
    }
    result = await caller.upscale(
        inputImage=image_of(form),
        outputType="base64Data",
        outputFormat="PNG",
        **(size or {"upscaleFactor": 2}),
        **_engine(engine, form, caller),
    )
    data, seed = data_of(result), seed_of(result)
    if request.headers.get("accept", "").startswith("image/png"):
        headers = {"finish-reason": finish_reason(result), "seed": str(seed)}
        return Response(data, headers=headers, media_type="image/png")
    artifact = {
        "base64": base64.b64encode(data).decode(),
        "seed": seed,
        "finishReason": finish_reason(result),
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
    settings: dict[str, Any] = {"steps": number_of(form, "steps", int, 10, 150, 50)}
    settings["CFGScale"] = number_of(form, "cfg_scale", float, 0, 35, 7)
    if seed := number_of(form, "seed", int, 0, 2**32 - 1, 0):
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
            found.append((text_of(form, name), number_of(form, weight, float, -10, 10, 1)))
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


def fail(item: ErrorItem) -> Response:
    """An error of v1: a name and a message."""
    name, status = named(item)
    return JSONResponse({"id": uuid.uuid4().hex, "name": name, "message": item.message}, status)


ROUTES: Final = [
    ServiceRoute("/v1/generation/{engine}/image-to-image/upscale", "POST", upscale, fail, _NAMES, form=_FORM),
    ServiceRoute("/v1/engines/list", "GET", list_engines, fail),
    ServiceRoute("/v1/user/account", "GET", account, fail),
    ServiceRoute("/v1/user/balance", "GET", balance, fail),
]

FALLBACKS: Final = [Fallback(f"/v1/{path}", "stability", fail) for path in ("generation", "engines", "user")]
