"""A1111's extras, as webui and Forge have them: `/sdapi/v1/extra-single-image`, and what clients ask beside.

Differences: sizes are exact (A1111 cuts them to multiples of 8), and transparency is kept. Faces are
restored by one model, not by GFPGAN and CodeFormer in turn.

Source: `modules/api/models.py`, `api.py` and `postprocessing.py` of AUTOMATIC1111/stable-diffusion-webui.
"""

import asyncio
import base64
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Annotated, Any, Final, NamedTuple, TypeVar

from msgspec import UNSET, Meta, Struct, field, structs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.handlers.preparation import Prepared
from server.http.providers.bodies import read_json
from server.http.providers.caller import Caller, FailedError, status_of, wrong
from server.http.providers.faces import face_restoration, face_restorers
from server.http.providers.routes import Fallback, ServiceRoute
from server.http.providers.upscalers import model_called, upscalers
from server.protocol.error_codes import CODES
from server.protocol.errors import ErrorItem, TaskError
from server.protocol.replies import Progress

__all__ = ["FALLBACKS", "ROUTES"]

_NONE: Final = "None"
_NAMES: Final = {
    "inputImage": "image",
    "inputs.image": "image",
    "upscaleFactor": "upscaling_resize",
    "model": "upscaler_1",
    "blend.model": "upscaler_2",
    "blend.visibility": "extras_upscaler_2_visibility",
    "width": "upscaling_resize_w",
    "height": "upscaling_resize_h",
}
_AS_PNG: Final[dict[str, Any]] = {"outputType": "base64Data", "outputFormat": "PNG"}
_AT_ONCE: Final = 8

T = TypeVar("T")
R = TypeVar("R")

Share = Annotated[float, Meta(ge=0, le=1)]


class Extras(Struct, frozen=True, kw_only=True):
    """What both endpoints take; null is as not given."""

    resize_mode: Annotated[int, Meta(ge=0, le=1)] | None = 0
    upscaling_resize: Annotated[float, Meta(gt=0)] | None = 2
    upscaling_resize_w: Annotated[int, Meta(ge=1)] | None = 512
    upscaling_resize_h: Annotated[int, Meta(ge=1)] | None = 512
    upscaling_crop: bool | None = True
    upscaler_1: str | None = _NONE
    upscaler_2: str | None = _NONE
    extras_upscaler_2_visibility: Share | None = 0
    gfpgan_visibility: Share | None = 0
    codeformer_visibility: Share | None = 0
    codeformer_weight: Share | None = 0
    upscale_first: bool | None = False
    show_extras_results: bool | None = True


class SingleImage(Extras, frozen=True, kw_only=True):
    """The body of `extra-single-image`."""

    image: str = ""


class BatchImage(Struct, frozen=True):
    """An image of a batch."""

    data: str
    name: str | None = None


class BatchImages(Extras, frozen=True, kw_only=True):
    """The body of `extra-batch-images`."""

    images: Annotated[list[BatchImage], Meta(max_length=1000)] = field(name="imageList")


async def single_image(request: Request, caller: Caller) -> Response:
    """Upscale one image."""
    body = await read_json(request, SingleImage)
    task = _task(body, caller)
    if task is None:
        data = await caller.as_png(body.image)
    else:
        data = await _upscaled(await caller.prepare(inputImage=body.image, **task), request, caller)
    return JSONResponse({"html_info": _INFO, "image": base64.b64encode(data).decode()})


async def batch_images(request: Request, caller: Caller) -> Response:
    """Upscale some images, in order. None is begun, and nothing is charged, before all are seen to be fit."""
    body = await read_json(request, BatchImages)
    task = _task(body, caller)
    images = [image.data for image in body.images]
    done = await _each(images, caller.as_png) if task is None else await _batch(images, task, request, caller)
    return JSONResponse({"html_info": _INFO, "images": [base64.b64encode(data).decode() for data in done]})


class _Checked(NamedTuple):
    """An image that can be upscaled; `prepared` unless that would hold far more than came with the batch."""

    image: str
    price: int
    prepared: Prepared | None


async def _batch(images: list[str], task: dict[str, Any], request: Request, caller: Caller) -> list[bytes]:
    begun: list[str] = []

    async def check(image: str) -> _Checked:
        prepared, size, price = await caller.prepare_whole(inputImage=image, **task)
        return _Checked(image, price, prepared if size <= len(image) else None)

    async def upscale(checked: _Checked) -> bytes:
        prepared = checked.prepared or await caller.prepare(inputImage=checked.image, **task)
        begun.append(prepared.request.task_uuid)
        return await _upscaled(prepared, request, caller)

    checked = await _each(images, check)
    await caller.check_payable(sum(each.price for each in checked))
    try:
        return await _each(checked, upscale)
    except (TaskError, FailedError):
        await _cancel(begun, caller)  # nobody gets their results
        raise


async def _each(images: Iterable[T], do: Callable[[T], Awaitable[R]]) -> list[R]:
    """What is done with each image of a batch, in order, some at a time.

    Raises:
        TaskError, FailedError: as `do`, of the first that fails; the message says which one that is.
    """
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, image: T) -> R:
        place = f"imageList[{number}].data"
        async with room:
            try:
                return await do(image)
            except TaskError as error:
                error.message = _naming(place, error.message)
                error.parameter = place if error.parameter == "inputImage" else error.parameter
                raise
            except FailedError as error:
                item = structs.replace(error.item, message=_naming(place, error.item.message))
                raise FailedError(item) from error

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number, image)) for number, image in enumerate(images)]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _naming(place: str, message: str) -> str:
    renamed = message.replace("inputImage", place)
    return renamed if place in renamed else f"{place}: {message}"


async def _upscaled(prepared: Prepared, request: Request, caller: Caller) -> bytes:
    """The PNG that a task makes; meanwhile it is among those that are under way."""
    jobs, job = _jobs(request, caller), prepared.request.task_uuid
    jobs.add(job)
    try:
        result = await caller.result(prepared)
    finally:
        jobs.discard(job)
    assert result.image_base64_data is not UNSET
    return result.image_base64_data


def _task(wanted: Extras, caller: Caller) -> dict[str, Any] | None:
    """The parameters of the task; None if nothing is to be done to the image, as by all defaults.

    Raises:
        ParameterError: for what is not offered.
    """
    catalogue = caller.services.catalogue
    faces = face_restoration(wanted, catalogue, upscale_first=bool(wanted.upscale_first))
    if not wanted.upscaler_1 or wanted.upscaler_1 == _NONE:  # as A1111: the size stays, whatever else is said
        return None if faces is None else _AS_PNG | {"faceRestoration": faces, "restoreOnly": True}
    models = _AS_PNG | {
        "model": _model(wanted.upscaler_1, "upscaler_1", caller),
        "faceRestoration": faces,
    }
    if wanted.upscaler_2 and wanted.upscaler_2 != _NONE and wanted.extras_upscaler_2_visibility:
        second = _model(wanted.upscaler_2, "upscaler_2", caller)
        models["blend"] = {"model": second, "visibility": wanted.extras_upscaler_2_visibility}
    if wanted.resize_mode != 1:
        return models | {"upscaleFactor": 2 if wanted.upscaling_resize is None else wanted.upscaling_resize}
    return models | {
        "width": wanted.upscaling_resize_w or 512,
        "height": wanted.upscaling_resize_h or 512,
        "resizeMode": "fill" if wanted.upscaling_crop is False else "crop",
    }


def _model(name: str, parameter: str, caller: Caller) -> str:
    model = model_called(caller.services.catalogue, name)
    if model is None:
        offered = ", ".join(shown for shown, _ in upscalers(caller.services.catalogue))
        raise wrong(parameter, f"could not find upscaler named {name[:64]}; offered are: {offered}")
    return model.name


async def progress(request: Request, caller: Caller) -> Response:
    """How far the account's extras are."""
    jobs = _jobs(request, caller)
    shares = [await _share(caller, job) for job in sorted(jobs)]
    return JSONResponse(
        {
            "progress": round(sum(shares) / len(shares), 4) if shares else 0,
            "eta_relative": 0,
            "state": {
                "skipped": False,
                "interrupted": False,
                "stopping_generation": False,
                "job": "scripts_postprocessing" if jobs else "",
                "job_count": len(jobs),
                "job_timestamp": "0",
                "job_no": 0,
                "sampling_step": 0,
                "sampling_steps": 0,
            },
            "current_image": None,
            "textinfo": None,
        }
    )


def _jobs(request: Request, caller: Caller) -> set[str]:
    """The tasks of the account that came by these endpoints and are under way."""
    jobs: defaultdict[str, set[str]] = request.app.state.a1111_jobs
    return jobs[caller.owner]


async def _share(caller: Caller, job: str) -> float:
    try:
        item = await caller.response(job)
    except FailedError:  # it is not accepted yet, or has just failed
        return 0
    return caller.share(item) if isinstance(item, Progress) else 1


async def interrupt(request: Request, caller: Caller) -> Response:
    """Stop the account's extras."""
    await _cancel(sorted(_jobs(request, caller)), caller)
    return JSONResponse({})


async def _cancel(jobs: Iterable[str], caller: Caller) -> None:
    for job in jobs:
        with suppress(FailedError):  # it has just ended
            await caller.cancel(job)


async def list_upscalers(_request: Request, caller: Caller) -> Response:
    """What `upscaler_1` may be."""
    none = {"name": _NONE, "model_name": None, "model_path": None, "model_url": None, "scale": 4}
    return JSONResponse(
        [
            none,
            *(
                {
                    "name": name,
                    "model_name": model.name,
                    "model_path": model.name,
                    "model_url": None,
                    "scale": model.factors[-1],
                }
                for name, model in upscalers(caller.services.catalogue)
            ),
        ]
    )


async def list_models(_request: Request, caller: Caller) -> Response:
    """The upscalers, in the older form."""
    found = upscalers(caller.services.catalogue)
    return JSONResponse(
        [{"name": name, "path": model.name, "scale": model.factors[-1]} for name, model in found]
    )


async def list_restorers(_request: Request, caller: Caller) -> Response:
    """What restores faces."""
    found = face_restorers(caller.services.catalogue)
    return JSONResponse([{"name": each.name, "cmd_dir": None} for each in found])


async def nothing(_request: Request, _caller: Caller) -> Response:
    """For lists of what is not offered."""
    return JSONResponse([])


async def options(_request: Request, caller: Caller) -> Response:
    """The settings that clients look at."""
    return JSONResponse({"upscaler_for_img2img": upscalers(caller.services.catalogue)[0][0]})


async def scripts(_request: Request, _caller: Caller) -> Response:
    """No scripts are offered; webuiapi asks when it is constructed."""
    return JSONResponse({"txt2img": [], "img2img": []})


def fail(item: ErrorItem) -> Response:
    """An error as A1111 words it, or as FastAPI does where a field has a wrong type or value."""
    if item.code == "invalidFrame" or (item.parameter in _FIELDS and item.code not in CODES):
        path = [item.parameter] if isinstance(item.parameter, str) else []
        detail = [{"loc": ["body", *path], "msg": item.message, "type": "value_error"}]
        return JSONResponse({"detail": detail}, 422)
    status = status_of(item)
    body = {"error": "HTTPException", "detail": item.message, "body": "", "errors": item.code}
    headers = {"www-authenticate": "Basic"} if status == 401 else None
    return JSONResponse(body, status, headers)


_FIELDS: Final = {*Extras.__struct_encode_fields__, "imageList"}
_INFO: Final = "<p>Upscaled by Tilewire</p>"

ROUTES: Final = [
    ServiceRoute(f"/sdapi/v1/{path}", method, handle, fail, _NAMES, body=body)
    for path, method, handle, body in (
        ("extra-single-image", "POST", single_image, SingleImage),
        ("extra-batch-images", "POST", batch_images, BatchImages),
        ("upscalers", "GET", list_upscalers, None),
        ("realesrgan-models", "GET", list_models, None),
        ("face-restorers", "GET", list_restorers, None),
        ("sd-models", "GET", nothing, None),
        ("progress", "GET", progress, None),
        ("interrupt", "POST", interrupt, None),
        ("skip", "POST", interrupt, None),
        ("options", "GET", options, None),
        ("scripts", "GET", scripts, None),
    )
]

FALLBACKS: Final = [Fallback("/sdapi", "a1111", fail)]
