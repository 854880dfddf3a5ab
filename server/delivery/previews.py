"""Finished regions of a result, sent while the task runs (`includeTiles`).

They are a preview: never stored, never sent again, and hardly in anyone's way. They are a part of the result,
too, which is noted before each is sent: the task owes it. One thread encodes those of all tasks. A task has
one on its way to the client at a time, and none while the client leaves too much unread. A client that reads
at once gets all of the picture: the result waits a moment for its last tiles, after which they are dropped,
and free their memory.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from msgspec import UNSET

from engines import OnRegion, OutputFormat, Region, encode
from server.delivery.sessions import Disconnected, Link
from server.protocol.codec import data_uri, encode_reply
from server.protocol.errors import DatabaseUnavailableError
from server.protocol.replies import Progress, Tile

__all__ = ["MAX_SIDE", "MAX_UNSENT", "TileStreams", "encode_tile"]

log = logging.getLogger(__name__)

Note = Callable[[int, int], Awaitable[bool]]

MAX_SIDE: Final = 512
"""Pixels of a tile's side. Even noise with transparency stays well below the 1 MiB that clients may set as
their limit for a message (Runware's SDK for Python, and `websockets`, do)."""

MAX_UNSENT: Final = 2**20
"""Bytes that wait for the client, beyond which it gets no tiles."""

_LAST_SECONDS: Final = 1.0
"""How long a result that is encoded may wait for tiles that are still to be sent."""

_MAX_PROFILE: Final = 2**16
"""Bytes of a colour profile that each tile may carry; nearly all have fewer."""

_QUALITY: Final = 90
"""From here on JPEG stores colour at full resolution, and the edges of tiles do not show: on a photograph the
error jumps there by 1.0 level in the mean, elsewhere by 0.7; at quality 80, 4:2:0, by 1.7 and 0.8."""

_OPAQUE, _TRANSPARENT = OutputFormat.JPG, OutputFormat.WEBP


class TileStreams:
    """Encodes and sends the regions of all tasks that want them."""

    def __init__(self) -> None:
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="tile encoder")

    @contextlib.asynccontextmanager
    async def open(
        self, link: Callable[[], Link | None], item: Callable[[Tile], Progress], note: Note
    ) -> AsyncIterator[OnRegion]:
        """What takes the regions of one task, in any thread; they are sent until just after the block.

        Args:
            link: gives the connection to send to, None while there is none.
            item: gives what is sent of a tile.
            note: called before a tile is sent, with the pixels that are sent then and those of the result;
                False if no more may be.
        """
        loop = asyncio.get_running_loop()
        # No more than the picture has tiles; they are views of the result, not copies.
        regions: asyncio.Queue[Region | None] = asyncio.Queue()

        def on_region(region: Region) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any longer
                loop.call_soon_threadsafe(regions.put_nowait, region)

        sender = asyncio.create_task(self._send_all(regions, link, item, note))
        try:
            yield on_region
            regions.put_nowait(None)
            await asyncio.wait([sender], timeout=_LAST_SECONDS)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def close(self) -> None:
        """End the thread. Blocks for the tile that is being encoded."""
        self._encoder.shutdown(cancel_futures=True)

    async def _send_all(
        self,
        regions: asyncio.Queue[Region | None],
        link: Callable[[], Link | None],
        item: Callable[[Tile], Progress],
        note: Note,
    ) -> None:
        sent = 0
        while (region := await regions.get()) is not None:
            for piece in region.pieces(MAX_SIDE):
                then = sent + piece.area.width * piece.area.height
                try:
                    if (to := link()) is None or (tile := await self._tile(piece, to)) is None:
                        continue
                    with contextlib.suppress(Disconnected, DatabaseUnavailableError):
                        if not await note(then, region.width * region.height):
                            return
                        sent = then
                        await to.send(encode_reply(to.codec, item(tile)))
                except Exception:
                    log.exception("a tile could not be sent")

    async def _tile(self, piece: Region, link: Link) -> Tile | None:
        """What is to be sent of a piece; None if the client leaves too much unread."""
        if link.unsent > MAX_UNSENT:
            return None
        loop = asyncio.get_running_loop()
        tile = await loop.run_in_executor(self._encoder, encode_tile, piece, link.codec.binary)
        return None if link.unsent > MAX_UNSENT else tile  # other tasks may have sent meanwhile


def encode_tile(region: Region, binary: bool) -> Tile:
    """The region as a client gets it: JPEG, or WebP where there is transparency."""
    picture = region.picture()
    if len(picture.icc_profile or b"") > _MAX_PROFILE:
        picture = replace(picture, icc_profile=None)
    form = _OPAQUE if picture.alpha is None else _TRANSPARENT
    image = encode(picture, form, quality=_QUALITY)
    area = region.area
    return Tile(
        x=area.left,
        y=area.top,
        width=area.width,
        height=area.height,
        image_width=region.width,
        image_height=region.height,
        image=image if binary else UNSET,
        media_type=form.media_type if binary else UNSET,
        image_data_uri=UNSET if binary else data_uri(form.media_type, image),
    )
