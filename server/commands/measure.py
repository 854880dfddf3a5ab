"""Measures what a model does on this machine, through a server and its socket, in a given time."""

import asyncio
import io
import time
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from PIL import Image

from server.commands.embedded import embedded_server
from server.errors import StartError
from server.settings import Settings
from tilewire import Tilewire, TilewireError

__all__ = ["PHOTO_SIDE", "Failure", "Measurement", "measure", "photograph"]

PHOTO_SIDE: Final = 512
"""Of the picture that is timed, or whose time is computed from that of a smaller one."""

_FIRST_SIDE: Final = 64
_AT_ONCE: Final = 8


class Measurement(Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        device: what computed, as the server names it.
        megapixels_per_second: of output, JPEG in and out, with several pictures at once where it is fast.
        photo_seconds: for a picture of 512 × 512 pixels, alone.
        measured_side: of the largest picture that was timed; if it is smaller, the time is computed.
        first_result_seconds: for a picture of 64 × 64 pixels right after the start, with the loading.
        memory_bytes: the most that the process held, server and client; None where that cannot be told.
    """

    model: str
    device: str
    megapixels_per_second: float
    photo_seconds: float
    measured_side: int
    first_result_seconds: float
    memory_bytes: int | None


class Failure(Struct, frozen=True, kw_only=True):
    """Why there is no measurement."""

    model: str
    device: str
    reason: str


def measure(model: str, device: str, settings: Settings, until: float) -> Measurement | Failure:
    """Measure one model on one device; call it in a process of its own, as it reports the process's memory.

    Args:
        model: its name.
        device: what the result calls the device.
        settings: of the server that is started; they choose the device.
        until: about when to stop, in seconds since the epoch; two small pictures are always timed.
    """
    try:
        with embedded_server(settings) as (url, key, _):
            return asyncio.run(_measure(model, device, url, key, until))
    except (StartError, TilewireError) as error:
        return Failure(model=model, device=device, reason=str(error))


async def _measure(model: str, device: str, url: str, key: str, until: float) -> Measurement:
    async with Tilewire(url, key, concurrency=_AT_ONCE) as tilewire:

        async def timed(side: int, count: int = 1) -> tuple[float, float]:
            """The seconds that it takes, and the megapixels that come out."""
            pictures = [photograph(side, seed) for seed in range(count)]
            began = time.perf_counter()
            results = await asyncio.gather(*(tilewire.upscale(picture, model=model) for picture in pictures))
            took = time.perf_counter() - began
            return took, sum((result.width or 0) * (result.height or 0) for result in results) / 1e6

        first, _ = await timed(_FIRST_SIDE)
        side, (took, megapixels) = _FIRST_SIDE, await timed(_FIRST_SIDE)
        # The first of a size may be slower, so each is timed twice: a step takes twice four times as long.
        while side < PHOTO_SIDE and time.time() + 8 * took < until:
            side *= 2
            await timed(side)
            took, megapixels = await timed(side)
        speed = megapixels / took
        if side == PHOTO_SIDE and time.time() + _AT_ONCE * took < until:
            together, megapixels = await timed(side, _AT_ONCE)
            speed = max(speed, megapixels / together)
    return Measurement(
        model=model,
        device=device,
        megapixels_per_second=speed,
        photo_seconds=took * (PHOTO_SIDE / side) ** 2,
        measured_side=side,
        first_result_seconds=first,
        memory_bytes=_peak_memory(),
    )


def photograph(side: int, seed: int = 0) -> bytes:
    """A JPEG with what photographs have: smooth areas, edges and noise."""
    chance = np.random.default_rng(seed)
    smooth = Image.fromarray(chance.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = smooth.resize((side, side), Image.Resampling.BICUBIC)
    edges = Image.fromarray(chance.integers(0, 2, (24, 24), dtype=np.uint8) * 40)
    edges = edges.resize((side, side), Image.Resampling.NEAREST)
    pixels = np.asarray(smooth, np.float32) + np.asarray(edges, np.float32)[:, :, np.newaxis]
    pixels += chance.normal(0, 4, pixels.shape).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _peak_memory() -> int | None:
    """The most main memory that this process has held, in bytes; known on Linux.

    getrusage would not do: what it tells includes the parent, up to the moment this process was made of it.
    """
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        return None
    peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if peak is None else int(peak) * 1024
