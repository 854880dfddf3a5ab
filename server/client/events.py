"""What the client hands over."""

import io
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from PIL import Image

from onnx_models.files import write_atomically

__all__ = ["Event", "Finished", "Progress", "Result", "TileReady", "Upload"]


class Upload(Struct, frozen=True, kw_only=True):
    """An image that the server keeps; give it as the source of any number of tasks.

    Attributes:
        uuid: names it in later tasks, of this account only.
        url: where anyone who knows it gets the image.
    """

    uuid: str
    url: str


class Progress(Struct, frozen=True, kw_only=True):
    """The task is under way.

    Attributes:
        share: what is done, from 0 to 1.
    """

    task_uuid: str
    share: float


class TileReady(Struct, frozen=True, kw_only=True):
    """A finished part of the result, as a preview: JPEG, or WebP where there is transparency.

    Attributes:
        x, y, width, height: its place, in pixels of the result.
        image_width, image_height: size of the whole result.
        image: the file's bytes.
        media_type: image/jpeg or image/webp.
    """

    task_uuid: str
    x: int
    y: int
    width: int
    height: int
    image_width: int
    image_height: int
    image: bytes
    media_type: str

    def to_pillow(self) -> Image.Image:
        """The part as a Pillow image."""
        return _open(self.image)


class Result(Struct, frozen=True, kw_only=True, dict=True):
    """An upscaled image. It can itself be the source of a task.

    Attributes:
        image: the file's bytes, in the format that was asked for; None with `include_image=False`.
        uuid: names the image in later tasks, of this account only.
        url: where anyone who knows it gets the image, until its time is over.
        cost: in USD.
        warnings: what the server has to say about the parameters.
    """

    task_uuid: str
    uuid: str
    url: str
    cost: Decimal
    image: bytes | None = None
    warnings: tuple[str, ...] = ()

    @property
    def width(self) -> int | None:
        """In pixels; None without the image."""
        return self._size[0] if self._size else None

    @property
    def height(self) -> int | None:
        """In pixels; None without the image."""
        return self._size[1] if self._size else None

    def save(self, path: str | Path) -> None:
        """Write the file, which is seen whole or not at all. Blocks.

        Raises:
            ValueError: if the image was not asked for.
            OSError: if the file cannot be written.
        """
        write_atomically(Path(path), self._bytes())

    def to_pillow(self) -> Image.Image:
        """The image in Pillow, decoded.

        Raises:
            ValueError: if the image was not asked for.
        """
        return _open(self._bytes())

    def to_array(self) -> NDArray[np.uint8]:
        """The pixels, (H, W, 3) uint8, or (H, W, 4) where there is transparency.

        Raises:
            ValueError: if the image was not asked for.
        """
        image = self.to_pillow()
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))

    @cached_property
    def _size(self) -> tuple[int, int] | None:
        if self.image is None:
            return None
        with Image.open(io.BytesIO(self.image)) as header:  # reads no pixels
            return header.size

    def _bytes(self) -> bytes:
        if self.image is None:
            raise ValueError("the image was not asked for (include_image=False); it is at the result's url")
        return self.image


Event = Progress | TileReady | Result
"""What `Tilewire.stream` gives; the result is the last."""


class Finished(Struct, frozen=True):
    """One of many tasks that has ended.

    Attributes:
        source: the picture, as it was given.
        outcome: its result, or what went wrong.
    """

    source: Any
    outcome: Result | Exception

    def result(self) -> Result:
        """The result; raises what went wrong."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
