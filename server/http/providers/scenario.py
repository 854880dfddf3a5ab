"""Scenario's upscaling: assets, `generate/upscale` and `generate/custom/{model}`, jobs and models.

An asset is an image of the account, a job is a task; both have the UUIDs that they have elsewhere. What only
a diffusion upscaler can do needs one that is installed and takes prompts; what no installed model can do is
refused by name. A creative unit is a cent of a US dollar.

Sources: docs.scenario.com, and scenario-sdk 2.4 for Python.
"""

import math
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from onnx_models import Model
from server.http.providers.bodies import read_json
from server.http.providers.caller import Caller, not_offered, status_of, wrong
from server.http.providers.diffusion import diffusion_model, diffusion_settings
from server.http.providers.routes import Fallback, ServiceRoute
from server.http.providers.upscalers import model_called
from server.images.store import MEDIA_TYPES
from server.protocol.errors import ErrorItem, NotFoundError
from server.protocol.replies import Progress
from server.state.images import ImageRecord
from server.state.records import TaskRecord

__all__ = ["FALLBACKS", "ROUTES"]

Percent = Annotated[float, Meta(ge=0, le=100)]

_NAMES: Final = {
    "inputImage": "image",
    "upscaleFactor": "scalingFactor",
    "width": "targetWidth",
    "settings.positivePrompt": "prompt",
    "settings.negativePrompt": "negativePrompt",
    "settings.seed": "seed",
    "settings.strength": "strength",
    "settings.CFGScale": "guidanceScale",
    "settings.controlNetWeight": "controlnetConditioningScale",
    **{
        f"settings.{name}": name
        for name in (
            "preset",
            "style",
            "creativity",
            "creativityDecay",
            "hallucination",
            "imageFidelity",
            "promptFidelity",
            "detailsLevel",
            "fractality",
            "refinementSteps",
            "overrideEmbeddings",
            "styleImages",
            "styleImagesFidelity",
            "tileStyle",
        )
    },
    "seamless": "imageType",
    "taskUUID": "jobId",
}
_CREATIVE_UNIT: Final = 10**7
"""Nanodollars: a cent."""
_DEFAULT_MODELS: Final = ("model_upscale-v3", "model_scenario-upscale-v3")


class Upscale(Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of an upscale; null is as not given."""

    image: Annotated[str, Meta(min_length=1)]
    scaling_factor: Annotated[float, Meta(ge=1, le=16)] | None = None
    upscale_factor: Annotated[float, Meta(ge=1, le=16)] | None = None
    target_width: Annotated[int, Meta(ge=1, le=16_000)] | None = None
    preset: Literal["precise", "balanced", "creative"] | None = None
    style: str | None = None
    prompt: Annotated[str, Meta(max_length=3000)] | None = None
    negative_prompt: Annotated[str, Meta(max_length=3000)] | None = None
    creativity: Percent | None = None
    strength: Annotated[float, Meta(ge=0, le=1)] | None = None
    guidance_scale: Annotated[float, Meta(ge=0, le=50)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    creativity_decay: Percent | None = None
    details_level: Annotated[float, Meta(ge=-50, le=50)] | None = None
    fractality: Percent | None = None
    hallucination: Percent | None = None
    image_fidelity: Percent | None = None
    prompt_fidelity: Percent | None = None
    override_embeddings: bool | None = None
    refinement_steps: Annotated[int, Meta(ge=0, le=4)] | None = None
    style_images: list[str] | None = None
    style_images_fidelity: Percent | None = None
    style_strength: float | None = None
    controlnet_conditioning_scale: float | None = None
    tile_style: bool | None = None
    image_type: Literal["seamfull", "skybox", "texture"] | None = None


class Asset(Struct, frozen=True, kw_only=True):
    """The body of an upload."""

    image: Annotated[str, Meta(min_length=1)]
    name: str = ""


class Action(Struct, frozen=True):
    """What is to be done with a job."""

    action: Literal["cancel"]


_OF_ALL: Final = {"image", "scaling_factor", "upscale_factor", "target_width", "image_type", "seed"}
"""What any upscaler can do, which is the same again where nothing is random; all else takes diffusion."""


async def upload(request: Request, caller: Caller) -> Response:
    """Keep an image."""
    body = await read_json(request, Asset)
    kept = await caller.upload(body.image)
    return JSONResponse({"asset": await _asset(kept.image_uuid, caller)})


async def get_asset(request: Request, caller: Caller) -> Response:
    """An image of the account."""
    return JSONResponse({"asset": await _asset(request.path_params["id"], caller)})


async def upscale(request: Request, caller: Caller) -> Response:
    """Take a job on, of the model in the path or of the default one."""
    body = await read_json(request, Upscale)
    task = {"inputImage": body.image, "outputFormat": "PNG", **_size(body), **_how(request, body, caller)}
    if request.query_params.get("dryRun", "false") not in ("false", "0"):  # it is enough that it is there
        cost = _creative_units(await caller.quote(**task))
        return JSONResponse({"creativeUnitsCost": cost, "creativeUnitsDiscount": 0}, 269)
    if body.image.startswith(("https://", "http://")):  # its size, and so the cost, is to be known at once
        task["inputImage"] = (await caller.upload(body.image)).image_uuid
    job = await _job(await caller.accept(**task), caller)
    return JSONResponse({"job": job, "creativeUnitsCost": job["billing"]["cuCost"]})


async def get_job(request: Request, caller: Caller) -> Response:
    """How far a job is."""
    await caller.linger(request.path_params["id"])
    return JSONResponse({"job": await _job(request.path_params["id"], caller)})


async def list_jobs(request: Request, caller: Caller) -> Response:
    """The account's jobs, the newest first, some at a time."""
    query = request.query_params
    for name in ("createdAfter", "updatedAfter", "workflowId"):
        if query.get(name):
            raise not_offered(name, f"{name}: jobs are listed by page and status only")
    limit = int(_number(request, "pageSize", 50, 1, 100))
    records = await caller.latest(limit, _number(request, "paginationToken", math.inf, 0, math.inf))
    jobs = [await _job_item(record, caller) for record in records]
    types = set(filter(None, (query.get("types") or query.get("type", "")).split(",")))
    listed = [
        job
        for job in jobs
        if query.get("status", job["status"]) == job["status"] and (not types or job["jobType"] in types)
    ]
    following = {"nextPaginationToken": repr(records[-1].created)} if len(records) == limit else {}
    return JSONResponse({"jobs": listed, **following})


async def act_on_job(request: Request, caller: Caller) -> Response:
    """Cancel a job."""
    await read_json(request, Action)
    await caller.cancel(_uuid(request.path_params["id"], "jobId"))
    return JSONResponse({"job": await _job(request.path_params["id"], caller)})


async def get_model(request: Request, caller: Caller) -> Response:
    """A model and what it takes."""
    return JSONResponse({"model": _model_item(_model(request.path_params["id"], caller))})


async def list_models(_request: Request, caller: Caller) -> Response:
    """The models that are installed."""
    return JSONResponse({"models": [_model_item(model) for model in caller.services.catalogue]})


def _size(body: Upscale) -> dict[str, Any]:
    if body.target_width is not None:
        return {"width": body.target_width}
    return {"upscaleFactor": body.scaling_factor or body.upscale_factor or 2}


def _how(request: Request, body: Upscale, caller: Caller) -> dict[str, Any]:
    """The model and its settings.

    Raises:
        ParameterError: for what no installed model can do.
    """
    seamless = {"seamless": _SEAMLESS[body.image_type]} if body.image_type in _SEAMLESS else {}
    named = request.path_params.get("model")
    if named is not None and named not in _DEFAULT_MODELS:
        model = _model(named, caller)
        asked_of_it = _settings(body)
        if model.diffusion is not None:
            asked_of_it = diffusion_settings(model, asked_of_it)
        given = {name: value for name, value in asked_of_it.items() if value is not None}
        return {"model": model.name, "settings": given or None, **seamless}
    wire = dict(zip(Upscale.__struct_fields__, Upscale.__struct_encode_fields__, strict=True))
    asked = [
        name
        for name in wire
        if name not in _OF_ALL and (value := getattr(body, name)) and value not in _USUAL.get(name, ())
    ]
    if not asked:
        return seamless
    model = diffusion_model(caller.services.catalogue, wire[asked[0]])
    settings = {"preset": "balanced"} | {
        name: value for name, value in _settings(body).items() if value is not None
    }
    return {"model": model.name, "settings": diffusion_settings(model, settings), **seamless}


_SEAMLESS: Final = {"skybox": "x", "texture": "both"}

_USUAL: Final[Mapping[str, tuple[str | float, ...]]] = {
    "preset": ("precise", "balanced"),
    "style": ("standard",),
    "strength": (0.1,),
    "guidance_scale": (6,),
    "controlnet_conditioning_scale": (0.8,),
    "style_strength": (0.5,),
}
"""Scenario's own defaults, which some clients send, and ask for nothing which a GAN could not do.

Source: docs.scenario.com, "Scenario Upscale V3".
"""


def _settings(body: Upscale) -> dict[str, Any]:
    """What is wanted, by the names that it has here."""
    style_strength = None if body.style_strength is None else 100 * body.style_strength
    fidelity = body.style_images_fidelity if body.style_images_fidelity is not None else style_strength
    return {
        "preset": body.preset,
        "style": body.style,
        "positivePrompt": body.prompt or None,
        "negativePrompt": body.negative_prompt or None,
        "overrideEmbeddings": body.override_embeddings or None,
        "seed": body.seed,
        "creativity": body.creativity if not body.strength else None,
        "strength": body.strength or None,
        "creativityDecay": body.creativity_decay,
        "hallucination": body.hallucination,
        "imageFidelity": body.image_fidelity,
        "controlNetWeight": body.controlnet_conditioning_scale,
        "promptFidelity": body.prompt_fidelity,
        "CFGScale": body.guidance_scale,
        "detailsLevel": body.details_level,
        "fractality": body.fractality,
        "refinementSteps": body.refinement_steps,
        "styleImages": body.style_images or None,
        "styleImagesFidelity": fidelity if body.style_images else None,
        "tileStyle": body.tile_style or None,
    }


def _model(name: str, caller: Caller) -> Model:
    catalogue = caller.services.catalogue
    model = catalogue.default if name in _DEFAULT_MODELS else model_called(catalogue, name)
    if model is None:
        raise NotFoundError("modelNotFound", f"there is no model {name[:64]!r}", "modelId")
    return model


def _model_item(model: Model) -> dict[str, Any]:
    inputs = [
        {"name": "image", "type": "file", "required": True},
        {"name": "upscaleFactor", "type": "number"},
    ]
    inputs += [{"name": name, "type": "string"} for name in model.parameters]
    return {
        "id": model.name,
        "name": model.title,
        "shortDescription": model.description,
        "type": "custom",
        "status": "trained",
        "capabilities": ["img2img"],
        "inputs": inputs,
        "tags": [],
        "privacy": "public",
    }


async def _asset(given: str, caller: Caller) -> dict[str, Any]:
    record = await caller.services.images.find(caller.account, _uuid(given, "assetId"), caller.login.scope)
    if record is None:
        raise NotFoundError("imageNotFound", f"there is no asset {given[:64]}", "assetId")
    return await _asset_item(record, caller)


async def _asset_item(record: ImageRecord, caller: Caller) -> dict[str, Any]:
    created = _iso(record.expires - caller.services.settings.image_ttl)
    return {
        "id": record.uuid,
        "url": await caller.services.images.url(record.name, caller.base_url),
        "mimeType": MEDIA_TYPES[record.name.rpartition(".")[2]],
        "kind": "image",
        "status": "success",
        "source": "upscale",
        "metadata": {"type": "upscale", "kind": "image"},
        "properties": {"size": record.size, "width": record.width, "height": record.height},
        "tags": [],
        "collectionIds": [],
        "editCapabilities": [],
        "privacy": "private",
        "authorId": caller.owner,
        "ownerId": caller.owner,
        "createdAt": created,
        "updatedAt": created,
    }


async def _job(given: str, caller: Caller) -> dict[str, Any]:
    return await _job_item(await caller.record(_uuid(given, "jobId")), caller)


async def _job_item(record: TaskRecord, caller: Caller) -> dict[str, Any]:
    """A job as it stands."""
    item = await caller.standing(record)
    assets: list[str] = []
    metadata: dict[str, Any] = {"input": {}}
    progress = 0.0
    if isinstance(item, ErrorItem):
        status = "canceled" if item.code == "taskCancelled" else "failure"
        metadata["error"] = item.message
    elif isinstance(item, Progress):
        progress = caller.share(item)
        status = "in-progress" if progress else "queued"
    else:
        assets, status, progress = [item.image_uuid or ""], "success", 1.0
    updated = _iso(record.created if record.finished is None else record.finished)
    return {
        "jobId": record.task_uuid,
        "jobType": "upscale",
        "status": status,
        "progress": progress,
        "createdAt": _iso(record.created),
        "updatedAt": updated,
        "statusHistory": [{"date": updated, "status": status}],
        "metadata": metadata | {"assetIds": assets},
        "billing": {"cuCost": _creative_units(await caller.cost(record)), "cuDiscount": 0},
        "authorId": caller.owner,
        "ownerId": caller.owner,
    }


def _creative_units(nanodollars: int) -> float:
    return nanodollars / _CREATIVE_UNIT


def _number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """A number of the query."""
    given = request.query_params.get(name)
    try:
        number = default if given is None else float(given)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise wrong(name, f"{name} must be from {least:g} to {most:g}")
    return number


def _uuid(given: str, parameter: str) -> str:
    try:
        return str(uuid.UUID(given))
    except ValueError as error:
        raise NotFoundError("taskNotFound", f"there is no {parameter} {given[:64]}", parameter) from error


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fail(item: ErrorItem) -> Response:
    """An error: a reason, and what the API calls it."""
    status = status_of(item)
    return JSONResponse({"error": item.code, "reason": item.message, "message": item.message}, status)


ROUTES: Final = [
    ServiceRoute(f"/v1/{path}", method, handle, fail, _NAMES, body=body)
    for path, method, handle, body in (
        ("assets", "POST", upload, Asset),
        ("assets/{id}", "GET", get_asset, None),
        ("generate/upscale", "POST", upscale, Upscale),
        ("generate/custom/{model}", "POST", upscale, Upscale),
        ("jobs", "GET", list_jobs, None),
        ("jobs/{id}", "GET", get_job, None),
        ("jobs/{id}/action", "POST", act_on_job, Action),
        ("models", "GET", list_models, None),
        ("models/{id}", "GET", get_model, None),
    )
]

FALLBACKS: Final = [
    Fallback(f"/v1/{path}", "scenario", fail) for path in ("assets", "generate", "jobs", "models")
]
