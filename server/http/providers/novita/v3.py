"""Version 3, which has HTTP's statuses."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.http.providers.bodies import read_json
from server.http.providers.caller import Caller, not_offered, status_of
from server.http.providers.novita.tasks import POLL_NAMES, Outcome, detection, model_named, polled, times
from server.http.providers.routes import Fallback, ServiceRoute
from server.protocol.errors import ErrorItem
from server.protocol.replies import Progress
from server.state.records import TaskRecord

__all__ = ["FALLBACKS", "ROUTES", "webhook_body"]

_NAMES: Final = {
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
_FORMATS: Final = {"png": "PNG", "webp": "WEBP", "jpeg": "JPG"}
_SIDES: Final = {"2k": 2048, "4k": 4096, "8k": 8192}
"""Pixels of the longer side; Novita does not say how many it makes of them."""
_CREDITS: Final = 10_000
"""Of Novita's, in a US dollar."""
_UNLIMITED: Final = 10**12


class Wish(Struct, frozen=True, kw_only=True):
    """What is wanted only if it is enabled, as clients send it either way."""

    enabled: bool | None = None


class Webhook(Struct, frozen=True, kw_only=True):
    """Where the outcome is sent."""

    url: str | None = None
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
    """The body of `/v3/async/upscale`; null is as not given, here and within."""

    request: RequestV3
    extra: Extra | None = None


class ImageUpscaler(Struct, frozen=True, kw_only=True):
    """The body of `/v3/async/image-upscaler`; null is as not given."""

    image: Annotated[str, Meta(min_length=1)]
    resolution: Literal["2k", "4k", "8k"] | None = None
    output_format: Literal["jpeg", "png", "webp"] | None = None


async def upscale(request: Request, caller: Caller) -> Response:
    """Take a task on."""
    body = await read_json(request, UpscaleV3)
    extra, wanted = body.extra or Extra(), body.request
    _refuse_what_is_not_offered(extra)
    task_uuid = await caller.accept(
        inputImage=wanted.image_base64,
        model=model_named(wanted.model_name or "RealESRGAN_x4plus", "request.model_name", caller),
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
            "extra.enterprise_plan", "extra.enterprise_plan: no devices are set apart for an account here"
        )
    if extra.webhook and extra.webhook.test_mode and extra.webhook.test_mode.enabled:
        raise not_offered("extra.webhook.test_mode", "extra.webhook.test_mode: mock events are not offered")
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


async def result(request: Request, caller: Caller) -> Response:
    """What became of a task."""
    record, item = await polled(request, caller)
    return JSONResponse(_task(record, item, caller.services.settings.image_ttl))


def webhook_body(record: TaskRecord, item: Outcome, image_ttl: float) -> bytes:
    """What v3 sends to `extra.webhook` when a task has its outcome.

    Source: docs.novita.ai, "Webhook".
    """
    payload = _task(record, item, image_ttl)
    return msgspec.json.encode({"event_type": "ASYNC_TASK_RESULT", "payload": payload})


def _task(record: TaskRecord, item: Outcome, image_ttl: float) -> dict[str, Any]:
    """A task as `/v3/async/task-result` has it."""
    images: list[Mapping[str, Any]] = []
    reason, percent, found = "", 0, None
    if isinstance(item, ErrorItem):
        status, reason = "FAILED", item.message
    elif isinstance(item, Progress):
        status, percent = "PROCESSING" if item.progress else "QUEUED", item.progress
    else:
        status, percent, found = "SUCCEED", 100, detection(item)
        images = [] if item.image_url is UNSET else [_image(item.image_url, image_ttl, found)]
    when = {name: str(time) for name, time in times(record, "submit", "execute", "complete").items()}
    return {
        "extra": {
            "seed": "0",
            "enable_nsfw_detection": found is not None,
            "debug_info": {"request_info": ""} | when,
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


def _image(url: str, ttl: float, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """A result as a task has it."""
    kind = url.partition("?")[0].rpartition(".")[2]
    return {
        "image_url": url,
        "image_url_ttl": int(ttl),
        "image_type": {"jpg": "jpeg"}.get(kind, kind),
        "nsfw_detection_result": found,
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


def fail(item: ErrorItem) -> Response:
    """An error by HTTP's status and a reason in capitals."""
    status = status_of(item)
    reason = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", item.code).upper()
    metadata = {"parameter": item.parameter} if isinstance(item.parameter, str) else {}
    return JSONResponse(
        {"code": status, "reason": reason, "message": item.message, "metadata": metadata}, status
    )


ROUTES: Final = [
    ServiceRoute("/v3/async/upscale", "POST", upscale, fail, _NAMES, body=UpscaleV3),
    ServiceRoute(
        "/v3/async/image-upscaler",
        "POST",
        image_upscaler,
        fail,
        _IMAGE_UPSCALER_NAMES,
        body=ImageUpscaler,
    ),
    ServiceRoute("/v3/async/task-result", "GET", result, fail, POLL_NAMES),
    ServiceRoute("/v3/user", "GET", user, fail),
]

FALLBACKS: Final = [Fallback("/v3", "novita", fail)]
