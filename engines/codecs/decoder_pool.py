"""`inspect` and `decode` in processes of their own: what no decoder's crash or runaway can take down.

A process does one image at a time. One that dies, or takes too long, is replaced; the image that it was at is
a broken one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from engines.codecs.decoder import COMMAND, Decoder, Reading
from engines.codecs.decoder_process import Request, Wanted
from engines.codecs.image import ImageInfo
from engines.codecs.picture import Picture
from engines.errors import EngineError

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
        # A process ends with the thread that started it (PR_SET_PDEATHSIG); these live until `close`.
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="decoder")
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []
        self._decoders: set[Decoder] = set()
        self._closed = False
        for _ in range(self.count):
            self._have_one_ready()

    async def inspect(self, data: bytes, *, max_pixels: int) -> ImageInfo:
        """As `engines.inspect`.

        Raises:
            ImageError: as `engines.inspect`; a BrokenImageError also if it crashes or takes too long.
            EngineError: if the decoders cannot be started, or are closed.
        """
        info, _ = await self._run(data, "header", max_pixels)
        assert info is not None
        return info

    async def decode(self, data: bytes, *, max_pixels: int) -> Picture:
        """As `engines.decode`.

        Raises:
            ImageError: as `engines.decode`; a BrokenImageError also if it crashes or takes too long.
            EngineError: if the decoders cannot be started, or are closed.
        """
        _, picture = await self._run(data, "picture", max_pixels)
        assert picture is not None
        return picture

    async def read(
        self, data: bytes, *, max_pixels: int, decoded_up_to: int
    ) -> tuple[ImageInfo, Picture | None]:
        """As `engines.read`, in one trip to a process.

        Raises:
            ImageError: as `engines.inspect`; a BrokenImageError also if it crashes or takes too long.
            EngineError: if the decoders cannot be started, or are closed.
        """
        info, picture = await self._run(data, "both", max_pixels, decoded_up_to)
        assert info is not None
        return info, picture

    def close(self) -> None:
        """End the processes, whatever they are at. Blocks for a moment."""
        with self._lock:
            self._closed = True
            for decoder in self._decoders:
                decoder.kill()
        self._threads.shutdown()  # what waits finds that all is closed
        for decoder in tuple(self._decoders):
            self._end(decoder)

    async def _run(self, data: bytes, wanted: Wanted, max_pixels: int, decoded_up_to: int = 0) -> Reading:
        request = Request(wanted, max_pixels, self._seconds, len(data), decoded_up_to)
        try:
            job = asyncio.get_running_loop().run_in_executor(self._threads, self._do, request, data)
        except RuntimeError as error:  # closed, or the system has no more threads
            raise EngineError(f"no image can be decoded now: {error}") from error
        return await job

    def _do(self, request: Request, data: bytes) -> Reading:
        """Have an image decoded. Raises what `decode` and `inspect` do."""
        decoder = self._take()
        try:
            return decoder.ask(request, data)
        finally:
            self._give_back(decoder)

    def _take(self) -> Decoder:
        """A process that is ready; it may have ended while it waited, and another is started then."""
        while True:
            with self._lock:
                decoder = self._idle.pop() if self._idle else None
            if decoder is None:
                return self._start()
            if decoder.fit:
                return decoder
            self._end(decoder)

    def _give_back(self, decoder: Decoder) -> None:
        if decoder.fit:
            with self._lock:
                self._idle.append(decoder)
        else:
            self._end(decoder)
            self._have_one_ready()

    def _have_one_ready(self) -> None:
        """Start a process in one of the threads, so that it is there before it is needed."""
        with suppress(RuntimeError):  # closed, or no thread to be had: it is started when it is needed
            self._threads.submit(self._prepare)

    def _prepare(self) -> None:
        with self._lock:
            if len(self._decoders) >= self.count:
                return
        with suppress(EngineError):  # it is logged, and tried again when an image comes
            decoder = self._start()
            with self._lock:
                self._idle.append(decoder)

    def _start(self) -> Decoder:
        decoder: Decoder | None = None
        try:
            with self._lock:
                if self._closed:
                    raise EngineError("the decoders are closed")
                decoder = Decoder(self._command)
                self._decoders.add(decoder)
            decoder.wait_until_ready()
        except (OSError, EOFError, ValueError, RuntimeError, MemoryError) as error:
            if decoder is not None:
                self._end(decoder)
            if not self._closed:
                log.error("a decoder cannot be started: %s", error)  # noqa: TRY400 - it told why on stderr
            raise EngineError("no process to decode the image can be started") from error
        return decoder

    def _end(self, decoder: Decoder) -> None:
        with self._lock:
            self._decoders.discard(decoder)
        decoder.end()
