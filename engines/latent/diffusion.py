"""What a request may want of a model that removes noise."""

from dataclasses import dataclass

from engines.latent.colour_fix import ColourFix
from engines.latent.samplers import Scheduler, evaluations

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
    noise_level: int | None = None
    """How much noise is added to the image before the model sees it; None is the model's default."""

    @property
    def steps_done(self) -> int:
        """How many of the steps are left with this strength (as in SDEdit, Meng et al. 2021); at least 1."""
        return min(self.steps, max(1, round(self.steps * self.strength)))

    @property
    def guided(self) -> bool:
        """Whether there is something to guide away from: equal prompts would give equal results."""
        return self.guidance > 1 and self.prompt != self.negative_prompt

    @property
    def evaluations(self) -> int:
        """How often the model looks at each place of a picture, which is what it costs."""
        return evaluations(self.scheduler, self.steps_done) * (2 if self.guided else 1)
