"""How a photograph becomes the small picture that the model is to enlarge.

Half of the small pictures are clean, made by one of the filters in use; half went through a light form of
Real-ESRGAN's second-order degradation (Wang et al. 2021): blur, resizing, noise and JPEG, twice.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["degraded", "halved"]

Pixels = NDArray[np.uint8]

_CLEAN = (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
_ANY = (*_CLEAN, Image.Resampling.BILINEAR)


def halved(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Half as large, clean."""
    return _resized(picture, picture.width // 2, picture.height // 2, _CLEAN, random)


def degraded(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Half as large, with the traces of a camera and of the web."""
    width, height = picture.size
    found = _blurred(picture, random, largest=1.2)
    factor = random.uniform(0.6, 1.1)
    found = _resized(found, round(width * factor), round(height * factor), _ANY, random)
    found = _noisy(found, random, largest=5)
    if random.random() < 0.3:
        found = _jpeg(found, random)
    if random.random() < 0.3:
        found = _blurred(found, random, largest=0.5)
    found = _resized(found, width // 2, height // 2, _ANY, random)
    if random.random() < 0.5:
        found = _noisy(found, random, largest=3)
    return _jpeg(found, random) if random.random() < 0.7 else found


def _resized(
    picture: Image.Image,
    width: int,
    height: int,
    filters: tuple[Image.Resampling, ...],
    random: np.random.Generator,
) -> Image.Image:
    return picture.resize((width, height), filters[random.integers(len(filters))])


def _blurred(picture: Image.Image, random: np.random.Generator, *, largest: float) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(random.uniform(0, largest)))


def _noisy(picture: Image.Image, random: np.random.Generator, *, largest: float) -> Image.Image:
    """Gaussian noise, of a deviation in grey levels; of one colour as often as of three."""
    pixels = np.asarray(picture, np.float32)
    channels = random.choice((1, 3))
    noise = random.standard_normal((*pixels.shape[:2], channels), np.float32)
    pixels = pixels + noise * np.float32(random.uniform(0, largest))
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _jpeg(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=int(random.integers(60, 96)))
    return Image.open(stream).convert("RGB")
