"""What a task may say: its parameters, checked together, for its models and for its input. Pure functions."""

from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET

from onnx_models import LARGEST_FACTOR, CreativeWeights, Model
from server.outbound.addresses import Reachable
from server.protocol.errors import ParameterError, TaskError, invalid, unsupported
from server.protocol.fields import given
from server.protocol.names import wire_name
from server.protocol.raw_image import RawImage
from server.protocol.requests import OutputFormat, OutputType, Upscale, UpscaleSettings
from server.protocol.sources import ImageSource
from server.upscale.creative import check_creative
from server.upscale.request import Models

__all__ = ["check", "check_raw"]


def check(task: Upscale, models: Models, reachable: Reachable) -> None:
    """See that the parameters make sense, together and for the models.

    Args:
        task: as it was sent.
        models: that it is for.
        reachable: what its URLs may lead to.

    Raises:
        ParameterError: naming the parameter that is wrong, contradictory or not offered by the model.
    """
    model = models.first
    if task.restore_only:
        _check_restoring(task)
    _refuse_unsupported(task, model)
    _check_factor(task, model)
    _check_levels(task, model)
    check_creative(task.settings or UpscaleSettings(), model)
    _check_together(task, models)
    if task.keep_hidden_colors and task.output_format is OutputFormat.JPG:
        raise invalid("keepHiddenColors", "JPG has no transparency: ask for the outputFormat PNG or WEBP")
    for name, url in (("webhookURL", task.webhook_url), ("uploadEndpoint", task.upload_endpoint)):
        if url is not None and not _is_web_address(url):
            raise invalid(name, f"{name} must be a web address: http:// or https:// and a host", "URL")
        if url is not None and not reachable.may_be_named(host := urlsplit(url).hostname or ""):
            raise invalid(name, f"{name}: {host} is not a public address", "URL")


def check_raw(task: Upscale, source: ImageSource, *, binary: bool) -> None:
    """See that what a task says of raw pixels makes sense.

    Args:
        task: as it was sent.
        source: its input.
        binary: whether it came in MessagePack, in which alone there are pixels.

    Raises:
        ParameterError: naming the parameter that is wrong, or contradictory.
    """
    is_raw = task.output_format is OutputFormat.RAW
    if task.store is not None and not is_raw and not isinstance(source, RawImage):
        raise unsupported("store", "files are always stored; only raw pixels need not be")
    if is_raw:
        _check_raw_output(task, binary=binary)


def _check_factor(task: Upscale, model: Model) -> None:
    if task.restore_only:
        return
    if task.target_megapixels is not None and task.upscale_factor is not None:
        raise invalid("targetMegapixels", "give upscaleFactor or targetMegapixels, not both")
    sizes = {"targetMegapixels": task.target_megapixels, "width": task.width, "height": task.height}
    asked = next((name for name, size in sizes.items() if size is not None), None)
    side = "width" if task.width is not None else "height" if task.height is not None else None
    if side is not None and (task.upscale_factor, task.target_megapixels) != (None, None):
        raise invalid(side, f"give {side}, or upscaleFactor or targetMegapixels, not both")
    if task.resize_mode is not None and None in (task.width, task.height):
        raise invalid("resizeMode", "resizeMode needs both width and height")
    if asked is not None and not model.fractional:
        raise unsupported(asked, f"{model.name} upscales by whole factors only")
    if task.upscale_factor is not None and not model.offers(task.upscale_factor):
        offered = ", ".join(map(str, model.factors))
        fractional = f", or any number from 1 to {LARGEST_FACTOR}" if model.fractional else ""
        raise invalid("upscaleFactor", f"{model.name} upscales by {offered}{fractional}", "number")


def _check_restoring(task: Upscale) -> None:
    """See that a task that upscales nothing asks for something else, and for no upscale."""
    sized = {name: getattr(task, name) for name in ("target_megapixels", "width", "height", "resize_mode")}
    of_upscales = {"model": task.model, "blend": task.blend, "tta": task.tta, "settings": task.settings}
    wanted = {wire_name(name): value for name, value in (sized | of_upscales).items() if value is not None}
    if task.upscale_factor not in (None, 1):
        wanted["upscaleFactor"] = task.upscale_factor
    for name in wanted:
        raise invalid(name, f"{name} is for upscales: restoreOnly leaves the picture as large as it is")
    faces, noise = task.face_restoration, task.denoise
    if not (faces and faces.visibility) and not (noise and noise.strength):
        raise invalid("restoreOnly", "restoreOnly needs faceRestoration or denoise")


def _check_levels(task: Upscale, model: Model) -> None:
    settings = task.settings or UpscaleSettings()
    most = max(0, model.latent.noise_levels - 1) if model.latent else 0
    if given(settings.noise_level, 0) > most:
        raise invalid("settings.noiseLevel", f"{model.name} adds noise of the levels 0 to {most}", "integer")
    level = given(settings.denoise, None)
    if level not in (None, *model.denoise_levels):
        levels = ", ".join(map(str, model.denoise_levels))
        raise invalid("settings.denoise", f"{model.name} removes noise at the levels {levels}", "integer")


def _check_together(task: Upscale, models: Models) -> None:
    """See that the first model, and the second if there is one, can do the same."""
    for model in filter(None, models):
        if task.seamless and model.latent is not None:
            raise unsupported("seamless", f"{model.name} cannot let edges meet; other models can")
    second = models.second
    if second is None or second.fractional:
        return
    if task.upscale_factor is None or not second.offers(task.upscale_factor):
        offered = ", ".join(map(str, second.factors))
        raise invalid("blend.model", f"{second.name} upscales by {offered} only: give such an upscaleFactor")


def _refuse_unsupported(task: Upscale, model: Model) -> None:
    refused: list[TaskError] = []
    if task.number_results != 1:
        refused.append(unsupported("numberResults", "an upscale has one result"))
    refused += [
        unsupported(f"settings.{name}", f"{model.name} has no setting {name!r}{_why_not(name, model)}")
        for name in (_settings_given(task.settings) if task.settings else ())
        if name not in model.parameters
    ]
    if refused:
        raise refused[0]


def _why_not(name: str, model: Model) -> str:
    """What a refusal adds for settings that only creative upscalers have, or those with certain parts."""
    if name not in CreativeWeights.parameters:
        return ""
    if model.creative is not None:
        return ": it was exported without the part for it, a ControlNet or an IP-Adapter"
    return (
        "; modelSearch lists the parameters of each model, and a creative upscaler, which "
        "`tilewire models export DIRECTORY` makes of a diffusion model, has it"
    )


def _settings_given(settings: UpscaleSettings) -> list[str]:
    """Their names on the wire."""
    return [
        field.encode_name
        for field in msgspec.structs.fields(settings)
        if getattr(settings, field.name) is not UNSET
    ]


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return url.startswith(("http://", "https://")) and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as a port that is no number
        return False


def _check_raw_output(task: Upscale, *, binary: bool) -> None:
    refused: list[ParameterError] = []
    if not binary:
        refused.append(
            unsupported(
                "outputFormat", "RAW needs MessagePack: the subprotocol tilewire.msgpack, or its media type"
            )
        )
    if task.output_type not in (OutputType.URL, [OutputType.URL]):
        refused.append(invalid("outputType", "RAW is handed over as `image`: leave outputType out"))
    if task.webhook_url is not None:
        refused.append(unsupported("webhookURL", "a webhookURL gets JSON, which has no RAW"))
    if task.upload_endpoint is not None:
        refused.append(unsupported("uploadEndpoint", "uploadEndpoint gets a file, which RAW is not"))
    if task.keep_metadata:
        refused.append(invalid("keepMetadata", "RAW has no metadata: leave keepMetadata out"))
    if task.ttl is not None and not task.store:
        refused.append(invalid("ttl", "what is not stored has no ttl: add store: true"))
    if refused:
        raise refused[0]
