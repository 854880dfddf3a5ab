"""What removing noise from latents takes, whatever it is done for: runs of a model's parts over windows.

Everything here that needs a part is a generator: it yields what the part is to be run on and is sent what
came out, so nothing knows of devices, threads or other requests.
"""

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.devices.parts import Arrays
from engines.errors import SpoiltResultError
from engines.latent.samplers import Scheduler, evaluations, noise_levels, sample
from engines.latent.windows import Blend, Window, Windows
from onnx_models import DiffusionWeights

__all__ = [
    "BEFORE",
    "F32",
    "TOGETHER",
    "Calls",
    "Denoise",
    "PartName",
    "Runs",
    "check_picture",
    "decode",
    "draw_latents",
    "encode",
    "f32",
    "groups",
    "guided",
    "levels_of",
    "remove_noise",
    "unconditioned",
]

PartName = Literal["text_encoder", "image_encoder", "vae_encoder", "controlnet", "unet", "vae_decoder"]
F32: TypeAlias = NDArray[np.float32]

BEFORE, AFTER = 0.05, 0.15
"""The share of the work before the denoising, and after it."""

TOGETHER = 16
"""So many windows are on their way at once: they fill batches, and take little memory beside the picture."""

_BLACK = 4 / 255


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of one part that may go together: the arrays of each, without the axis of the batch."""

    part: PartName
    inputs: list[Arrays]
    share: float
    """Of all the work, done once these are."""


Calls: TypeAlias = Generator[Runs, list[Arrays], F32]
"""Yields what is to be run, is sent what came out, and returns an array."""

Denoise: TypeAlias = Callable[[F32, float, Sequence[float]], Calls]
"""Takes latents, the deviation of the noise in them, and the shares of the work before and after it; returns
them without their noise."""


def encode(
    pixels: NDArray[np.uint8], windows: Windows, weights: DiffusionWeights, level: Arrays = ()
) -> Generator[Runs, list[Arrays], tuple[F32, F32]]:
    """Mean and standard deviation of a picture's latents, (C, h, w) each.

    Args:
        pixels: (H, W, 3), of the windows' size in cells.
        windows: over it.
        weights: of the encoder.
        level: what some encoders take beside.
    """
    moments: list[Blend] = []
    planes = pixels.transpose(2, 0, 1)
    for group, part in groups(windows):
        images: list[Arrays] = [
            (np.ascontiguousarray(window.cut(planes, weights.cell).transpose(1, 2, 0)), *level)
            for window in group
        ]
        found = yield Runs("vae_encoder", images, BEFORE * part)
        moments = moments or [Blend(windows, each.shape[:1]) for each in found[0]]
        for window, result in zip(group, found, strict=True):
            for blend, each in zip(moments, result, strict=True):
                blend.add(window, f32(each))
    mean, deviation = moments
    return mean.planes, deviation.planes


def draw_latents(mean: F32, deviation: F32, scaling_factor: float, noise: np.random.Generator) -> F32:
    """Latents drawn with the encoder's mean and deviation, (C, h, w), scaled as the UNet takes them."""
    latents = noise.standard_normal(mean.shape, np.float32)
    latents *= deviation
    latents += mean
    latents *= np.float32(scaling_factor)
    return latents


def decode(latents: F32, windows: Windows, scaling_factor: float, *, spread: int, cell: int) -> Calls:
    """The picture, (H, W, 3).

    Args:
        latents: of the UNet.
        windows: over them.
        scaling_factor: what they were multiplied with.
        spread: latents a cell of the windows, in height and width.
        cell: pixels of the picture a cell of the windows.
    """
    unit = np.float32(1 / scaling_factor)
    blend = Blend(windows, (3,), cell)
    for group, part in groups(windows):
        inputs: list[Arrays] = [(window.cut(latents, spread) * unit,) for window in group]
        found = yield Runs("vae_decoder", inputs, 1 - AFTER * (1 - part))
        for window, (picture,) in zip(group, found, strict=True):
            blend.add(window, f32(picture).transpose(2, 0, 1))
    return blend.planes.transpose(1, 2, 0)


def levels_of(scheduler: Scheduler, steps: int, done: int, weights: DiffusionWeights) -> list[float]:
    """The noise before each step and after the last, of `steps` of which only the last `done` are done."""
    levels = noise_levels(
        scheduler,
        steps,
        beta_start=weights.beta_start,
        beta_end=weights.beta_end,
        trained=weights.noise_steps,
        spacing=weights.spacing,
        curve=weights.curve,
        offset=weights.steps_offset,
        last=weights.last_noise,
    )
    return levels[steps - done :]  # as in image-to-image the first ones are left out


def remove_noise(
    scheduler: Scheduler, start: F32, levels: Sequence[float], fresh: Callable[[], F32], denoise: Denoise
) -> Calls:
    """What is left of noisy latents when their noise is removed.

    Args:
        scheduler: how.
        start: latents with noise of `levels[0]`; they are changed.
        levels: see `levels_of`.
        fresh: gives noise of deviation 1.
        denoise: asks the model.

    Raises:
        SpoiltResultError: it gives what are no numbers.
    """
    sampling = sample(scheduler, start, levels, fresh)
    count = evaluations(scheduler, len(levels) - 1)
    noisy, level = next(sampling)
    for done in itertools.count():
        shares = [BEFORE + (1 - BEFORE - AFTER) * each / count for each in (done, done + 1)]
        denoised = yield from denoise(noisy, level, shares)
        if not np.isfinite(denoised).all():
            raise SpoiltResultError("the model gave values that are not numbers")
        try:
            noisy, level = sampling.send(denoised)
        except StopIteration as end:
            latents: F32 = end.value
            break
        del denoised  # as large as the picture; the next is on its way
    if levels[-1] > 0:  # what is left is a picture with noise, of deviation 1 together
        latents *= np.float32(1 / math.hypot(levels[-1], 1))
    return latents


def unconditioned(planes: F32, noisy: F32, level: float) -> F32:
    """The estimate of latents without their noise that the UNet's output stands for, made in its place.

    Preconditioned after Karras et al. (2022), table 1, with data of deviation 1, as the original is.

    Args:
        planes: the UNet's result; it is changed.
        noisy: the latents with noise.
        level: its deviation.
    """
    variance = level**2 + 1
    for channel in range(len(noisy)):  # one by one: they are large
        planes[channel] *= np.float32(level / math.sqrt(variance))
        planes[channel] += noisy[channel] * np.float32(1 / variance)
    return planes


def guided(of_prompts: Sequence[F32], guidance: float) -> F32:
    """Ho and Salimans, Classifier-Free Diffusion Guidance (2022), as Imagen writes it.

    Args:
        of_prompts: what the model gives for the prompt, and maybe for the negative one.
        guidance: how far to go.
    """
    if len(of_prompts) == 1:
        return of_prompts[0]
    wanted, unwanted = of_prompts
    return unwanted + np.float32(guidance) * (wanted - unwanted)


def groups(windows: Windows) -> Iterator[tuple[list[Window], float]]:
    """All windows, some at a time, and which share of them that makes."""
    places = list(windows)
    for start in range(0, len(places), TOGETHER):
        group = places[start : start + TOGETHER]
        yield group, (start + len(group)) / len(places)


def check_picture(picture: F32, source: NDArray[np.uint8]) -> F32:
    """The picture, if it is one.

    Raises:
        SpoiltResultError: it has values that are not numbers, or is black where the source is not.
    """
    if not np.isfinite(picture).all():
        raise SpoiltResultError("the model gave values that are not numbers")
    if picture.max() < _BLACK and source.max() > 255 * _BLACK:
        raise SpoiltResultError("the model gave a black picture")
    return picture


def f32(array: NDArray[Any]) -> F32:
    """The array in single precision."""
    return array.astype(np.float32, copy=False)
