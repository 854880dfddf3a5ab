"""What running a network shows: its scale, the sizes it takes, the overlap that its tiles need.

The caller brings the runtime: a function that opens an ONNX file and returns a function from a batch of
images to their results. Nothing here imports one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onnx_models.errors import UnsuitableModelError, one_line

__all__ = [
    "OpenNetwork",
    "OpenPart",
    "Run",
    "RunPart",
    "Seam",
    "check_batches",
    "check_sizes",
    "find_overlap",
    "find_scale",
    "find_uint8_scale",
    "run_network",
    "texture",
]

Run = Callable[[NDArray[Any]], NDArray[Any]]
"""Runs a network: a batch in, a batch out. It may raise anything."""

OpenNetwork = Callable[[Path], Run]
"""Loads an ONNX file. It may raise anything."""

RunPart = Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]
"""Runs a network that may have several inputs and outputs, in their order. It may raise anything."""

OpenPart = Callable[[Path], RunPart]
"""Loads its ONNX file. It may raise anything."""

OVERLAPS = (8, 16, 24, 32, 48, 64)
SIZES = ((1, 1), (5, 7), (16, 17), (33, 47), (70, 90))
"""Of images that every model must take: the smallest, odd ones, wide and tall ones."""

_GOOD_ENOUGH = 58.0
"""Decibels between tiles and the whole image beyond which seams cannot be seen."""
_GAIN = 1.0
"""Decibels; an overlap that comes so near to what the largest reaches is large enough."""
_CUT, _CORE = 97, 48
_SIDE = 64


class Seam(Struct, frozen=True):
    """How tiles of a network differ from the whole image beside the cuts, with an overlap in input pixels."""

    overlap: int
    levels: int
    """The largest difference, of 255."""
    psnr: float
    """Decibels; infinite where there is no difference."""

    @property
    def visible(self) -> bool:
        """Whether seams may be seen all the same."""
        return self.levels > 1 and self.psnr < _GOOD_ENOUGH


def texture(height: int, width: int) -> NDArray[np.uint8]:
    """An image with something for every network: waves of all lengths, edges, noise; always the same."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    noise = np.random.default_rng(20).normal(0, 0.06, (height, width, 3))
    waves = [np.sin((x * (1 + c) + y * y / 24) / (3 + 2 * c)) for c in range(3)]
    edges = ((x // 11 + y // 7) % 2)[:, :, np.newaxis] * [0.5, 0.3, 0.4]
    levels = 0.25 + 0.15 * np.stack(waves, axis=-1) + edges + noise
    image: NDArray[np.uint8] = np.rint(255 * np.clip(levels, 0, 1)).astype(np.uint8)
    return image


def find_scale(run: Run, side: int = _SIDE) -> int:
    """Find the scale of a float NCHW network, and that its numbers are numbers.

    Raises:
        UnsuitableModelError: It does not run, gives something else than larger RGB images, or no finite ones.
    """
    image = texture(side, side).transpose(2, 0, 1)[np.newaxis].astype(np.float32) / np.float32(255)
    scale = 0
    for batch in (image, np.zeros_like(image), np.ones_like(image)):
        result = run_network(run, batch)
        scale = _scale_of(result.shape[2:], result.shape[:2] == (1, 3), side, result.shape)
        if not np.isfinite(result).all():
            raise UnsuitableModelError("its output has values that are not finite (NaN or infinity)")
    return scale


def find_uint8_scale(run: Run) -> int:
    """Find the scale of a uint8 NHWC network.

    Raises:
        UnsuitableModelError: It does not run, or gives something else than larger RGB images.
    """
    result = run_network(run, texture(_SIDE, _SIDE)[np.newaxis])
    is_image = (result.shape[0], *result.shape[3:]) == (1, 3) and result.dtype == np.uint8
    return _scale_of(result.shape[1:3], is_image, _SIDE, result.shape)


def _scale_of(sides: tuple[int, ...], is_image: bool, side: int, shape: tuple[int, ...]) -> int:
    scales = {found / side for found in sides}
    scale = scales.pop()
    if not is_image or scales or scale != int(scale):
        raise UnsuitableModelError(
            f"of an image of {side} x {side} pixels it makes an output of the shape {shape}; "
            "an RGB image is needed, larger by a whole factor"
        )
    if scale < 2:
        raise UnsuitableModelError("its output is as large as its input: it does not upscale")
    return int(scale)


def check_sizes(run: Run, scale: int) -> None:
    """Check that an uint8 network makes images of any size larger by exactly its scale.

    Raises:
        UnsuitableModelError: It does not run with one of the sizes, or gives another size.
    """
    for height, width in SIZES:
        result = run_network(run, texture(height, width)[np.newaxis])
        if result.shape != (1, scale * height, scale * width, 3):
            raise UnsuitableModelError(
                f"of an image of {height} x {width} pixels it makes an output of the shape {result.shape}, "
                f"which is not {scale} times as large"
            )


def check_batches(run: Run) -> None:
    """Check that images in one batch come out as they do one by one, give or take a level.

    Raises:
        UnsuitableModelError: They do not.
    """
    pair = np.stack([texture(32, 40), texture(32, 40)[::-1, ::-1]])
    together = run_network(run, pair)
    alone = np.concatenate([run_network(run, pair[:1]), run_network(run, pair[1:])])
    if together.shape != alone.shape or _difference(together, alone).max() > 1:
        raise UnsuitableModelError("it gives another result for an image when it runs in a batch with others")


def find_overlap(run: Run, scale: int) -> Seam:
    """Find the smallest overlap with which tiles show no seams, or else one that more would not improve.

    One image is run whole, and in pieces that begin `overlap` pixels before a cut, which is not at a
    multiple of anything: that is where tiles are cut, too. What lies beside the cut is compared.
    """
    image = texture(_CUT + _CORE, _CUT + _CORE)
    core = scale * _CORE
    whole = run_network(run, image[np.newaxis])[0, -core:, -core:]
    seams: list[Seam] = []
    for overlap in OVERLAPS:
        start = _CUT - overlap
        piece = run_network(run, np.ascontiguousarray(image[np.newaxis, start:, start:]))[0, -core:, -core:]
        difference = _difference(whole, piece)
        seam = Seam(overlap, int(difference.max()), _psnr(difference))
        if not seam.visible:
            return seam
        seams.append(seam)
    best = max(seam.psnr for seam in seams)
    return next(seam for seam in seams if seam.psnr >= best - _GAIN)


def run_network(run: Run, batch: NDArray[Any]) -> NDArray[Any]:
    """Run a network once.

    Args:
        run: The network.
        batch: Whatever it takes.

    Raises:
        UnsuitableModelError: It failed; the message names the input's shape.
    """
    try:
        return run(batch)
    except Exception as error:
        shape = " x ".join(map(str, batch.shape))
        raise UnsuitableModelError(
            f"it does not run with an input of {shape}: {one_line(error, 200)}"
        ) from error


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int16]:
    return np.abs(one.astype(np.int16) - other.astype(np.int16))


def _psnr(difference: NDArray[np.int16]) -> float:
    error = float(np.square(difference.astype(np.float64)).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
