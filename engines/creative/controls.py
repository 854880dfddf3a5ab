"""What a person may turn of a creative upscaler, and what each of it changes: one table.

People think of creativity and fidelity, the model of noise levels and weights. `KNOBS` has a row for each
effect, with its formula; `PRESETS` has what is turned to what where nobody says; `STYLES` has the words that
a style puts beside the prompt. The documentation shows these very tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, NamedTuple

from engines.latent.diffusion import Creative, Diffusion

__all__ = ["KNOBS", "PRESETS", "STYLES", "Controls", "Knob", "Preset", "Style", "Words"]

Preset = Literal["precise", "balanced", "creative"]

Style = Literal[
    "standard",
    "photography",
    "cinematic",
    "analog-film",
    "anime",
    "cartoon",
    "comic",
    "digital-art",
    "fantasy-art",
    "minimalist",
    "3d-rendered",
    "line-art",
    "low-poly",
    "pixel-art",
    "texture",
]


class Words(NamedTuple):
    """What a style adds to the prompt, and to the negative one."""

    wanted: str
    unwanted: str


_POOR: Final = "blurry, low quality, jpeg artifacts"

STYLES: Final[Mapping[Style, Words]] = {
    "standard": Words("sharp, highly detailed", _POOR),
    "photography": Words("photograph, natural light, fine texture", f"painting, drawing, 3d render, {_POOR}"),
    "cinematic": Words("film still, dramatic light, shallow depth of field", f"drawing, cartoon, {_POOR}"),
    "analog-film": Words("analog film photograph, film grain, faded colors", f"3d render, drawing, {_POOR}"),
    "anime": Words("anime, clean lines, cel shading", f"photograph, 3d render, {_POOR}"),
    "cartoon": Words("cartoon, bold outlines, flat colors", f"photograph, {_POOR}"),
    "comic": Words("comic book illustration, inked lines, halftone", f"photograph, {_POOR}"),
    "digital-art": Words("digital painting, highly detailed", f"photograph, {_POOR}"),
    "fantasy-art": Words("fantasy illustration, intricate, dramatic light", f"photograph, {_POOR}"),
    "minimalist": Words("minimalist, clean shapes, smooth surfaces", f"clutter, noise, {_POOR}"),
    "3d-rendered": Words("3d render, physically based materials, global illumination", f"sketch, {_POOR}"),
    "line-art": Words("line art, clean ink lines, white background", f"photograph, shading, {_POOR}"),
    "low-poly": Words("low poly, flat shaded polygons", f"photograph, smooth, {_POOR}"),
    "pixel-art": Words("pixel art, crisp pixels, limited palette", f"photograph, smooth, {_POOR}"),
    "texture": Words("surface texture, even light, fine detail", f"shadows, perspective, {_POOR}"),
}


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What a request has turned; what is None is as the preset has it."""

    preset: Preset = "balanced"
    style: Style = "standard"
    own_words: bool = False
    """Whether the prompts are taken as they are, without the words of the style."""
    creativity: float | None = None
    creativity_decay: float | None = None
    hallucination: float | None = None
    image_fidelity: float | None = None
    prompt_fidelity: float | None = None
    details_level: float | None = None
    fractality: float | None = None
    refinement_steps: int | None = None
    style_images_fidelity: float | None = None
    strength: float | None = None
    """What creativity would come to; so are the next two of prompt and image fidelity."""
    guidance: float | None = None
    control: float | None = None

    def turned(self) -> dict[str, float]:
        """What each knob stands at, by its name."""
        given = {knob.name: getattr(self, knob.name) for knob in KNOBS}
        return {**PRESETS[self.preset], **{name: value for name, value in given.items() if value is not None}}

    def diffusion(self, wanted: Diffusion) -> Diffusion:
        """What that comes to.

        Args:
            wanted: all else, such as the seed and the prompts.
        """
        turned = self.turned()
        values: dict[str, Any] = {knob.changes: knob.formula(turned[knob.name]) for knob in KNOBS}
        named = {name: getattr(self, name) for name in ("strength", "guidance", "control")}
        values |= {name: value for name, value in named.items() if value is not None}
        own = {field.name for field in fields(Creative)}
        creative = replace(
            wanted.creative or Creative(),
            **{name: value for name, value in values.items() if name in own},
        )
        words = Words("", "") if self.own_words else STYLES[self.style]
        return replace(
            wanted,
            prompt=_joined(wanted.prompt, words.wanted),
            negative_prompt=_joined(wanted.negative_prompt, words.unwanted),
            creative=creative,
            **{name: value for name, value in values.items() if name not in own},
        )


class Knob(NamedTuple):
    """One effect of a control."""

    name: str
    """Of the control, a field of `Controls`."""
    low: float
    high: float
    changes: str
    """The field of `Creative` or of `Diffusion` that it sets."""
    formula: Callable[[float], float]
    written: str
    """The formula, as documentation has it."""
    meaning: str
    """Of what it sets."""


KNOBS: Final = (
    Knob(
        "creativity", 0, 100, "strength", lambda value: value / 100,
        "creativity / 100",
        "The share of the steps that are done: how much noise hides the picture before it is drawn.",
    ),
    Knob(
        "creativity_decay", 0, 100, "kept", lambda value: value / 100,
        "creativityDecay / 100",
        "How much of the strength is left in each further pass: at 100 all of it, at 0 next to nothing.",
    ),
    Knob(
        "hallucination", 0, 100, "extra_noise", lambda value: value / 1000,
        "hallucination / 1000",
        "By how much more noise is added than the model is told, which it takes for detail.",
    ),
    Knob(
        "hallucination", 0, 100, "control_end", lambda value: 1 - value / 200,
        "1 - hallucination / 200",
        "The share of the steps in which the ControlNet is heard; the last ones draw the details.",
    ),
    Knob(
        "image_fidelity", 0, 100, "control", lambda value: value / 100,
        "imageFidelity / 100",
        "The weight of the ControlNet, which holds on to the shapes of the picture.",
    ),
    Knob(
        "prompt_fidelity", 0, 100, "guidance", lambda value: 1 + 0.12 * value,
        "1 + 0.12 x promptFidelity",
        "The guidance: how far to go towards the prompt and away from the negative one.",
    ),
    Knob(
        "details_level", -50, 50, "understated", lambda value: value / 250,
        "detailsLevel / 250",
        "By which share the model is told of less noise than there is: what it leaves is detail. Below 0 of "
        "more, and it smooths.",
    ),
    Knob(
        "fractality", 0, 100, "window", lambda value: 2 ** ((50 - value) / 50),
        "2^((50 - fractality) / 50)",
        "The side of windows, as a multiple of the model's own: small ones show the model less of the whole.",
    ),
    Knob(
        "refinement_steps", 0, 4, "refinements", int,
        "refinementSteps",
        "How often the picture is drawn at its own size before it is enlarged.",
    ),
    Knob(
        "style_images_fidelity", 0, 100, "style_weight", lambda value: value / 100,
        "styleImagesFidelity / 100",
        "The weight of the IP-Adapter, which takes a style from images.",
    ),
)  # fmt: skip
"""Each effect of each control. Settings such as `strength` that name a value themselves go before."""

PRESETS: Final[Mapping[Preset, Mapping[str, float]]] = {
    "precise": {
        "creativity": 20,
        "creativity_decay": 50,
        "hallucination": 0,
        "image_fidelity": 100,
        "prompt_fidelity": 40,
        "details_level": 0,
        "fractality": 50,
        "refinement_steps": 0,
        "style_images_fidelity": 50,
    },
    "balanced": {
        "creativity": 35,
        "creativity_decay": 60,
        "hallucination": 0,
        "image_fidelity": 80,
        "prompt_fidelity": 50,
        "details_level": 0,
        "fractality": 50,
        "refinement_steps": 0,
        "style_images_fidelity": 50,
    },
    "creative": {
        "creativity": 55,
        "creativity_decay": 75,
        "hallucination": 30,
        "image_fidelity": 60,
        "prompt_fidelity": 60,
        "details_level": 10,
        "fractality": 60,
        "refinement_steps": 0,
        "style_images_fidelity": 70,
    },
}


def _joined(prompt: str, words: str) -> str:
    return ", ".join(filter(None, (prompt, words)))
