"""Scenario's upscaling: assets, `generate/upscale` and `generate/custom/{model}`, jobs and models.

An asset is an image of the account, a job is a task; both have the UUIDs that they have elsewhere. A creative
unit is a cent of a US dollar.

Sources: docs.scenario.com, and scenario-sdk 2.4 for Python.
"""

from typing import Final

from starlette.responses import JSONResponse, Response

from server.http.providers.caller import status_of
from server.http.providers.routes import Fallback, ServiceRoute
from server.http.providers.scenario.assets import Asset, get_asset, upload
from server.http.providers.scenario.generate import Upscale, upscale
from server.http.providers.scenario.jobs import Action, act_on_job, get_job, list_jobs
from server.http.providers.scenario.models import get_model, list_models
from server.protocol.errors import ErrorItem

__all__ = ["FALLBACKS", "ROUTES"]

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
    "targetTaskUUID": "jobId",
}


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
