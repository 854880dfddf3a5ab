"""What the client hands over."""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from tilewire.pictures import encode_array, open_picture, save_as
from tilewire.wire import wire_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["Event", "Finished", "Progress", "Result", "TileReady", "Upload", "decode_event"]


class Upload(Struct, frozen=True, kw_only=True, rename={"uuid": "imageUUID", "url": "imageURL"}):
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
        queue_position: while it waits behind others: 1 if it is the next; else None.
    """

    task_uuid: str
    share: float
    queue_position: int | None = None


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

    def __repr__(self) -> str:
        return _shown(self)

    def to_pillow(self) -> Image.Image:
        """Give the part as a Pillow image."""
        return _loaded(self.image)


def _shown(struct: Struct) -> str:
    """The usual `repr`, with the number of bytes in place of the bytes."""
    values = ((name, getattr(struct, name)) for name in struct.__struct_fields__)
    fields = (f"{name}=<{len(x)} bytes>" if isinstance(x, bytes) else f"{name}={x!r}" for name, x in values)
    return f"{type(struct).__name__}({', '.join(fields)})"


class WirePixels(Struct, frozen=True):
    """An image without a file around it, as it is sent."""

    width: int
    height: int
    channels: int
    pixels: memoryview


def wire_pixels(array: NDArray[np.uint8]) -> WirePixels:
    """Give (H, W), (H, W, 3) or (H, W, 4) as it is sent; not copied, if it lies in one piece."""
    import numpy as np

    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
    return WirePixels(width, height, channels, np.ascontiguousarray(array).data.cast("B"))


class Result(
    Struct,
    frozen=True,
    kw_only=True,
    dict=True,
    rename={
        "task_uuid": "taskUUID",
        "uuid": "imageUUID",
        "url": "imageURL",
        "image": "imageBase64Data",
        "pixels": "image",
        "nsfw": "NSFWContent",
        "nsfw_scores": "NSFWScores",
    },
):
    """An upscaled image. It can itself be the source of a task.

    Attributes:
        image: the file's bytes, in the format that was asked for; None with `include_image=False` and of RAW.
        pixels: those of RAW, which `to_array` gives.
        uuid: names the image in later tasks, of this account only; empty if it is not stored.
        url: where anyone who knows it gets the image, until its time is over; empty if it is not stored.
        cost: in USD.
        warnings: what the server has to say about the parameters.
        nsfw: whether it may not be safe for work; None if nobody looked.
        nsfw_scores: how probable that is, from 0 to 1, of the `input` and the `result`.
    """

    task_uuid: str
    uuid: str = ""
    url: str = ""
    cost: Decimal = Decimal(0)
    image: bytes | None = None
    pixels: WirePixels | None = None
    warnings: tuple[str, ...] = ()
    nsfw: bool | None = None
    nsfw_scores: dict[str, float] = {}

    def __repr__(self) -> str:
        return _shown(self)

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

        The name decides the format: where the result has another, it is converted. A warning says so where
        that loses something: to save PNG, ask for `output_format="PNG"`.

        Args:
            path: of the file. With an ending that names no image format, the bytes are written as they are.

        Raises:
            ValueError: if the image was not asked for, or cannot be converted.
            OSError: if the file cannot be written.
        """
        save_as(self._bytes(), Path(path))

    def to_pillow(self) -> Image.Image:
        """Give the image in Pillow, decoded, however large it is.

        Raises:
            ValueError: if the image was not asked for.
        """
        if self.pixels is not None:
            from PIL import Image

            return Image.fromarray(self.to_array())
        return _loaded(self._bytes())

    def to_array(self) -> NDArray[np.uint8]:
        """Give the pixels, (H, W, 3) uint8, or (H, W, 4) where there is transparency; of RAW grey (H, W).

        Raises:
            ValueError: if the image was not asked for.
        """
        import numpy as np

        if (raw := self.pixels) is not None:
            flat = np.frombuffer(raw.pixels, np.uint8).copy()  # who gets it may change it
            return flat.reshape((raw.height, raw.width) if raw.channels == 1 else (raw.height, raw.width, -1))
        image = self.to_pillow()
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))

    @cached_property
    def _size(self) -> tuple[int, int] | None:
        if self.pixels is not None:
            return self.pixels.width, self.pixels.height
        return None if self.image is None else open_picture(self.image).size

    def _bytes(self) -> bytes:
        if self.pixels is not None:
            return encode_array(self.to_array())
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
        """Give the result, or raise what went wrong."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class WireTile(Struct, rename=wire_name):
    """A part of a result, as the server sends it."""

    x: int
    y: int
    width: int
    height: int
    image_width: int
    image_height: int
    image: bytes
    media_type: str


class WireProgress(Struct, rename=wire_name):
    """News of a task that is under way, as the server sends it; `status` is empty in its result."""

    task_uuid: str
    status: str = ""
    progress: float = 0  # percent
    queue_position: int | None = None
    tile: WireTile | None = None


def decode_event(reply: Raw) -> Event:
    """Give what one of the replies to an upscale says."""
    news = msgspec.msgpack.decode(reply, type=WireProgress)
    if news.status != "processing":
        return msgspec.msgpack.decode(reply, type=Result)
    if news.tile is not None:
        return TileReady(task_uuid=news.task_uuid, **msgspec.structs.asdict(news.tile))
    return Progress(task_uuid=news.task_uuid, share=news.progress / 100, queue_position=news.queue_position)


def _loaded(data: bytes) -> Image.Image:
    image = open_picture(data)
    image.load()
    return image
