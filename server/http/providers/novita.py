"""Novita's upscaling: `/v2/upscale` with `/v2/progress`; `/v3/async/upscale` and `/v3/async/image-upscaler`.

v2 answers 200 whatever happens, and says in `code` what did; v3 has HTTP's statuses.

Sources: novita.ai/docs/api-reference (model-apis-upscale, model-apis-image-upscaler), and the clients
novita-client 0.7 (Python) and novita-sdk 3.1 (JavaScript).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.http.providers.bodies import read_json
from server.http.providers.caller import Caller, not_offered, status_of, wrong
from server.http.providers.faces import face_restoration
from server.http.providers.routes import Fallback, ServiceRoute
from server.http.providers.upscalers import model_called
from server.protocol.error_codes import error_label
from server.protocol.errors import ErrorItem
from server.protocol.replies import Progress, UpscaleResult
from server.state.records import TaskRecord

__all__ = ["FALLBACKS", "ROUTES", "webhook_body"]

Outcome = UpscaleResult | ErrorItem | Progress

Share = Annotated[float, Meta(ge=0, le=1)]

_V2_NAMES: Final = {
    "inputImage": "image",
    "model": "upscaler_1",
    "blend.model": "upscaler_2",
    "blend.visibility": "extras_upscaler_2_visibility",
    "upscaleFactor": "upscaling_resize",
    "width": "upscaling_resize_w",
    "height": "upscaling_resize_h",
    "ttl": "img_expire_ttl",
}
_V3_NAMES: Final = {
    "inputImage": "request.image_base64",
    "model": "request.model_name",
    "upscaleFactor": "request.scale_factor",
    "webhookURL": "extra.webhook.url",
    "checkNSFW": "extra.enable_nsfw_detection",
}
_IMAGE_UPSCALER_NAMES: Final = {
    "inputImage": "image",
    "width": "resolution",
    "height": "resolution",
    "outputFormat": "output_format",
}
_POLL_NAMES: Final = {"taskUUID": "task_id"}
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
_CREDITS: Final = 10_000
"""Of Novita's, in a US dollar."""


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


class Wish(Struct, frozen=True, kw_only=True):
    """What is wanted only if it is enabled, as clients send it either way."""

    enabled: bool | None = None


class Webhook(Struct, frozen=True, kw_only=True):
    """Where the outcome is sent."""

    url: str = ""
    test_mode: Wish | None = None


class Extra(Struct, frozen=True, kw_only=True):
    """What a v3 request says beside the task."""

    response_image_type: Literal["png", "webp", "jpeg"] | None = None
    webhook: Webhook | None = None
    custom_storage: dict[str, Any] | None = None
    enterprise_plan: Wish | None = None
    enable_nsfw_detection: bool | None = None
    nsfw_detection_level: int | None = None


class RequestV3(Struct, frozen=True, kw_only=True):
    """The task of a v3 request."""

    image_base64: Annotated[str, Meta(min_length=1)]
    model_name: str | None = None
    scale_factor: Annotated[float, Meta(gt=1, le=4)] | None = None


class UpscaleV3(Struct, frozen=True, kw_only=True):
    """The body of `/v3/async/upscale`."""

    request: RequestV3
    extra: Extra = Extra()


class ImageUpscaler(Struct, frozen=True, kw_only=True):
    """The body of `/v3/async/image-upscaler`; null is as not given."""

    image: Annotated[str, Meta(min_length=1)]
    resolution: Literal["2k", "4k", "8k"] | None = None
    output_format: Literal["jpeg", "png", "webp"] | None = None


async def upscale_v2(request: Request, caller: Caller) -> Response:
    """Take a task on."""
    body = await read_json(request, UpscaleV2)
    more: dict[str, Any] = {"faceRestoration": face_restoration(body, caller.services.catalogue)}
    if body.upscaler_2 and body.extras_upscaler_2_visibility:
        second = _model(body.upscaler_2, "upscaler_2", caller)
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
        model=_model(body.upscaler_1 or "R-ESRGAN 4x+", "upscaler_1", caller),
        outputFormat="PNG",
        ttl=body.img_expire_ttl or None,
        **size,
        **more,
    )
    return JSONResponse(_V2_OK | {"data": {"task_id": task_uuid, "warn": ""}})


async def progress_v2(request: Request, caller: Caller) -> Response:
    """How far a task is."""
    record, item = await _polled(request, caller)
    images: list[str] | None = None
    status, reason, found = 1, "", None
    if isinstance(item, ErrorItem):
        status, reason = 4 if item.code == "taskTimeout" else 3, item.message
    elif isinstance(item, UpscaleResult):
        status, images, found = 2, [str(item.image_url)], _detection(item)
    return JSONResponse(
        _V2_OK
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
                "debug_info": _times(record, "submit", "execution", "txt2img", "finish"),
            }
        }
    )


async def upscale_v3(request: Request, caller: Caller) -> Response:
    """Take a task on."""
    body = await read_json(request, UpscaleV3)
    extra, wanted = body.extra, body.request
    _refuse_what_is_not_offered(extra)
    task_uuid = await caller.accept(
        inputImage=wanted.image_base64,
        model=_model(wanted.model_name or "RealESRGAN_x4plus", "request.model_name", caller),
        upscaleFactor=wanted.scale_factor or 2,
        outputFormat=_FORMATS[extra.response_image_type or "png"],
        webhookURL=extra.webhook.url or None if extra.webhook else None,
        checkNSFW=bool(extra.enable_nsfw_detection),
    )
    return JSONResponse({"task_id": task_uuid})


def _refuse_what_is_not_offered(extra: Extra) -> None:
    if extra.custom_storage:
        raise not_offered("extra.custom_storage", "extra.custom_storage is not offered")
    if extra.enterprise_plan and extra.enterprise_plan.enabled:
        raise not_offered(
            "extra.enterprise_plan", "extra.enterprise_plan: no devices are set apart for some accounts here"
        )
    if extra.webhook and extra.webhook.test_mode and extra.webhook.test_mode.enabled:
        raise not_offered("extra.webhook.test_mode", "extra.webhook.test_mode: only true outcomes are sent")
    if extra.enable_nsfw_detection and extra.nsfw_detection_level:
        raise not_offered(
            "extra.nsfw_detection_level", "extra.nsfw_detection_level: only 0, explicit nudity, is offered"
        )


async def image_upscaler(request: Request, caller: Caller) -> Response:
    """Take a task on: by the default model, to a size."""
    body = await read_json(request, ImageUpscaler)
    side = _SIDES[body.resolution or "4k"]
    task_uuid = await caller.accept(
        inputImage=body.image,
        width=side,
        height=side,  # the image fits into that square, and keeps its shape
        outputFormat=_FORMATS[body.output_format or "jpeg"],
    )
    return JSONResponse({"task_id": task_uuid})


async def result_v3(request: Request, caller: Caller) -> Response:
    """What became of a task."""
    record, item = await _polled(request, caller)
    return JSONResponse(_task_v3(record, item, caller.services.settings.image_ttl))


async def _polled(request: Request, caller: Caller) -> tuple[TaskRecord, Outcome]:
    """The task that a client asks for, and how it stands."""
    task_id = request.query_params.get("task_id", "")
    await caller.linger(task_id)
    record = await caller.record(task_id)
    return record, await caller.standing(record)


def webhook_body(record: TaskRecord, item: Outcome, image_ttl: float) -> bytes:
    """What v3 sends to `extra.webhook` when a task has its outcome.

    Source: docs.novita.ai, "Webhook".
    """
    payload = _task_v3(record, item, image_ttl)
    return msgspec.json.encode({"event_type": "ASYNC_TASK_RESULT", "payload": payload})


def _task_v3(record: TaskRecord, item: Outcome, image_ttl: float) -> dict[str, Any]:
    """A task as `/v3/async/task-result` has it."""
    images: list[Mapping[str, Any]] = []
    reason, percent, found = "", 0, None
    if isinstance(item, ErrorItem):
        status, reason = "FAILED", item.message
    elif isinstance(item, Progress):
        status, percent = "PROCESSING" if item.progress else "QUEUED", item.progress
    else:
        status, percent, found = "SUCCEED", 100, _detection(item)
        assert item.image_url is not UNSET
        kind = item.image_url.partition("?")[0].rpartition(".")[2]
        images = [
            {
                "image_url": item.image_url,
                "image_url_ttl": int(image_ttl),
                "image_type": {"jpg": "jpeg"}.get(kind, kind),
                "nsfw_detection_result": found,
            }
        ]
    times = {name: str(time) for name, time in _times(record, "submit", "execute", "complete").items()}
    return {
        "extra": {
            "seed": "0",
            "enable_nsfw_detection": found is not None,
            "debug_info": {"request_info": ""} | times,
        },
        "task": {
            "task_id": record.task_uuid,
            "task_type": "UPSCALE",
            "status": f"TASK_STATUS_{status}",
            "reason": reason,
            "eta": 0,
            "progress_percent": percent,
        },
        "images": images,
        "videos": [],
        "audios": [],
    }


async def user(_request: Request, caller: Caller) -> Response:
    """What the account has left."""
    usd = await caller.available()
    return JSONResponse(
        {
            "allow_features": [],
            "credit_balance": _UNLIMITED if usd is None else int(usd * _CREDITS),
            "free_trial": {},
        }
    )


def fail_v2(item: ErrorItem) -> Response:
    """An error by Novita's code; the status is 200, as clients raise on any other."""
    name = error_label(item.code)
    code = _CODES[name] if name in _CODES else _CODES_OF_STATUSES.get(status_of(item), _OUT_OF_RANGE)
    if code == _OUT_OF_RANGE and item.parameter in ("upscaler_1", "upscaler_2"):
        code = _NO_MODEL
    return JSONResponse({"code": code, "msg": item.message, "data": None})


def fail_v3(item: ErrorItem) -> Response:
    """An error by HTTP's status and a reason in capitals."""
    status = status_of(item)
    reason = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", item.code).upper()
    metadata = {"parameter": item.parameter} if isinstance(item.parameter, str) else {}
    return JSONResponse(
        {"code": status, "reason": reason, "message": item.message, "metadata": metadata}, status
    )


def _detection(item: UpscaleResult) -> dict[str, Any] | None:
    """What was found of what is not safe for work, in percent; None if nobody looked."""
    if item.nsfw_scores is UNSET:
        return None
    score = max(item.nsfw_scores.input, item.nsfw_scores.result)
    return {"valid": True, "confidence": round(100 * score)}


def _model(name: str, parameter: str, caller: Caller) -> str:
    model = model_called(caller.services.catalogue, name)
    if model is None:
        raise wrong(parameter, f"{parameter}: there is no model {name!r} here")
    return model.name


def _times(record: TaskRecord, *names: str) -> dict[str, int]:
    """When a task was taken on, and under the last name when it ended: 0 if it has not; in milliseconds."""
    taken_on, ended = (round(1000 * (time or 0)) for time in (record.created, record.finished))
    return {f"{name}_time_ms": ended if name == names[-1] else taken_on for name in names}


_FORMATS: Final = {"png": "PNG", "webp": "WEBP", "jpeg": "JPG"}
_SIDES: Final = {"2k": 2048, "4k": 4096, "8k": 8192}
"""Pixels of the longer side; Novita does not say how many it makes of them."""
_V2_OK: Final = {"code": 0, "msg": ""}
_UNLIMITED: Final = 10**12

ROUTES: Final = [
    ServiceRoute("/v2/upscale", "POST", upscale_v2, fail_v2, _V2_NAMES, body=UpscaleV2),
    ServiceRoute("/v2/progress", "GET", progress_v2, fail_v2, _POLL_NAMES),
    ServiceRoute("/v2/enterprise/progress", "GET", progress_v2, fail_v2, _POLL_NAMES),
    ServiceRoute("/v3/async/upscale", "POST", upscale_v3, fail_v3, _V3_NAMES, body=UpscaleV3),
    ServiceRoute(
        "/v3/async/image-upscaler",
        "POST",
        image_upscaler,
        fail_v3,
        _IMAGE_UPSCALER_NAMES,
        body=ImageUpscaler,
    ),
    ServiceRoute("/v3/async/task-result", "GET", result_v3, fail_v3, _POLL_NAMES),
    ServiceRoute("/v3/user", "GET", user, fail_v3),
]

FALLBACKS: Final = [Fallback("/v2", "novita", fail_v2), Fallback("/v3", "novita", fail_v3)]
