"""What a request may want of a model that removes noise."""

from dataclasses import dataclass

from engines.colour_fix import ColourFix
from engines.samplers import Scheduler

__all__ = ["Diffusion"]


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """What a request wants of a latent upscaler."""

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
