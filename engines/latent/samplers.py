"""How noise becomes a picture step by step, whatever removes it: the samplers of the literature.

A sampler is a generator. It yields what is to be denoised, an array and the deviation of the noise in it, is
sent what the denoiser makes of that, and returns the finished array. So it needs to know neither the model
nor where it runs, and can be tried with denoisers whose result is known.

The samplers are those of Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models
(2022), and Lu et al., DPM-Solver++ (2022), in the variance-exploding form that k-diffusion made customary.
"""

import math
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scheduler", "Spacing", "evaluations", "noise_levels", "sample"]

Array: TypeAlias = NDArray[np.float32]
Sampling: TypeAlias = Generator[tuple[Array, float], Array, Array]
Noise: TypeAlias = Callable[[], Array]

Scheduler = Literal["Euler", "Euler Karras", "Euler a", "Heun", "Heun Karras", "DPM++ 2M", "DPM++ 2M Karras"]

Spacing = Literal["linspace", "trailing", "leading"]
Curve = Literal["linear", "scaled_linear"]
LastNoise = Literal["zero", "least"]

_RHO = 7.0  # Karras et al., section 3, below equation 5


def noise_levels(
    scheduler: Scheduler,
    steps: int,
    *,
    beta_start: float,
    beta_end: float,
    trained: int,
    spacing: Spacing = "linspace",
    curve: Curve = "scaled_linear",
    offset: int = 1,
    last: LastNoise = "zero",
) -> list[float]:
    """The deviations of the noise before each step, falling, and after the last.

    Evenly spaced in the steps that the model was trained with; with "Karras" in the name as in their
    equation 5, between the same ends.

    Args:
        scheduler: what is to be done.
        steps: at least 1.
        beta_start: of the training; the noise of its first step.
        beta_end: of the training; the noise of its last step.
        trained: the steps of the training.
        spacing: after Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed (2023),
            table 2: "linspace" ends with the least noise, which is what a single step gets; "trailing" begins
            with the most, however few steps there are; "leading" with less than the most, and ends as
            Stable Diffusion's DDIM does, `offset` above the least.
        curve: what rises evenly in the training: beta, or its square root.
        offset: with which step of the training the spacing "leading" ends.
        last: what Euler's last step leaves: nothing, or the least noise of the training.
    """
    power = 2 if curve == "scaled_linear" else 1
    betas = np.linspace(beta_start ** (1 / power), beta_end ** (1 / power), trained) ** power
    kept = np.cumprod(1 - betas)
    known = np.sqrt((1 - kept) / kept)
    if spacing == "trailing":
        wanted = np.rint(trained - np.arange(steps) * (trained / steps))[::-1] - 1
    elif spacing == "leading":
        wanted = np.arange(steps) * (trained // steps) + float(offset)
    else:
        wanted = np.linspace(0, trained - 1, steps)
    levels = np.interp(wanted, np.arange(trained), known)[::-1]
    if scheduler.endswith("Karras"):
        ramp = np.linspace(0, 1, steps)
        high, low = levels[0] ** (1 / _RHO), levels[-1] ** (1 / _RHO)
        levels = (high + ramp * (low - high)) ** _RHO
    return [*levels.tolist(), float(known[0]) if last == "least" and scheduler == "Euler" else 0.0]


def evaluations(scheduler: Scheduler, steps: int) -> int:
    """How often the denoiser is asked in so many steps."""
    return 2 * steps - 1 if scheduler.startswith("Heun") else steps


def sample(scheduler: Scheduler, start: Array, levels: Sequence[float], noise: Noise) -> Sampling:
    """Remove the noise of an array.

    Args:
        scheduler: how.
        start: the array with noise of the deviation `levels[0]`; it is changed.
        levels: see `noise_levels`.
        noise: gives fresh noise of deviation 1, for the schedulers that add some.
    """
    if scheduler == "Euler a":
        return _euler_ancestral(start, levels, noise)
    if scheduler.startswith("Heun"):
        return _heun(start, levels)
    if scheduler.startswith("DPM++"):
        return _dpm_2m(start, levels)
    return _euler(start, levels)


def _euler(x: Array, levels: Sequence[float]) -> Sampling:
    """Karras et al., algorithm 1 without its second order."""
    for level, following in pairwise(levels):
        denoised = yield x, level
        x *= np.float32(following / level)
        x += denoised * np.float32(1 - following / level)
        del denoised  # as large as the picture; the next is on its way
    return x


def _heun(x: Array, levels: Sequence[float]) -> Sampling:
    """Karras et al., algorithm 1: the slope is the mean of those before and after the step."""
    for level, following in pairwise(levels):
        denoised = yield x, level
        slope = (x - denoised) * np.float32(1 / level)
        guess = x + slope * np.float32(following - level)
        if following > 0:
            denoised = yield guess, following
            slope = (slope + (guess - denoised) * np.float32(1 / following)) * np.float32(0.5)
            guess = x + slope * np.float32(following - level)
        x = guess
    return x


def _euler_ancestral(x: Array, levels: Sequence[float], noise: Noise) -> Sampling:
    """k-diffusion's `sample_euler_ancestral`: a step further down than wanted, and noise up to there."""
    for level, following in pairwise(levels):
        denoised = yield x, level
        up = following * math.sqrt(max(0.0, 1 - (following / level) ** 2))
        down = math.sqrt(max(0.0, following**2 - up**2))
        x = x + (x - denoised) * np.float32((down - level) / level)
        if following > 0:
            x = x + noise() * np.float32(up)
    return x


def _dpm_2m(x: Array, levels: Sequence[float]) -> Sampling:
    """DPM-Solver++(2M), Lu et al., algorithm 2; the first step and the last are of first order."""
    previous: tuple[Array, float] | None = None  # the denoised, and the logarithmic step before
    for level, following in pairwise(levels):
        denoised = yield x, level
        if following == 0:
            return denoised
        step = math.log(level / following)
        towards = denoised
        if previous is not None:
            last, last_step = previous
            towards = denoised + (denoised - last) * np.float32(step / (2 * last_step))
        x = x * np.float32(following / level) - towards * np.float32(math.expm1(-step))
        previous = denoised, step
    return x
