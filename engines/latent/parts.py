"""The parts of a diffusion model on the devices: they run among the tiles, and the parts, of all other tasks.

The denoising steps of different requests meet in the scheduler like tiles do: those of equal size are
computed together on a device that takes more than one at a time.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.devices.parts import Arrays, Part
from engines.errors import DeviceOutOfMemoryError
from engines.latent.denoising import Tokens
from engines.latent.diffusion import Diffusion
from engines.latent.prompts import prompts_of
from engines.latent.runs import F32, Calls, PartName, Runs
from engines.latent.windows import overlap_of
from engines.part_job import run_part
from engines.progress import Progress, within
from engines.scheduling.executor import Executor
from engines.scheduling.work import PartKey
from engines.threads import Threads
from onnx_models import DiffusionWeights, Model

__all__ = ["LoadedParts", "as_pixels"]

_SMALLEST_WINDOW = 128
"""The side below which a window would show too little for a picture to be made of it; in input pixels."""

_TEXT_PIXELS = 64 * 64
"""What a run of a part that sees no window costs, in pixels of a picture; it is small beside all else."""


class MakeCalls(Protocol):
    """Makes calls for windows of a side, which overlap by so much, both in pixels."""

    def __call__(self, *, side: int, overlap: int) -> Calls:
        """Those of one pass."""
        ...


class LoadedParts:
    """The parts of one model, loaded on all devices."""

    def __init__(
        self, weights: DiffusionWeights, executor: Executor, threads: Threads, *, spread: int, scale: int
    ) -> None:
        """Load them. Blocks.

        Args:
            weights: verified.
            executor: what runs them.
            threads: for the work beside the devices.
            spread: latents a cell, in height and width.
            scale: side of the decoder's image / side of the encoder's.

        Raises:
            ModelError: if something cannot be loaded.
        """
        self._weights = weights
        self._spread, self._scale = spread, scale
        self._executor = executor
        self._threads = threads
        self._prompts = None if weights.tokenizer is None else prompts_of(Path(weights.tokenizer.path))
        self._parts = {
            name: Part(Path(first.path), inexact=True, data=tuple(Path(file.path) for file in data))
            for name, (first, *data) in weights.parts.items()
        }
        for part in self._parts.values():
            executor.load(part)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of them."""
        return tuple(self._parts.values())

    def tokens(self, wanted: Diffusion) -> Tokens | None:
        """Those of the prompts; None if the model takes none."""
        if self._prompts is None:
            return None
        return self._prompts.tokens(wanted.prompt), self._prompts.tokens(wanted.negative_prompt)

    async def in_windows(
        self,
        model: Model,
        side: int,
        pixels: NDArray[np.uint8],
        calls: MakeCalls,
        *,
        account: str,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
    ) -> F32:
        """What calls give in the end. If a window does not fit into a device's memory they are begun again.

        Args:
            model: whose parts they are.
            side: of the largest window that is wanted, in pixels.
            pixels: what is cut into windows, (H, W, 3).
            calls: makes the calls.
            account: whose share of the devices they use.
            on_start: called on the event loop when a device takes the first run.
            on_progress: called on the event loop with the finished share, from 0 to 1.

        Raises:
            ModelError: if a run fails, or what comes out is no picture.
        """
        smallest, largest = min(_SMALLEST_WINDOW, side), side
        while True:
            side = max(smallest, min([largest, *self._rooms()]))
            try:
                begun = calls(side=side, overlap=overlap_of(model, side))
                return await self._run(begun, account, on_start, on_progress)
            except DeviceOutOfMemoryError:
                height, width = (min(side, length) for length in pixels.shape[:2])
                largest = math.isqrt(height * width // 2)
                if height * width <= smallest**2:
                    raise

    def _rooms(self) -> list[int]:
        """The largest sides of a window that parts have memory for, where that is known."""
        rooms = [self._executor.room(part) for name, part in self._parts.items() if name not in _NO_WINDOW]
        return [math.isqrt(room) for room in rooms if room is not None]

    async def _run(
        self, calls: Calls, account: str, on_start: Callable[[], None] | None, on_progress: Progress
    ) -> F32:
        results: list[Arrays] | None = None
        done = 0.0
        while not isinstance(runs := await self._threads.run(_go_on, calls, results), np.ndarray):
            results = await run_part(
                self._executor,
                self._key(runs),
                runs.inputs,
                account=account,
                on_start=on_start,
                on_progress=within(on_progress, done, runs.share),
            )
            done, on_start = runs.share, None
        return runs

    def _key(self, runs: Runs) -> PartKey:
        shapes = tuple(array.shape for array in runs.inputs[0])
        pixels, output_pixels = _TEXT_PIXELS, 0
        if runs.part == "vae_encoder":
            pixels = shapes[0][0] * shapes[0][1]
        elif runs.part not in _NO_WINDOW:
            height, width = shapes[0][-2:]
            pixels = height * width * self._weights.cell**2 // self._spread**2
            output_pixels = pixels * self._scale**2
        if runs.part != "vae_decoder":
            output_pixels = 0
        return PartKey(self._parts[runs.part], shapes, pixels, output_pixels)


_NO_WINDOW: tuple[PartName, ...] = ("text_encoder", "image_encoder")


def as_pixels(generated: F32) -> NDArray[np.uint8]:
    """A generated picture, (H, W, 3) in [0, 1], which is spent, as pixels."""
    np.clip(generated, 0, 1, out=generated)
    generated *= 255
    pixels: NDArray[np.uint8] = np.rint(generated, out=generated).astype(np.uint8)
    return pixels


def _go_on(calls: Calls, results: list[Arrays] | None) -> Runs | F32:
    """What is to be run next, or the picture; as a StopIteration cannot leave a thread."""
    try:
        return next(calls) if results is None else calls.send(results)
    except StopIteration as end:
        picture: F32 = end.value
        return picture
