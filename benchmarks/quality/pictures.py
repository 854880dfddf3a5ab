"""The photographs, and how they become the small pictures that models enlarge."""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from skimage import data

__all__ = ["KINDS", "Photo", "photographs", "shrunk"]

_OF_SKIMAGE: Final = ("astronaut", "chelsea", "coffee", "stereo_motorcycle")
"""A face and fabric, fur, a smooth thing and wood, machinery."""

_SIDE: Final = 384
"""The most of a photograph that is looked at, around its middle."""

Photo = tuple[str, Image.Image]


def photographs(more: Path | None) -> Iterator[Photo]:
    """Their names, and their middles with sides that are multiples of 4.

    Args:
        more: a directory with others, `.jpg` and `.png`.
    """
    for name in _OF_SKIMAGE:
        found = getattr(data, name)()
        pixels = found[0] if isinstance(found, tuple) else found
        yield name.removeprefix("stereo_"), _middle(Image.fromarray(pixels))
    for file in sorted(more.iterdir()) if more is not None else ():
        if file.suffix in (".jpg", ".png"):
            yield file.stem, _middle(Image.open(file).convert("RGB"))


def shrunk(photo: Image.Image, factor: int, kind: str) -> Image.Image:
    """A photograph made small, in one of the ways of `KINDS`."""
    return KINDS[kind](photo, factor)


def _middle(photo: Image.Image) -> Image.Image:
    width, height = (min(length, _SIDE) // 4 * 4 for length in photo.size)
    left, top = (photo.width - width) // 2, (photo.height - height) // 3
    return photo.crop((left, top, left + width, top + height))


def _reduced(photo: Image.Image, factor: int, method: Image.Resampling) -> Image.Image:
    return photo.resize((photo.width // factor, photo.height // factor), method)


def _box(photo: Image.Image, factor: int) -> Image.Image:
    return _reduced(photo, factor, Image.Resampling.BOX)


def _bicubic(photo: Image.Image, factor: int) -> Image.Image:
    return _reduced(photo, factor, Image.Resampling.BICUBIC)


def _noisy(photo: Image.Image, factor: int) -> Image.Image:
    pixels = np.asarray(_box(photo, factor), np.float32)
    noise = np.random.default_rng(1).normal(0, 8, pixels.shape)
    return Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8))


def _jpeg(photo: Image.Image, factor: int) -> Image.Image:
    buffer = io.BytesIO()
    _box(photo, factor).save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


KINDS: Final[Mapping[str, Callable[[Image.Image, int], Image.Image]]] = {
    "box": _box,
    "bicubic": _bicubic,
    "noise": _noisy,
    "JPEG": _jpeg,
}
"""Two clean ways, by the filters of cameras' and of editors' programs; noise of deviation 8; quality 50."""
