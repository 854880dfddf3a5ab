"""Upscaling: `generate/upscale` and `generate/custom/{model}`.

What only a diffusion upscaler can do needs one that is installed and takes prompts; what no installed model
can do is refused by name.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.http.providers.bodies import read_json
from server.http.providers.caller import Caller
from server.http.providers.diffusion import diffusion_model, diffusion_settings
from server.http.providers.scenario.jobs import job_item
from server.http.providers.scenario.models import DEFAULT_MODELS, find_model
from server.http.providers.scenario.notation import creative_units

__all__ = ["Upscale", "upscale"]

Percent = Annotated[float, Meta(ge=0, le=100)]


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


_OF_ALL: Final = {"image", "scaling_factor", "upscale_factor", "target_width", "image_type", "seed"}
"""What any upscaler can do, which is the same again where nothing is random; all else takes diffusion."""


async def upscale(request: Request, caller: Caller) -> Response:
    """Take a job on, of the model in the path or of the default one."""
    body = await read_json(request, Upscale)
    task = {"inputImage": body.image, "outputFormat": "PNG", **_size(body), **_how(request, body, caller)}
    if request.query_params.get("dryRun", "false") not in ("false", "0"):  # it is enough that it is there
        cost = creative_units(await caller.quote(**task))
        return JSONResponse({"creativeUnitsCost": cost, "creativeUnitsDiscount": 0}, 269)
    accepted = await caller.accept(look_now=True, **task)  # the cost is to be known at once
    job = await job_item(accepted, caller)
    return JSONResponse({"job": job, "creativeUnitsCost": job["billing"]["cuCost"]})


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
    if named is not None and named not in DEFAULT_MODELS:
        model = find_model(named, caller)
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
