"""What a request may want of a model that removes noise."""

from dataclasses import dataclass, replace

from engines.latent.colour_fix import ColourFix
from engines.latent.samplers import Scheduler, evaluations

__all__ = ["Creative", "Diffusion"]


@dataclass(frozen=True, kw_only=True)
class Creative:
    """What a request may want of a creative upscaler beside."""

    kept: float = 1.0
    """By how much the strength is multiplied from pass to pass."""
    control: float = 1.0
    """The weight of the ControlNet's residuals (diffusers' `controlnet_conditioning_scale`)."""
    control_end: float = 1.0
    """The share of the steps in which it is heard (diffusers' `control_guidance_end`)."""
    clip_skip: int = 0
    """How many layers before the pipeline's own the prompt is taken from; the negative prompt never is."""
    extra_noise: float = 0.0
    """By how much more than the model is told the picture is noised: it takes some of it for detail."""
    understated: float = 0.0
    """By which share less noise than there is the model is told at every step, below 1: what it leaves is
    detail. Below 0 it is told more, and smooths."""
    window: float = 1.0
    """The side of windows / the model's own."""
    refinements: int = 0
    """How many passes come before the picture is enlarged."""
    style_weight: float = 0.0
    """Of the images that a style is taken from (diffusers' `ip_adapter_scale`)."""
    match_tiles: bool = False
    """Whether each window takes its style from the part of the style's image that is where it is."""


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """What a request wants of a latent or creative upscaler."""

    steps: int = 20
    seed: int = 0
    guidance: float = 1.0
    """How far to go beyond the prompt, away from the negative one; up to 1 is no guidance."""
    prompt: str = ""
    negative_prompt: str = ""
    strength: float = 1.0
    """The share of the steps that are done: with less than 1 the enlarged image itself is begun with."""
    scheduler: Scheduler = "Euler"
    colour_fix: ColourFix | None = None
    noise_level: int | None = None
    """How much noise is added to the image before the model sees it; None is the model's default."""
    creative: Creative | None = None
    """Of creative upscalers only."""

    @property
    def steps_done(self) -> int:
        """How many of the steps are left with this strength (as in SDEdit, Meng et al. 2021); at least 1.

        Rounded down, as diffusers' `StableDiffusionImg2ImgPipeline.get_timesteps` does it.
        """
        return min(self.steps, max(1, int(self.steps * self.strength)))

    @property
    def guided(self) -> bool:
        """Whether there is something to guide away from: equal prompts would give equal results.

        Not so of a creative upscaler, whose negative prompt has no style images.
        """
        return self.guidance > 1 and (self.prompt != self.negative_prompt or self.creative is not None)

    @property
    def evaluations(self) -> int:
        """How often the model looks at each place of a picture in a pass, which is what that costs."""
        return evaluations(self.scheduler, self.steps_done) * (2 if self.guided else 1)

    def of_pass(self, number: int) -> "Diffusion":
        """What is wanted of a pass of a creative upscaler, from 0: less and less strength."""
        kept = 1.0 if self.creative is None else self.creative.kept
        return replace(self, strength=self.strength * kept**number)
