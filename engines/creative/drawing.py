"""A creative upscaler: what is to be run in which order to draw a picture anew at the size it has.

The originals are diffusers' `StableDiffusionControlNetImg2ImgPipeline` and its XL kin, without a ControlNet
the plain ones, with an IP-Adapter those with it; one window with the same noise gives what they give. Larger
pictures are drawn in windows that are blended at every step (MultiDiffusion, Bar-Tal et al. 2023).
"""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.creative.passes import windows_over
from engines.devices.parts import Arrays
from engines.latent.denoising import Tokens
from engines.latent.diffusion import Creative, Diffusion
from engines.latent.runs import (
    F32,
    TOGETHER,
    Calls,
    Runs,
    check_picture,
    decode,
    draw_latents,
    encode,
    f32,
    guided,
    levels_of,
    remove_noise,
    unconditioned,
)
from engines.latent.samplers import evaluations
from engines.latent.windows import Blend, Window, Windows
from engines.tiling.tiles import NO_WRAPS, Wraps
from onnx_models import CreativeWeights

__all__ = ["draw_anew"]

_RESIDUALS = 256 * 2**20
"""Bytes of a ControlNet's residuals that are on their way at once, if a window's are not more."""


def draw_anew(
    pixels: NDArray[np.uint8],
    tokens: Tokens,
    wanted: Diffusion,
    weights: CreativeWeights,
    *,
    side: int,
    overlap: int,
    number: int = 0,
    wraps: Wraps = NO_WRAPS,
    styles: Sequence[NDArray[np.uint8]] = (),
) -> Calls:
    """The picture drawn anew, (H, W, 3) in [0, 1], not clipped.

    The same arguments give the same runs and, if the runs give the same, the same bytes. Noise is drawn from
    `numpy.random.default_rng(seed)`: for what the encoder leaves open, then to begin with, then for steps
    that add some.

    Args:
        pixels: (H, W, 3), RGB; sides along which it wraps are multiples of `multiple_in_pixels`, at least
            twice that.
        tokens: of the prompts.
        wanted: what is asked for.
        weights: what is known of the model.
        side: of the windows, in pixels; rounded down to one that the UNet takes.
        overlap: of the windows, in pixels.
        number: of the pass: each has noise of its own.
        wraps: where the picture goes on at its opposite edge.
        styles: what an IP-Adapter takes a style from, (H, W, 3) each.

    Raises:
        SpoiltResultError: what comes out are not numbers, or the picture is black.
    """
    height, width, _ = pixels.shape
    windows = windows_over(height, width, weights, side=side, overlap=overlap, wraps=wraps)
    padded = _padded(pixels, windows.height * weights.cell, windows.width * weights.cell)
    creative = wanted.creative or Creative()
    noise = np.random.default_rng((wanted.seed, number) if number else wanted.seed)
    prompts = yield from _prompts(tokens, wanted, weights)
    style = None
    if weights.image_encoder is not None:
        images = styles or [np.zeros((_SEEN, _SEEN, 3), np.uint8)]
        style = yield from _style_tokens(images, windows, creative)
    latents = draw_latents(*(yield from encode(padded, windows, weights)), weights.scaling_factor, noise)
    shape = latents.shape

    def fresh() -> F32:
        return noise.standard_normal(shape, np.float32)

    levels = levels_of(wanted.scheduler, wanted.steps, wanted.steps_done, weights)
    start = fresh()
    start *= np.float32(levels[0] * (1 + creative.extra_noise))
    start += latents
    drawing = _Drawing(
        pixels=padded,
        windows=windows,
        prompts=prompts,
        styles=style,
        wanted=wanted,
        creative=creative,
        weights=weights,
    )
    latents = yield from remove_noise(wanted.scheduler, start, levels, fresh, drawing.denoised)
    picture = yield from decode(latents, windows, weights.scaling_factor, spread=1, cell=weights.cell)
    return check_picture(picture[:height, :width], pixels)


def _padded(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Continued to the right and below by its reflection."""
    missing = [(0, side - length) for side, length in zip((height, width), pixels.shape[:2], strict=True)]
    return np.pad(pixels, (*missing, (0, 0)), "symmetric")


def _prompts(
    tokens: Tokens, wanted: Diffusion, weights: CreativeWeights
) -> Generator[Runs, list[Arrays], list[Arrays]]:
    """Context, and with XL pooled, of the prompt and, with guidance, of the negative one."""
    skip = 0 if wanted.creative is None else wanted.creative.clip_skip
    asked = [(tokens[0], skip), (tokens[1], 0)] if wanted.guided else [(tokens[0], skip)]
    inputs: list[Arrays] = [(each, np.asarray(np.int64(layers))) for each, layers in asked]
    prompts = [tuple(map(f32, found)) for found in (yield Runs("text_encoder", inputs, 0.01))]
    if weights.blank_negative and wanted.guided and not wanted.negative_prompt:
        prompts[1] = tuple(map(np.zeros_like, prompts[1]))
    return list(prompts)


def _style_tokens(
    images: Sequence[NDArray[np.uint8]], windows: Windows, creative: Creative
) -> Generator[Runs, list[Arrays], dict[Window, Arrays]]:
    """What an IP-Adapter makes of images, and of none, for each window: (K, D) each."""
    places = list(windows) if creative.match_tiles else [None]
    of_place = []
    for place in places:
        inputs: list[Arrays] = [(_seen(image, place, windows),) for image in images]
        found = yield Runs("image_encoder", inputs, 0.02)
        of_place.append(tuple(np.concatenate([f32(each[kind]) for each in found]) for kind in (0, 1)))
    return {window: of_place[index % len(of_place)] for index, window in enumerate(windows)}


_SEEN = 224
"""The side of what an image encoder sees, in pixels."""


def _seen(image: NDArray[np.uint8], place: Window | None, windows: Windows) -> NDArray[np.uint8]:
    """The middle square of an image, or of the part of it that is where a window is."""
    height, width, _ = image.shape
    left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    if place is not None:
        across, down = width / windows.width, height / windows.height
        left, right = across * place.left, min(width, across * (place.left + place.width))
        top, bottom = down * place.top, min(height, down * (place.top + place.height))
    side = min(right - left, bottom - top)
    left, top = (left + right - side) / 2, (top + bottom - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((_SEEN, _SEEN), Image.Resampling.BICUBIC, box))


@dataclass(kw_only=True, slots=True)
class _Drawing:
    """What the model is asked at every step, and how often it has been."""

    pixels: NDArray[np.uint8]
    windows: Windows
    prompts: Sequence[Arrays]
    styles: dict[Window, Arrays] | None
    wanted: Diffusion
    creative: Creative
    weights: CreativeWeights
    asked: int = 0
    together: int = 1
    silence: Arrays = ()
    """A ControlNet's residuals that change nothing."""

    def denoised(self, noisy: F32, level: float, shares: Sequence[float]) -> Calls:
        """The UNet's estimate of the latents without their noise."""
        creative = self.creative
        told = level * (1 - creative.understated)
        unit = np.float32(1 / math.sqrt(told**2 + 1))
        time = np.asarray(np.float32(math.log(told) / 4))
        self.asked += 1
        count = evaluations(self.wanted.scheduler, self.wanted.steps_done)
        control = creative.control if self.asked <= creative.control_end * count else 0.0
        blend = Blend(self.windows, noisy.shape[:1])
        places, done = list(self.windows), 0
        while done < len(places):
            group = places[done : done + self.together]
            before, done = done, done + len(group)
            ends = [shares[0] + (shares[1] - shares[0]) * each / len(places) for each in (before, done)]
            asked: list[Arrays] = [
                (np.ascontiguousarray(window.cut(noisy)) * unit, time, *prompt, *self._sizes(window))
                for window in group
                for prompt in self.prompts
            ]
            residuals = yield from self._residuals(group, asked, control, sum(ends) / 2)
            inputs: list[Arrays] = [
                (*each, *heard, *style)
                for each, heard, style in zip(asked, residuals, self._styles(group), strict=True)
            ]
            found = yield Runs("unet", inputs, ends[1])
            for index, window in enumerate(group):
                part = found[index * len(self.prompts) : (index + 1) * len(self.prompts)]
                blend.add(window, guided([f32(each[0]) for each in part], self.wanted.guidance))
        return unconditioned(blend.planes, noisy, told)

    def _sizes(self, window: Window) -> Arrays:
        """What XL is told of the picture: that the window is all of it, as it was in its training."""
        if not self.weights.xl:
            return ()
        height, width = window.height * self.weights.cell, window.width * self.weights.cell
        return (np.array([height, width, 0, 0, height, width], np.float32),)

    def _residuals(
        self, group: Sequence[Window], asked: Sequence[Arrays], weight: float, share: float
    ) -> Generator[Runs, list[Arrays], Sequence[Arrays]]:
        """Those of the ControlNet, times its weight, for each of what is asked."""
        if self.weights.controlnet is None:
            self.together = TOGETHER
            return [()] * len(asked)
        if weight == 0 and self.silence:
            return [self.silence] * len(asked)
        planes = self.pixels.transpose(2, 0, 1)
        images = [
            np.ascontiguousarray(window.cut(planes, self.weights.cell).transpose(1, 2, 0)) for window in group
        ]
        inputs: list[Arrays] = [
            (*each, images[index // len(self.prompts)]) for index, each in enumerate(asked)
        ]
        found = yield Runs("controlnet", inputs, share)
        residuals: list[Arrays] = [tuple(f32(each) * np.float32(weight) for each in run) for run in found]
        if not self.silence:
            self.silence = tuple(np.zeros_like(each) for each in residuals[0])
            size = len(self.prompts) * sum(each.nbytes for each in residuals[0])
            self.together = min(TOGETHER, max(1, _RESIDUALS // size))
        return residuals

    def _styles(self, group: Sequence[Window]) -> Iterator[Arrays]:
        """The image tokens and their weight, for each window and prompt."""
        for window in group:
            for index in range(len(self.prompts)):
                if self.styles is None:
                    yield ()
                else:
                    yield self.styles[window][index], np.asarray(np.float32(self.creative.style_weight))
