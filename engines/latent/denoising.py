"""A latent upscaler: what is to be run in which order, and what becomes of it.

The original is diffusers' `StableDiffusionLatentUpscalePipeline`; models without a text encoder are laid out
like it but for the prompts. `upscale_latent` is a generator: it yields what a part of the model is to be run
on and is sent what came out, so nothing here knows of devices, threads or other requests.

A picture larger than the model's window is denoised in windows that are blended at every step
(MultiDiffusion, Bar-Tal et al. 2023), and goes into latents and back in the same windows.
"""

import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.devices.parts import Arrays
from engines.errors import SpoiltResultError
from engines.latent.diffusion import Diffusion
from engines.latent.samplers import evaluations, noise_levels, sample
from engines.latent.windows import Blend, Window, Windows
from onnx_models import LatentWeights

__all__ = ["Calls", "PartName", "Runs", "upscale_latent"]

PartName = Literal["text_encoder", "vae_encoder", "unet", "vae_decoder"]
F32: TypeAlias = NDArray[np.float32]

_NOISE_LEVELS = 128
"""How many numbers say how noisy the image is that the UNet enlarges: half of them 1, half 0 is none."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of one part that may go together: the arrays of each, without the axis of the batch."""

    part: PartName
    inputs: list[Arrays]
    share: float
    """Of all the work, done once these are."""


Calls: TypeAlias = Generator[Runs, list[Arrays], F32]
Tokens: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


def upscale_latent(
    pixels: NDArray[np.uint8],
    tokens: Tokens | None,
    wanted: Diffusion,
    weights: LatentWeights,
    *,
    side: int,
    overlap: int,
) -> Calls:
    """The picture at twice its size, (2 H, 2 W, 3) in [0, 1], not clipped.

    The same arguments give the same runs and, if the runs give the same, the same bytes.

    Args:
        pixels: (H, W, 3), RGB.
        tokens: of the prompt and of the negative one, (T,) each; None if the model has no text encoder.
        wanted: what is asked for.
        weights: what is known of the model.
        side: of the windows, in input pixels; rounded down to one that the UNet takes.
        overlap: of the windows, in input pixels.

    Raises:
        SpoiltResultError: what comes out are not numbers, or the picture is black.
    """
    height, width, _ = pixels.shape
    padded = _padded(pixels, weights)
    multiple = _multiple(weights)
    windows = Windows(
        padded.shape[0] // weights.cell,
        padded.shape[1] // weights.cell,
        side=max(2 * multiple, side // multiple * multiple) // weights.cell,
        overlap=overlap // weights.cell,
        step=math.lcm(multiple, _STEP) // weights.cell,
    )
    noise = np.random.default_rng(wanted.seed)
    prompts: Sequence[Arrays] = [()] if tokens is None else (yield from _prompts(tokens, wanted))
    level = _noise_level(wanted, weights)
    small = yield from _encode(padded, windows, weights, noise, level)
    prompts = [(*prompt, *level) for prompt in prompts]
    latents = yield from _denoise(small, prompts, windows, wanted, weights, noise)
    picture = yield from _decode(latents, windows, weights)
    picture = picture[: weights.scale * height, : weights.scale * width]
    if not np.isfinite(picture).all():
        raise SpoiltResultError("the model gave values that are not numbers")
    if picture.max() < _BLACK and pixels.max() > 255 * _BLACK:
        raise SpoiltResultError("the model gave a black picture")
    return picture


_STEP = 32
"""Sides of windows are multiples of it, in input pixels, so that those of different images can share runs."""

_BLACK = 4 / 255
_BEFORE, _AFTER = 0.05, 0.15  # the share of the work before the denoising, and after it


def _padded(pixels: NDArray[np.uint8], weights: LatentWeights) -> NDArray[np.uint8]:
    """Continued to the right and below by its reflection, to sides that the UNet takes."""
    multiple = _multiple(weights)
    sides = [max(2 * multiple, math.ceil(length / multiple) * multiple) for length in pixels.shape[:2]]
    missing = [(0, side - length) for side, length in zip(sides, pixels.shape[:2], strict=True)]
    return np.pad(pixels, (*missing, (0, 0)), "symmetric")


def _multiple(weights: LatentWeights) -> int:
    """What sides must be multiples of, in input pixels; the least is twice that."""
    return math.lcm(weights.multiple, weights.spread) * weights.cell // weights.spread


def _prompts(tokens: Tokens, wanted: Diffusion) -> Generator[Runs, list[Arrays], list[Arrays]]:
    """What the UNet gets of the prompt and, with guidance, of the negative one: twice as much work."""
    prompt, negative = tokens
    found = yield Runs(
        "text_encoder", [(each,) for each in ((prompt, negative) if wanted.guided else (prompt,))], 0.01
    )
    no_noise = np.repeat(np.array([1, 0], np.float32), _NOISE_LEVELS // 2)
    return [
        (_f32(context), *(np.concatenate((no_noise, _f32(each))) for each in pooled))
        for context, *pooled in found
    ]


def _noise_level(wanted: Diffusion, weights: LatentWeights) -> Arrays:
    """What encoder and UNet take beside, of a model that adds noise to the image: how much."""
    if not weights.noise_levels:
        return ()
    level = weights.default_noise_level if wanted.noise_level is None else wanted.noise_level
    return (np.asarray(np.int64(level)),)


def _encode(
    pixels: NDArray[np.uint8],
    windows: Windows,
    weights: LatentWeights,
    noise: np.random.Generator,
    level: Arrays,
) -> Generator[Runs, list[Arrays], F32]:
    """What the UNet sees of the image, (I, h, w): drawn from what the encoder holds for possible."""
    moments: list[Blend] = []
    planes = pixels.transpose(2, 0, 1)
    for group, part in _groups(windows):
        images: list[Arrays] = [
            (np.ascontiguousarray(window.cut(planes, weights.cell).transpose(1, 2, 0)), *level)
            for window in group
        ]
        found = yield Runs("vae_encoder", images, _BEFORE * part)
        moments = moments or [Blend(windows, each.shape[:1]) for each in found[0]]
        for window, result in zip(group, found, strict=True):
            for blend, each in zip(moments, result, strict=True):
                blend.add(window, _f32(each))
    mean, deviation = moments
    latents = noise.standard_normal(mean.planes.shape, np.float32)
    latents *= deviation.planes
    latents += mean.planes
    latents *= np.float32(weights.scaling_factor)
    return latents


def _denoise(
    small: F32,
    prompts: Sequence[Arrays],
    windows: Windows,
    wanted: Diffusion,
    weights: LatentWeights,
    noise: np.random.Generator,
) -> Generator[Runs, list[Arrays], F32]:
    """The latents of the picture, (C, spread × h, spread × w)."""
    height, width = (length * weights.spread for length in small.shape[1:])
    levels = noise_levels(
        wanted.scheduler,
        wanted.steps,
        beta_start=weights.beta_start,
        beta_end=weights.beta_end,
        trained=weights.noise_steps,
        spacing=weights.spacing,
        curve=weights.curve,
        offset=weights.steps_offset,
        last=weights.last_noise,
    )
    levels = levels[wanted.steps - wanted.steps_done :]  # as in image-to-image the first ones are left out

    def fresh() -> F32:
        return noise.standard_normal((weights.channels, height, width), np.float32)

    start = fresh()
    # Where it does not begin with the most noise there is still a picture, of deviation 1, below it.
    start *= np.float32(math.hypot(levels[0], 1) if weights.spacing == "leading" else levels[0])
    if wanted.strength < 1:
        start += _spread(small, weights.spread)
    sampling = sample(wanted.scheduler, start, levels, fresh)
    count = evaluations(wanted.scheduler, wanted.steps_done)
    noisy, level = next(sampling)
    for done in itertools.count():
        shares = [_BEFORE + (1 - _BEFORE - _AFTER) * each / count for each in (done, done + 1)]
        denoised = yield from _denoised(
            noisy, level, small, prompts, windows, weights.spread, wanted.guidance, shares
        )
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


def _denoised(
    noisy: F32,
    level: float,
    small: F32,
    prompts: Sequence[Arrays],
    windows: Windows,
    spread: int,
    guidance: float,
    shares: Sequence[float],
) -> Generator[Runs, list[Arrays], F32]:
    """What the UNet holds the latents for, without their noise.

    Preconditioned after Karras et al. (2022), table 1, with data of deviation 1, as the original is.
    """
    before, after = shares
    variance = level**2 + 1
    unit = np.float32(1 / math.sqrt(variance))
    time = np.asarray(np.float32(math.log(level) / 4))
    blend = Blend(windows, noisy.shape[:1], spread)
    for group, part in _groups(windows):
        images = [
            np.concatenate((window.cut(noisy, spread) * unit, _spread(window.cut(small), spread)))
            for window in group
        ]
        inputs: list[Arrays] = [(image, time, *prompt) for image in images for prompt in prompts]
        found = yield Runs("unet", inputs, before + (after - before) * part)
        for index, window in enumerate(group):
            of_prompts = [_f32(each[0]) for each in found[index * len(prompts) : (index + 1) * len(prompts)]]
            blend.add(window, _guided(of_prompts, guidance))
    for channel in range(len(noisy)):  # one by one: they are large
        blend.planes[channel] *= np.float32(level / math.sqrt(variance))
        blend.planes[channel] += noisy[channel] * np.float32(1 / variance)
    return blend.planes


def _guided(of_prompts: Sequence[F32], guidance: float) -> F32:
    """Ho and Salimans, Classifier-Free Diffusion Guidance (2022), as Imagen writes it."""
    if len(of_prompts) == 1:
        return of_prompts[0]
    wanted, unwanted = of_prompts
    return unwanted + np.float32(guidance) * (wanted - unwanted)


def _decode(latents: F32, windows: Windows, weights: LatentWeights) -> Generator[Runs, list[Arrays], F32]:
    """The picture, (H, W, 3)."""
    unit = np.float32(1 / weights.scaling_factor)
    blend = Blend(windows, (3,), weights.scale * weights.cell)
    for group, part in _groups(windows):
        inputs: list[Arrays] = [(window.cut(latents, weights.spread) * unit,) for window in group]
        found = yield Runs("vae_decoder", inputs, 1 - _AFTER * (1 - part))
        for window, (picture,) in zip(group, found, strict=True):
            blend.add(window, _f32(picture).transpose(2, 0, 1))
    return blend.planes.transpose(1, 2, 0)


_TOGETHER = 16
"""So many windows are on their way at once: they fill batches, and take little memory beside the picture."""


def _groups(windows: Windows) -> Iterator[tuple[list[Window], float]]:
    """All windows, some at a time, and which share of them that makes."""
    places = list(windows)
    for start in range(0, len(places), _TOGETHER):
        group = places[start : start + _TOGETHER]
        yield group, (start + len(group)) / len(places)


def _spread(latents: F32, times: int) -> F32:
    return latents.repeat(times, 1).repeat(times, 2)


def _f32(array: NDArray[Any]) -> F32:
    return array.astype(np.float32, copy=False)
