"""The models that are installed."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from onnx_models import Model
from server.http.providers.caller import Caller
from server.http.providers.upscalers import model_called
from server.protocol.errors import NotFoundError

__all__ = ["DEFAULT_MODELS", "find_model", "get_model", "list_models"]

DEFAULT_MODELS: Final = ("model_upscale-v3", "model_scenario-upscale-v3")
"""What Scenario calls the models that it takes where none is named."""


async def get_model(request: Request, caller: Caller) -> Response:
    """A model and what it takes."""
    return JSONResponse({"model": _item(find_model(request.path_params["id"], caller))})


async def list_models(_request: Request, caller: Caller) -> Response:
    """The models that are installed."""
    return JSONResponse({"models": [_item(model) for model in caller.services.catalogue]})


def find_model(name: str, caller: Caller) -> Model:
    """A model by one of its names.

    Raises:
        NotFoundError: if none is called that.
    """
    catalogue = caller.services.catalogue
    model = catalogue.default if name in DEFAULT_MODELS else model_called(catalogue, name)
    if model is None:
        raise NotFoundError("modelNotFound", f"there is no model {name[:64]!r}", "modelId")
    return model


def _item(model: Model) -> dict[str, Any]:
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
