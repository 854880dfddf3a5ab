"""One latent upscaler on the devices: its parts run among the tiles, and the parts, of all other tasks.

The shell around `latent`. The denoising steps of different requests meet in the scheduler like tiles do:
those of equal size are computed together on a device that takes more than one at a time.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from engines.diffusion import Diffusion
from engines.errors import EngineError
from engines.executor import Executor
from engines.latent import Calls, PartName, Runs, upscale_latent
from engines.parts import Arrays, Part
from engines.prompts import prompts_of
from engines.worker import PartKey
from onnx_models import LatentWeights

__all__ = ["LatentUpscaler"]

_TEXT_PIXELS = 64 * 64
"""What a run of the text encoder costs, in pixels of a picture; it is small beside everything else."""


class LatentUpscaler:
    """A latent upscaler whose parts are loaded."""

    def __init__(self, weights: LatentWeights, executor: Executor) -> None:
        """Load the parts on all devices. Blocks.

        Args:
            weights: verified.
            executor: what runs them.

        Raises:
            ModelError: if something cannot be loaded.
        """
        self._weights = weights
        self._executor = executor
        self._prompts = prompts_of(Path(weights.tokenizer.path))
        self._parts = {name: Part(Path(getattr(weights, name)[0].path)) for name in get_args(PartName)}
        for part in self._parts.values():
            executor.load(part)

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(self._parts.values())

    async def upscale(
        self,
        pixels: NDArray[np.uint8],
        wanted: Diffusion,
        *,
        side: int,
        overlap: int,
        account: str,
        on_start: Callable[[], None] | None,
        on_progress: Callable[[float], None] | None,
    ) -> NDArray[np.float32]:
        """The picture at twice its size, (2 H, 2 W, 3) in [0, 1], not clipped.

        Cancelling the call frees what has not run yet.

        Args:
            pixels: (H, W, 3), RGB.
            wanted: what is asked for.
            side, overlap: of the windows, in input pixels.
            account: whose share of the devices it uses.
            on_start: called on the event loop when a device takes the first run.
            on_progress: called on the event loop with the finished share.

        Raises:
            ModelError: if a run fails, or what comes out is no picture.
        """
        tokens = self._prompts.tokens(wanted.prompt), self._prompts.tokens(wanted.negative_prompt)
        calls = upscale_latent(pixels, tokens, wanted, self._weights, side=side, overlap=overlap)
        results: list[Arrays] | None = None
        done = 0.0
        while not isinstance(runs := await asyncio.to_thread(_go_on, calls, results), np.ndarray):
            job = _Job(runs, asyncio.get_running_loop(), done, on_start, on_progress)
            results = await self._run(job, account)
            done, on_start = runs.share, None
        return runs

    async def _run(self, job: "_Job", account: str) -> list[Arrays]:
        task = "latent", next(_numbers)
        self._executor.submit(account, task, self._key(job.runs), job.items())
        try:
            await job.done
        finally:
            self._executor.cancel(task)
        return [result for result in job.results if result is not None]

    def _key(self, runs: Runs) -> PartKey:
        shapes = tuple(array.shape for array in runs.inputs[0])
        pixels, output_pixels = _TEXT_PIXELS, 0
        if runs.part == "vae_encoder":
            pixels = shapes[0][0] * shapes[0][1]
        elif runs.part != "text_encoder":
            height, width = shapes[0][-2:]
            output_pixels = height * width * self._weights.cell**2
            pixels = output_pixels // 4
        if runs.part != "vae_decoder":
            output_pixels = 0
        return PartKey(self._parts[runs.part], shapes, pixels, output_pixels)


_numbers = itertools.count()


def _go_on(calls: Calls, results: list[Arrays] | None) -> Runs | NDArray[np.float32]:
    """What is to be run next, or the picture. (A StopIteration cannot leave a thread.)"""
    try:
        return next(calls) if results is None else calls.send(results)
    except StopIteration as end:
        picture: NDArray[np.float32] = end.value
        return picture


@dataclass(slots=True, eq=False)
class _Job:
    """Some runs of a part, and who waits for them. All but `results` belongs to the event loop."""

    runs: Runs
    loop: asyncio.AbstractEventLoop
    share_before: float
    on_start: Callable[[], None] | None
    on_progress: Callable[[float], None] | None
    done: asyncio.Future[None] = field(init=False)
    results: list[Arrays | None] = field(init=False)
    finished: int = 0

    def __post_init__(self) -> None:
        self.done = self.loop.create_future()
        self.results = [None] * len(self.runs.inputs)

    def items(self) -> list["_Item"]:
        return [_Item(self, number) for number in range(len(self.results))]

    def begin(self) -> None:
        on_start, self.on_start = self.on_start, None
        if on_start is not None:
            self.on_loop(on_start)

    def on_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any longer
            self.loop.call_soon_threadsafe(callback)

    def advance(self) -> None:
        if self.done.done():
            return
        self.finished += 1
        if self.on_progress:
            share = self.finished / len(self.results)
            self.on_progress(self.share_before + (self.runs.share - self.share_before) * share)
        if self.finished == len(self.results):
            self.done.set_result(None)

    def give_up(self, error: EngineError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """One run, as the executor wants it."""

    job: _Job
    number: int

    def read(self) -> Arrays:
        self.job.begin()
        return self.job.runs.inputs[self.number]

    def finish(self, result: Arrays) -> None:
        self.job.results[self.number] = result
        self.job.on_loop(self.job.advance)

    def fail(self, error: EngineError) -> None:
        self.job.on_loop(partial(self.job.give_up, error))
