"""`modelSearch`: the models that are installed."""

from msgspec import UNSET, UnsetType

from onnx_models import Auxiliary, Catalogue, Model
from server.handlers.context import Context
from server.protocol.replies import ModelItem, ModelSearchResult, WindowsItem
from server.protocol.requests import ModelSearch
from server.settings import Settings
from server.telemetry.speeds import Speeds
from server.upscale.creative import default_enlarger, presets
from server.upscale.request import options_of

__all__ = ["handle", "windows_of"]

_CATEGORY = "upscaler"


async def handle(task: ModelSearch, context: Context) -> ModelSearchResult:
    """The models whose name, aliases, AIR id, title or description contain all words of `search`.

    Without a category they are those that enlarge: whatever is listed may be a task's `model`.
    """
    words = task.search.casefold().split()
    grant = context.login.grant
    settings, speeds = context.services.settings, context.services.telemetry.speeds
    found = [
        _describe(model, context.services.catalogue, settings, speeds)
        for model in context.services.catalogue
        if (grant is None or not grant.terms.models or model.name in grant.terms.models)
        and all(word in _text(model) for word in words)
        and task.category in (None, _CATEGORY)
        and task.architecture in (None, model.family)
    ]
    found += [
        _describe_auxiliary(model, settings)
        for model in context.services.catalogue.auxiliaries
        if all(word in _text(model) for word in words)
        and task.category == model.kind
        and task.architecture in (None, model.kind)
    ]
    return ModelSearchResult(
        task_uuid=task.task_uuid,
        total_results=len(found),
        results=found[task.offset : task.offset + task.limit],
    )


def _text(model: Model | Auxiliary) -> str:
    more = (model.kind,) if isinstance(model, Auxiliary) else (*model.aliases, model.family)
    words = (model.name, model.air, model.title, model.description, *more)
    return " ".join(words).casefold()


def _describe(model: Model, catalogue: Catalogue, settings: Settings, speeds: Speeds) -> ModelItem:
    # How many looks diffusion takes is up to the task: it has no speed of its own.
    enlarger = default_enlarger(catalogue)
    speed = speeds.seconds_per_megapixel(model.name) if model.diffusion is None else None
    return ModelItem(
        air=model.air,
        name=model.name,
        version=model.air.rpartition("@")[2],
        category=_CATEGORY,
        architecture=model.family,
        tags=["upscale"],
        title=model.title,
        comment=model.description,
        upscale_factors=list(model.factors),
        fractional_factors=model.fractional,
        parameters=list(model.parameters),
        options=options_of(model, catalogue),
        default_steps=UNSET if model.diffusion is None else model.diffusion.default_steps,
        strength_steps=UNSET if model.latent is None else model.latent.draft_steps or UNSET,
        presets=UNSET if model.creative is None else presets(),
        windows=windows_of(model),
        enlarger=UNSET if model.creative is None or enlarger is None else enlarger.air,
        seconds_per_megapixel=UNSET if speed is None else round(speed, 4),
        price_per_megapixel=settings.prices.get(model.name, model.price_per_megapixel),
        licence=model.licence,
    )


def windows_of(model: Model) -> WindowsItem | UnsetType:
    """What a creative upscaler draws in."""
    if (weights := model.creative) is None:
        return UNSET
    return WindowsItem(
        side=model.tile, overlap=model.overlap, multiple=weights.multiple_in_pixels, cell=weights.cell
    )


def _describe_auxiliary(model: Auxiliary, settings: Settings) -> ModelItem:
    return ModelItem(
        air=model.air,
        name=model.name,
        version=model.air.rpartition("@")[2],
        category=model.kind,
        architecture=model.kind,
        tags=[],
        title=model.title,
        comment=model.description,
        upscale_factors=[],
        fractional_factors=False,
        parameters=list(model.parameters),
        options=[],
        price_per_megapixel=settings.prices.get(model.name, model.price_per_megapixel),
        licence=model.licence,
    )
