"""`inspect` and `decode` in processes of their own: what no decoder's crash or runaway can take down.

Each process has a thread here that hands it one image at a time. A process that dies, or takes too long, is
replaced; the image that it was at is a broken one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from engines.codecs.decoder import COMMAND, Decoder
from engines.codecs.decoder_process import Request
from engines.codecs.image import ImageInfo, Picture
from engines.errors import EngineError, ImageError

__all__ = ["Decoders"]

log = logging.getLogger(__name__)


class Decoders:
    """A few processes that decode images. Close them when done."""

    def __init__(
        self, count: int | None = None, *, seconds: float = 30.0, command: Sequence[str] = COMMAND
    ) -> None:
        """Starts the processes, and does not wait for them.

        Args:
            count: how many images are decoded at once; by default as many as there are processors, up to 4.
            seconds: of processor time that one image may take; and three times that in all.
            command: what runs as a decoder.
        """
        self.count = count or min(4, os.cpu_count() or 1)
        self._seconds = seconds
        self._command = command
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._decoders: set[Decoder] = set()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"decoder {number}", daemon=True)
            for number in range(self.count)
        ]
        for thread in self._threads:
            thread.start()

    async def inspect(self, data: bytes, *, max_pixels: int) -> ImageInfo:
        """As `engines.inspect`.

        Raises:
            ImageError: as `engines.inspect`; a BrokenImageError also if it crashes or takes too long.
            EngineError: if the decoders cannot be started, or are closed.
        """
        info = await self._run(data, header_only=True, max_pixels=max_pixels)
        assert isinstance(info, ImageInfo)
        return info

    async def decode(self, data: bytes, *, max_pixels: int) -> Picture:
        """As `engines.decode`.

        Raises:
            ImageError: as `engines.decode`; a BrokenImageError also if it crashes or takes too long.
            EngineError: if the decoders cannot be started, or are closed.
        """
        picture = await self._run(data, header_only=False, max_pixels=max_pixels)
        assert isinstance(picture, Picture)
        return picture

    def close(self) -> None:
        """End the processes, whatever they are at. Blocks for a moment."""
        with self._lock:
            self._closed = True
            for decoder in self._decoders:
                decoder.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    async def _run(self, data: bytes, *, header_only: bool, max_pixels: int) -> ImageInfo | Picture:
        job = _Job(data, Request(header_only, max_pixels, self._seconds, len(data)))
        with self._lock:
            if self._closed:
                raise EngineError("the decoders are closed")
            self._jobs.put(job)
        return await asyncio.wrap_future(job.outcome)

    def _work(self) -> None:
        """A thread's life: one decoder at a time, which is there before it is needed."""
        decoder = self._start()
        while (job := self._jobs.get()) is not None:
            if job.outcome.set_running_or_notify_cancel():
                decoder = self._do(job, decoder)
            del job  # its file and picture
        self._end(decoder)

    def _do(self, job: _Job, decoder: Decoder | None) -> Decoder | None:
        """Have an image decoded; gives the decoder for the next."""
        decoder = self._fit(decoder)  # it may have been ended while it waited
        if decoder is None:
            job.outcome.set_exception(EngineError("no process to decode the image can be started"))
            return None
        try:
            job.outcome.set_result(decoder.ask(job.request, job.data))
        except ImageError as error:
            job.outcome.set_exception(error)
        except Exception:
            log.exception("an image of %d bytes cannot be decoded", len(job.data))
            job.outcome.set_exception(EngineError("the image cannot be decoded"))
        return self._fit(decoder)

    def _fit(self, decoder: Decoder | None) -> Decoder | None:
        """The decoder, or a new one in its place."""
        if decoder is not None and decoder.fit:
            return decoder
        self._end(decoder)
        return self._start()

    def _start(self) -> Decoder | None:
        decoder: Decoder | None = None
        try:
            with self._lock:
                if self._closed:
                    return None
                decoder = Decoder(self._command)
                self._decoders.add(decoder)
            decoder.wait_until_ready()
        except (OSError, EOFError) as error:
            if not self._closed:
                log.error("a decoder cannot be started: %s", error)  # noqa: TRY400 - it told why on stderr
            self._end(decoder)
            return None
        return decoder

    def _end(self, decoder: Decoder | None) -> None:
        if decoder is not None:
            with self._lock:
                self._decoders.discard(decoder)
            decoder.end()


@dataclass(frozen=True, slots=True)
class _Job:
    data: bytes
    request: Request
    outcome: Future[ImageInfo | Picture] = field(default_factory=Future)
