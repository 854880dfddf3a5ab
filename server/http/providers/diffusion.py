"""What other services' tasks want of diffusion, as the settings of this server's upscalers.

Services name the same wishes in their own ways. A creative upscaler takes all of them; a latent upscaler
with prompts, where no creative one is installed, takes prompts, guidance, seed and strength.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from onnx_models import Catalogue, Model
from server.http.providers.caller import not_offered

__all__ = ["Quality", "diffusion_model", "diffusion_settings"]

Quality = Literal["LOW", "MIDDLE", "HIGH"]
"""How much care is taken, in Photio's words."""

_STEPS: Final[Mapping[Quality, float]] = {"LOW": 1.0, "MIDDLE": 1.5, "HIGH": 2.5}
"""Of the model's default steps."""

_STRENGTHS: Final = {"precise": 0.2, "balanced": 0.35, "creative": 0.55}
"""What a preset comes to with a latent upscaler."""

_GUIDANCE: Final = 7
"""The `CFGScale` of a latent upscaler where there is a prompt, as Stable Diffusion is mostly used."""


def diffusion_model(catalogue: Catalogue, asked: str) -> Model:
    """The upscaler that takes prompts: a creative one, or else a latent one.

    Args:
        catalogue: of all models.
        asked: what of the task only such a model can do, by its name there.

    Raises:
        ParameterError: if there is none; the message names the command that makes one.
    """
    wanted = {"positivePrompt", "strength"}
    able = [model for model in catalogue if wanted <= set(model.parameters)]
    if not able:
        raise not_offered(
            asked,
            f"{asked}: no diffusion upscaler that takes prompts is installed; "
            "`tilewire models export DIRECTORY` makes one",
        )
    return next((model for model in able if model.creative is not None), able[0])


def diffusion_settings(
    model: Model, wanted: Mapping[str, Any], quality: Quality | None = None
) -> dict[str, Any]:
    """The `settings` of a task for a diffusion upscaler.

    What the model cannot do is left in: the task is refused, and the error names it.

    Args:
        model: of `diffusion_model`.
        wanted: settings by their names on the wire; None is as not given. Of `preset` and `creativity` a
            latent upscaler takes the `strength` that they come to.
        quality: in steps of the model's default.
    """
    settings = {name: value for name, value in wanted.items() if value is not None}
    assert model.diffusion is not None
    if quality is not None:
        settings["steps"] = min(100, round(model.diffusion.default_steps * _STEPS[quality]))
    if model.creative is not None:
        return settings
    preset, creativity = settings.pop("preset", None), settings.pop("creativity", None)
    if creativity is not None:
        settings["strength"] = max(0.01, creativity / 100)
    elif preset is not None:
        settings.setdefault("strength", _STRENGTHS[preset])
    if {"positivePrompt", "negativePrompt"} & settings.keys():
        settings.setdefault("CFGScale", _GUIDANCE)
    return settings
