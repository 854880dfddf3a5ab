"""What a file becomes: a picture, and what must travel beside its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Metadata", "Picture", "Text", "as_grey", "as_rgb", "resize", "resize_columns", "resize_rows"]


class Text(NamedTuple):
    """A text that a file carries, such as what an image generator was asked for."""

    keyword: str
    """As PNG has it (11.3.3.1): `parameters`, `Author`, `Comment`."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a file says of its picture."""

    exif: bytes | None = None
    """An EXIF block (`Exif\\0\\0`, then TIFF) with orientation 1 and nothing that depends on the size."""
    xmp: bytes | None = None
    """An XMP packet with orientation 1."""
    iptc: bytes | None = None
    """The records of the IPTC Information Interchange Model, without Photoshop's frame around them."""
    texts: tuple[Text, ...] = ()
    resolution: tuple[float, float] | None = None
    """Pixels per inch, across and down."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright 8-bit picture, in colour or grey."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) in `icc_profile` or, without one, sRGB; (H, W) if it is grey, with the curve of sRGB.
    C-contiguous, and read-only from `decode`."""
    alpha: NDArray[np.uint8] | None = None
    """(H, W), not premultiplied, 255 is opaque; None when every pixel is opaque."""
    icc_profile: bytes | None = None
    """An RGB ICC profile; a grey picture has none."""
    metadata: Metadata = Metadata()

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def is_grey(self) -> bool:
        """Whether it has one channel of colour."""
        return self.pixels.ndim == 2


def as_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luma (ITU-R BT.601) of RGB, (H, W, 3), as (H, W); a network makes of grey what is nearly grey."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def as_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey, (H, W), as three equal channels, (H, W, 3), which are a read-only view; RGB as it is."""
    return pixels if pixels.ndim == 3 else np.broadcast_to(pixels[:, :, np.newaxis], (*pixels.shape, 3))


def resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resamples to `height` x `width` with Lanczos (three lobes), antialiased; the columns first.

    Each of the two passes rounds and clips, so their order shows at hard edges, where Lanczos overshoots.
    Pillow chooses it by the shape, which would let results depend on how they are cut into tiles.

    Args:
        pixels: (H, W, 3) or (H, W) uint8.
        width: in pixels.
        height: in pixels.

    Returns:
        The result, read-only; values are clipped to 0..255.
    """
    return resize_rows(resize_columns(pixels, width), height, 0, len(pixels))


def resize_columns(
    pixels: NDArray[np.uint8], width: int, left: int = 0, right: int | None = None
) -> NDArray[np.uint8]:
    """The first pass of `resize`: the columns from `left` to `right`, in pixels, to `width` columns.

    Columns beyond them are still looked at. By default all of (H, W, 3) or (H, W) is resized.
    """
    box = (left, 0, pixels.shape[1] if right is None else right, len(pixels))
    return np.asarray(Image.fromarray(pixels).resize((width, len(pixels)), Image.Resampling.LANCZOS, box))


def resize_rows(pixels: NDArray[np.uint8], height: int, top: float, bottom: float) -> NDArray[np.uint8]:
    """The second pass of `resize`: the rows from `top` to `bottom`, in pixels, to `height` rows.

    Rows beyond them are still looked at.
    """
    width = pixels.shape[1]
    box = (0, top, width, bottom)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box))
