"""A latent upscaler: what is to be run in which order, and what becomes of it.

The original is diffusers' `StableDiffusionLatentUpscalePipeline`; models without a text encoder are laid out
like it but for the prompts. `upscale_latent` is a generator, as all of `runs` are.

A picture larger than the model's window is denoised in windows that are blended at every step
(MultiDiffusion, Bar-Tal et al. 2023), and goes into latents and back in the same windows.
"""

import math
from collections.abc import Generator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.devices.parts import Arrays
from engines.latent.diffusion import Diffusion
from engines.latent.runs import (
    BEFORE,
    F32,
    Calls,
    Runs,
    check_picture,
    decode,
    draw_latents,
    encode,
    f32,
    groups,
    guided,
    levels_of,
    remove_noise,
    unconditioned,
)
from engines.latent.windows import Blend, Windows
from onnx_models import LatentWeights

__all__ = ["Tokens", "upscale_latent"]

_NOISE_LEVELS = 128
"""How many numbers say how noisy the image is that the UNet enlarges: half of them 1, half 0 is none."""

Tokens: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Those of the prompt and of the negative one, (T,) each."""


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
        tokens: of the prompts; None if the model has no text encoder.
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
    small = draw_latents(*(yield from encode(padded, windows, weights, level)), weights.scaling_factor, noise)
    prompts = [(*prompt, *level) for prompt in prompts]
    latents = yield from _denoise(small, prompts, windows, wanted, weights, noise)
    picture = yield from decode(
        latents,
        windows,
        weights.scaling_factor,
        spread=weights.spread,
        cell=weights.scale * weights.cell,
    )
    return check_picture(picture[: weights.scale * height, : weights.scale * width], pixels)


_STEP = 32
"""Sides of windows are multiples of it, in input pixels, so that those of different images can share runs."""


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
        (f32(context), *(np.concatenate((no_noise, f32(each))) for each in pooled))
        for context, *pooled in found
    ]


def _noise_level(wanted: Diffusion, weights: LatentWeights) -> Arrays:
    """How much noise is added to the image: the last input of encoder and UNet, of models that add some."""
    if not weights.noise_levels:
        return ()
    level = weights.default_noise_level if wanted.noise_level is None else wanted.noise_level
    return (np.asarray(np.int64(level)),)


def _denoise(
    small: F32,
    prompts: Sequence[Arrays],
    windows: Windows,
    wanted: Diffusion,
    weights: LatentWeights,
    noise: np.random.Generator,
) -> Calls:
    """The latents of the picture, (C, spread × h, spread × w)."""
    height, width = (length * weights.spread for length in small.shape[1:])
    levels = levels_of(wanted.scheduler, wanted.steps, wanted.steps_done, weights)

    def fresh() -> F32:
        return noise.standard_normal((weights.channels, height, width), np.float32)

    def denoise(noisy: F32, level: float, shares: Sequence[float]) -> Calls:
        return _denoised(noisy, level, small, prompts, windows, weights.spread, wanted.guidance, shares)

    draft = None
    if wanted.strength < 1 and weights.draft_steps:
        (most, _) = levels_of("Euler", 1, 1, weights)
        draft = yield from denoise(fresh() * np.float32(most), most, (BEFORE, BEFORE))
    start = fresh()
    # Where it does not begin with the most noise there is still a picture, of deviation 1, below it.
    start *= np.float32(math.hypot(levels[0], 1) if weights.spacing == "leading" else levels[0])
    if wanted.strength < 1:
        start += _spread(small, weights.spread) if draft is None else draft
    del draft  # as large as the picture
    return (yield from remove_noise(wanted.scheduler, start, levels, fresh, denoise))


def _denoised(
    noisy: F32,
    level: float,
    small: F32,
    prompts: Sequence[Arrays],
    windows: Windows,
    spread: int,
    guidance: float,
    shares: Sequence[float],
) -> Calls:
    """The UNet's estimate of the latents without their noise."""
    before, after = shares
    unit = np.float32(1 / math.sqrt(level**2 + 1))
    time = np.asarray(np.float32(math.log(level) / 4))
    blend = Blend(windows, noisy.shape[:1], spread)
    for group, part in groups(windows):
        images = [
            np.concatenate((window.cut(noisy, spread) * unit, _spread(window.cut(small), spread)))
            for window in group
        ]
        inputs: list[Arrays] = [(image, time, *prompt) for image in images for prompt in prompts]
        found = yield Runs("unet", inputs, before + (after - before) * part)
        for index, window in enumerate(group):
            of_prompts = [f32(each[0]) for each in found[index * len(prompts) : (index + 1) * len(prompts)]]
            blend.add(window, guided(of_prompts, guidance))
    return unconditioned(blend.planes, noisy, level)


def _spread(latents: F32, times: int) -> F32:
    return latents.repeat(times, 1).repeat(times, 2)
