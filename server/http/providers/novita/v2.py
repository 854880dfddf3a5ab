"""Version 2, which Novita calls deprecated. It answers 200 whatever happens, and says in `code` what did."""

from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.http.providers.bodies import read_json
from server.http.providers.caller import Caller, status_of, wrong
from server.http.providers.faces import face_restoration
from server.http.providers.novita.tasks import POLL_NAMES, detection, model_named, polled, times
from server.http.providers.routes import Fallback, ServiceRoute
from server.protocol.error_codes import error_label
from server.protocol.errors import ErrorItem
from server.protocol.replies import UpscaleResult

__all__ = ["FALLBACKS", "ROUTES"]

Share = Annotated[float, Meta(ge=0, le=1)]

_NAMES: Final = {
    "inputImage": "image",
    "model": "upscaler_1",
    "blend.model": "upscaler_2",
    "blend.visibility": "extras_upscaler_2_visibility",
    "upscaleFactor": "upscaling_resize",
    "width": "upscaling_resize_w",
    "height": "upscaling_resize_h",
    "ttl": "img_expire_ttl",
}
_CODES: Final = {
    "invalidFrame": 1,
    "taskNotFound": 3,
    "unsupportedParameter": 10,
    "endpointNotFound": 10,
}
"""Novita's codes, by ours; for others see `_CODES_OF_STATUSES`."""
_CODES_OF_STATUSES: Final = {401: 4, 402: 7, 403: 4, 408: 9, 429: 5, 500: -1, 503: 5, 504: 9}
_OUT_OF_RANGE: Final = 6
_NO_MODEL: Final = 2
_LARGEST: Final = 2048
_OK: Final = {"code": 0, "msg": ""}


class UpscaleV2(Struct, frozen=True, kw_only=True):
    """The body of `/v2/upscale`; null is as not given."""

    image: Annotated[str, Meta(min_length=1)]
    upscaler_1: str | None = None
    resize_mode: Annotated[int, Meta(ge=0, le=1)] | None = None
    upscaling_resize: Annotated[float, Meta(gt=0)] | None = None
    upscaling_resize_w: Annotated[int, Meta(ge=1, le=_LARGEST)] | None = None
    upscaling_resize_h: Annotated[int, Meta(ge=1, le=_LARGEST)] | None = None
    upscaling_crop: bool | None = None
    upscaler_2: str | None = None
    extras_upscaler_2_visibility: Share | None = None
    gfpgan_visibility: Share | None = None
    codeformer_visibility: Share | None = None
    codeformer_weight: Share | None = None
    img_expire_ttl: Annotated[int, Meta(ge=0, le=604_800)] | None = None


async def upscale(request: Request, caller: Caller) -> Response:
    """Take a task on."""
    body = await read_json(request, UpscaleV2)
    more: dict[str, Any] = {"faceRestoration": face_restoration(body, caller.services.catalogue)}
    if body.upscaler_2 and body.extras_upscaler_2_visibility:
        second = model_named(body.upscaler_2, "upscaler_2", caller)
        more["blend"] = {"model": second, "visibility": body.extras_upscaler_2_visibility}
    size: dict[str, Any] = {"upscaleFactor": body.upscaling_resize or 2}
    if body.resize_mode == 1:
        size = {"width": body.upscaling_resize_w, "height": body.upscaling_resize_h}
        if not (body.upscaling_resize_w or body.upscaling_resize_h):
            raise wrong("upscaling_resize_w", "resize_mode 1 needs upscaling_resize_w or _h")
        if body.upscaling_resize_w and body.upscaling_resize_h:
            size["resizeMode"] = "crop" if body.upscaling_crop else "fill"
    task_uuid = await caller.accept(
        inputImage=body.image,
        model=model_named(body.upscaler_1 or "R-ESRGAN 4x+", "upscaler_1", caller),
        outputFormat="PNG",
        ttl=body.img_expire_ttl or None,
        **size,
        **more,
    )
    return JSONResponse(_OK | {"data": {"task_id": task_uuid, "warn": ""}})


async def progress(request: Request, caller: Caller) -> Response:
    """How far a task is."""
    record, item = await polled(request, caller)
    images: list[str] | None = None
    status, reason, found = 1, "", None
    if isinstance(item, ErrorItem):
        status, reason = 4 if item.code == "taskTimeout" else 3, item.message
    elif isinstance(item, UpscaleResult):
        status, found = 2, detection(item)
        images = [] if item.image_url is UNSET else [item.image_url]
    return JSONResponse(
        _OK
        | {
            "data": {
                "status": status,
                "progress": int(status == 2),  # only 0 and 1: novita-client takes nothing else
                "eta_relative": 0,
                "imgs": images,
                "info": "",
                "failed_reason": reason,
                "current_images": None,
                "submit_time": "",
                "execution_time": "",
                "txt2img_time": "",
                "finish_time": "",
                "enable_nsfw_detection": found is not None,
                "nsfw_detection_result": None if found is None else [found],
                "debug_info": times(record, "submit", "execution", "txt2img", "finish"),
            }
        }
    )


def fail(item: ErrorItem) -> Response:
    """An error by Novita's code; the status is 200, as clients raise on any other."""
    name = error_label(item.code)
    code = _CODES[name] if name in _CODES else _CODES_OF_STATUSES.get(status_of(item), _OUT_OF_RANGE)
    if code == _OUT_OF_RANGE and item.parameter in ("upscaler_1", "upscaler_2"):
        code = _NO_MODEL
    return JSONResponse({"code": code, "msg": item.message, "data": None})


ROUTES: Final = [
    ServiceRoute("/v2/upscale", "POST", upscale, fail, _NAMES, body=UpscaleV2),
    ServiceRoute("/v2/progress", "GET", progress, fail, POLL_NAMES),
    ServiceRoute("/v2/enterprise/progress", "GET", progress, fail, POLL_NAMES),
]

FALLBACKS: Final = [Fallback("/v2", "novita", fail)]
