"""What a task wants of a creative upscaler: checked, and as the engine has it."""

from collections.abc import Iterator
from typing import Final

from msgspec import UNSET, UnsetType

from engines import KNOBS, PRESETS, Controls, Creative, Diffusion
from onnx_models import Catalogue, CreativeWeights, Model
from server.protocol.errors import ParameterError, invalid, unsupported
from server.protocol.fields import given
from server.protocol.names import wire_name
from server.protocol.requests import ColorFix, UpscaleSettings

__all__ = ["FILTER", "check_creative", "creative_diffusion", "default_enlarger", "presets", "style_images"]

FILTER: Final = "lanczos"
"""What `enlarger` calls the filter."""

_NAMES_ITSELF: Final = {
    "strength": "creativity",
    "cfg_scale": "prompt_fidelity",
    "control_net_weight": "image_fidelity",
}
"""Settings that name a value themselves, and the one that would come to it otherwise."""


def check_creative(settings: UpscaleSettings, model: Model) -> None:
    """See that settings of a creative upscaler make sense together.

    Args:
        settings: which the model takes each by itself.
        model: what they are for.

    Raises:
        ParameterError: naming the one that is wrong.
    """
    weights = model.creative
    if weights is None:
        return
    for error in _faults(settings, model, weights):
        raise error


def _faults(settings: UpscaleSettings, model: Model, weights: CreativeWeights) -> Iterator[ParameterError]:
    for itself, control in _NAMES_ITSELF.items():
        if UNSET not in (getattr(settings, itself), getattr(settings, control)):
            named, other = wire_name(itself), wire_name(control)
            yield invalid(f"settings.{named}", f"give {named} or {other}, which comes to one, not both")
    if settings.tile_diffusion is False:
        yield unsupported("settings.tileDiffusion", f"{model.name} draws large images in windows always")
    if settings.clip_skip is not UNSET and settings.clip_skip > weights.largest_clip_skip:
        yield invalid(
            "settings.clipSkip", f"{model.name} can leave out 0 to {weights.largest_clip_skip}", "integer"
        )
    for name in ("style_images_fidelity", "tile_style"):
        if settings.style_images is UNSET and getattr(settings, name) not in (UNSET, False):
            yield invalid(f"settings.{wire_name(name)}", f"{wire_name(name)} needs styleImages")


def creative_diffusion(settings: UpscaleSettings, weights: CreativeWeights, seed: int) -> Diffusion:
    """What checked settings want of a creative upscaler.

    Args:
        settings: as they were sent.
        weights: of the upscaler, which has defaults.
        seed: for a task that gives none.
    """
    turned = {
        knob.name: getattr(settings, knob.name) for knob in KNOBS if getattr(settings, knob.name) is not UNSET
    }
    controls = Controls(
        preset=given(settings.preset, "balanced"),
        style=given(settings.style, "standard"),
        own_words=given(settings.override_embeddings, False),
        strength=given(settings.strength, None),
        guidance=given(settings.cfg_scale, None),
        control=given(settings.control_net_weight, None),
        **turned,
    )
    fix: ColorFix | bool = given(settings.color_fix, True)
    return controls.diffusion(
        Diffusion(
            steps=given(settings.steps, weights.default_steps),
            seed=given(settings.seed, seed),
            prompt=given(settings.positive_prompt, ""),
            negative_prompt=given(settings.negative_prompt, ""),
            scheduler=given(settings.scheduler, weights.default_scheduler),
            colour_fix=("wavelet" if fix else None) if isinstance(fix, bool) else fix,
            creative=Creative(
                clip_skip=given(settings.clip_skip, 0), match_tiles=given(settings.tile_style, False)
            ),
        )
    )


def style_images(settings: UpscaleSettings | None) -> list[str]:
    """The names of the images that a style is to be taken from."""
    if settings is None or isinstance(settings.style_images, UnsetType):
        return []
    return [settings.style_images] if isinstance(settings.style_images, str) else settings.style_images


def default_enlarger(catalogue: Catalogue) -> Model | None:
    """What enlarges before a creative upscaler draws: the default model, or the first of one network."""
    return next((each for each in (catalogue.default, *catalogue) if each.diffusion is None), None)


def presets() -> dict[str, dict[str, float]]:
    """What each preset has the settings at, by their names on the wire."""
    return {
        preset: {wire_name(name): value for name, value in values.items()}
        for preset, values in PRESETS.items()
    }
