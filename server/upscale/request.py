"""From an `upscale` task to the request that is recorded of it.

Pure functions; `checks` sees that the task makes sense, `pricing` what it costs, and `runner` has it done.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from msgspec import UNSET

from engines import Diffusion, OutputFormat
from onnx_models import Catalogue, Model, UnknownModelError
from server.protocol.codec import Codec
from server.protocol.errors import invalid, missing, unsupported
from server.protocol.fields import given
from server.protocol.raw_image import Channels
from server.protocol.requests import OutputFormat as WireFormat
from server.protocol.requests import Upscale, UpscaleSettings
from server.protocol.sources import ImageSource, RemoteImage, StoredImage, UnstoredImage, read_source
from server.state.grants import Grant
from server.state.requests import BlendRequest, Service, TaskGrant, UpscaleRequest
from server.upscale.auxiliaries import Beside, offered_beside
from server.upscale.creative import FILTER, creative_diffusion, default_enlarger

__all__ = [
    "Models",
    "choose_models",
    "cut_warnings",
    "diffusion_of",
    "input_source",
    "options_of",
    "request_for",
]


class Models(NamedTuple):
    """What does a task: one model, or two whose results are blended."""

    first: Model
    second: Model | None = None
    enlarger: Model | None = None
    """What enlarges before a creative upscaler draws; None for a filter, and where none of them is one."""


async def input_source(task: Upscale, codec: Codec) -> tuple[str, ImageSource]:
    """The name of the parameter that gives the input, and what it names.

    Raises:
        ParameterError: if there is no input, two, or one that cannot be read.
    """
    if task.inputs.video is not UNSET:
        raise unsupported("inputs.video", "this server upscales images only")
    if task.input_image is not UNSET and task.inputs.image is not UNSET:
        raise invalid("inputImage", "give inputImage or inputs.image, not both")
    if task.input_image is not UNSET:
        return "inputImage", await read_source(task.input_image, "inputImage", codec)
    if task.inputs.image is not UNSET:
        return "inputs.image", await read_source(task.inputs.image, "inputs.image", codec)
    raise missing("inputImage", "an input is required, as inputImage or inputs.image")


def request_for(
    task: Upscale,
    *,
    models: Models,
    source: StoredImage | RemoteImage | UnstoredImage,
    parameter: str,
    warnings: tuple[str, ...],
    beside: Beside,
    channels: Channels | None = None,
    service: Service = "runware",
    traceparent: str | None = None,
    grant: TaskGrant | None = None,
    key: str | None = None,
) -> UpscaleRequest:
    """The request that a checked task amounts to.

    Args:
        task: as it came.
        models: what does it.
        source: the input; a file that came within the task is stored by now.
        parameter: which one named it.
        warnings: what the reply is to say beside the result.
        beside: what it wants beside the upscale.
        channels: of raw pixels that came as the input.
        service: in whose shape it came.
        traceparent: of the HTTP request that it came with; the task's own wins.
        grant: of the token that it came with.
        key: the id of the key that it came with.
    """
    kinds = task.output_type if isinstance(task.output_type, list) else [task.output_type]
    is_raw = task.output_format is WireFormat.RAW
    return UpscaleRequest(
        task_type=str(task.__struct_config__.tag),
        task_uuid=task.task_uuid,
        model=_named(models.first, beside, only=task.restore_only),
        source=source,
        parameter=parameter,
        factor=task.upscale_factor,
        target_megapixels=task.target_megapixels,
        width=task.width,
        height=task.height,
        resize_mode=task.resize_mode or "fit",
        seamless=("both" if task.seamless else None) if isinstance(task.seamless, bool) else task.seamless,
        tta=task.tta == 8,
        blend=_blend(task, models.second),
        output_types=tuple(dict.fromkeys(kinds)),
        output_format=OutputFormat.PNG if is_raw else OutputFormat(task.output_format.value),
        channels=channels,
        raw=is_raw,
        store=bool(task.store),
        output_quality=task.output_quality,
        sequence=task.sequence,
        ttl=task.ttl,
        include_cost=task.include_cost,
        include_progress=task.include_progress,
        include_tiles=task.include_tiles,
        keep_metadata=task.keep_metadata,
        keep_hidden_colors=task.keep_hidden_colors,
        webhook_url=task.webhook_url,
        upload_endpoint=task.upload_endpoint,
        diffusion=None if task.restore_only else diffusion_of(task, models.first),
        enlarger=None if models.enlarger is None else models.enlarger.name,
        denoise=given(task.settings.denoise, None) if task.settings else None,
        denoiser=beside.denoiser,
        face_restorer=beside.face_restorer,
        restore_only=task.restore_only,
        safety=beside.safety,
        warnings=warnings,
        service=service,
        traceparent=task.traceparent or traceparent,
        grant=grant,
        key=key,
    )


def _named(model: Model, beside: Beside, *, only: bool) -> str:
    """The model that a task counts for: where nothing is upscaled, that of the last step beside."""
    last = beside.face_restorer or beside.denoiser
    return last.model if only and last is not None else model.name


def options_of(model: Model, catalogue: Catalogue) -> list[str]:
    """The parameters of a task beside `settings` that are not always honoured, and are by this model here."""
    options = ["tta", "blend"] if model.latent is not None else ["seamless", "tta", "blend"]
    if any(each.kind == "safetyChecker" for each in catalogue.auxiliaries):
        options.append("checkNSFW")
    return [*options, *offered_beside(catalogue)]


def diffusion_of(task: Upscale, model: Model, settings: UpscaleSettings | None = None) -> Diffusion | None:
    """What a checked task wants of a model that removes noise; None for other models.

    Without a seed of its own it gets one that is the same when it is sent again.

    Args:
        task: as it came.
        model: what does it, or is blended into it.
        settings: for the model; default: those of the task.
    """
    if model.diffusion is None:
        return None
    settings = settings or task.settings or UpscaleSettings()
    seed = UUID(task.task_uuid).int % 2**32
    if model.creative is not None:
        return creative_diffusion(settings, model.creative, seed % 2**31)
    assert model.latent is not None
    strength = given(settings.strength, 1.0)
    drafts = strength < 1 and model.latent.draft_steps > 0
    default = Diffusion(
        steps=model.latent.draft_steps if drafts else model.latent.default_steps,
        seed=seed,
        scheduler=model.latent.default_scheduler,
    )
    fix = settings.color_fix
    return Diffusion(
        steps=given(settings.steps, default.steps),
        seed=given(settings.seed, default.seed),
        guidance=given(settings.cfg_scale, default.guidance),
        prompt=given(settings.positive_prompt, default.prompt),
        negative_prompt=given(settings.negative_prompt, default.negative_prompt),
        strength=strength,
        scheduler=given(settings.scheduler, default.scheduler),
        noise_level=given(settings.noise_level, default.noise_level),
        colour_fix=("wavelet" if fix else None) if isinstance(fix, bool) else given(fix, default.colour_fix),
    )


def _blend(task: Upscale, second: Model | None) -> BlendRequest | None:
    if task.blend is None or second is None or task.blend.visibility == 0:
        return None
    seed = task.settings.seed if task.settings else UNSET
    return BlendRequest(
        model=second.name,
        visibility=task.blend.visibility,
        diffusion=diffusion_of(task, second, UpscaleSettings(seed=seed)),
    )


def cut_warnings(cut: Iterable[str]) -> tuple[str, ...]:
    """What the reply says of prompts that are too long.

    Args:
        cut: the names of those in a `Diffusion`.
    """
    names = {"prompt": "positivePrompt", "negative_prompt": "negativePrompt"}
    return tuple(
        f"settings.{names[name]} is longer than the model takes; its end was ignored" for name in cut
    )


def choose_models(catalogue: Catalogue, task: Upscale, grant: Grant | None = None) -> Models:
    """The models of the names or AIR ids that a task gives; the default where it gives none.

    Args:
        catalogue: of all models.
        task: as it was sent.
        grant: of the token that it came with, whose default is the first of the models that it is for.

    Raises:
        ParameterError: if there is none of a name, and the message names those that there are; or it is not
            one of the token's.
    """
    offered = () if grant is None else grant.terms.models
    name = next(iter(offered), None) if task.model is None else task.model
    first = catalogue.default if name is None else _model(catalogue, name, "model", offered)
    second = None if task.blend is None else _model(catalogue, task.blend.model, "blend.model", offered)
    is_creative = any(each is not None and each.creative is not None for each in (first, second))
    return Models(first, second, _enlarger(catalogue, task, offered) if is_creative else None)


def _enlarger(catalogue: Catalogue, task: Upscale, offered: Sequence[str]) -> Model | None:
    """What enlarges before a creative upscaler draws: by default the catalogue's default, or its first."""
    name = given(task.settings.enlarger, None) if task.settings else None
    if name is None:
        return default_enlarger(catalogue)
    if name == FILTER:
        return None
    model = _model(catalogue, name, "settings.enlarger", offered)
    if model.diffusion is not None or not model.fractional:
        raise invalid(
            "settings.enlarger", f"{model.name} cannot do this: a model of one network by any factor can"
        )
    return model


def _model(catalogue: Catalogue, name: str, parameter: str, offered: Sequence[str]) -> Model:
    try:
        model = catalogue.get(name)
    except UnknownModelError as error:
        raise invalid(parameter, str(error)) from error
    if offered and model.name not in offered:
        raise unsupported(parameter, f"the token is for these models: {', '.join(offered)}")
    return model
