"""`inspect` and `decode` in processes of their own: what no decoder's crash or runaway can take down.

Each process has a thread here that hands it one image at a time. A process that dies, or takes too long, is
replaced; the image that it was at is a broken one. `engines.decoder_process` is the other end.

Pictures come through pipes. 16 megapixels (48 MB) take 27 ms so; through shared memory, a fresh block for
each picture as it may outlive the process, 53 ms: the pipe's two copies overlap, fresh shared pages are slow.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, cast

import msgspec
import numpy as np
import numpy.typing as npt

from engines.decoder_process import (
    ANSWER_HEADER,
    READY,
    REQUEST_HEADER,
    Answer,
    Decoded,
    Inspected,
    Request,
)
from engines.errors import BrokenImageError, EngineError, ImageError, ImageTooLargeError, NotAnImageError
from engines.image import ImageInfo, Picture

if sys.platform == "linux":
    import fcntl

__all__ = ["Decoders"]

log = logging.getLogger(__name__)

_COMMAND: Final = (sys.executable, "-P", "-W", "ignore", "-m", "engines.decoder_process")
_PASSED_ON: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # what an interpreter may need
_START_WITHIN: Final = 60.0
_WALL_SECONDS: Final = 3
"""Elapsed seconds for each second of processor time: others may use the processor too."""
_MAX_METADATA: Final = 64 * 2**20
_ERRORS: Final[dict[str, type[ImageError]]] = {
    error.__name__: error for error in (NotAnImageError, BrokenImageError, ImageTooLargeError)
}
_ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)
_SIGXCPU: Final = 24
_PIPE_SIZE: Final = 2**20  # Linux's /proc/sys/fs/pipe-max-size; the default, 64 KiB, halves the speed


class Decoders:
    """A few processes that decode images. Close them when done."""

    def __init__(
        self, count: int | None = None, *, seconds: float = 30.0, command: Sequence[str] = _COMMAND
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
        self._processes: set[_Process] = set()
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
            for process in self._processes:
                process.kill()
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
        """A thread's life: one process at a time, which is there before it is needed."""
        process: _Process | None = None
        try:
            while True:
                process = self._usable(process)
                job = self._jobs.get()
                if job is None:
                    return
                if not job.outcome.set_running_or_notify_cancel():
                    continue
                process = self._usable(process)  # it may have been ended while it waited
                if process is None:
                    job.outcome.set_exception(EngineError("no process to decode the image can be started"))
                    continue
                try:
                    job.outcome.set_result(process.ask(job.request, job.data))
                except EngineError as error:
                    job.outcome.set_exception(error)
        finally:
            self._end(process)

    def _usable(self, process: _Process | None) -> _Process | None:
        """The process, or a new one for one that is not fit for another image."""
        if process is None or process.fit:
            return process or self._start()
        self._end(process)
        return self._start()

    def _start(self) -> _Process | None:
        process: _Process | None = None
        try:
            with self._lock:
                if self._closed:
                    return None
                process = _Process(self._command)
                self._processes.add(process)
            process.wait_until_ready()
        except (OSError, EOFError) as error:
            if not self._closed:
                log.error("a decoder cannot be started: %s", error)  # noqa: TRY400 - it told why on stderr
            self._end(process)
            return None
        return process

    def _end(self, process: _Process | None) -> None:
        if process is not None:
            with self._lock:
                self._processes.discard(process)
            process.end()


@dataclass(frozen=True, slots=True)
class _Job:
    data: bytes
    request: Request
    outcome: Future[ImageInfo | Picture] = field(default_factory=Future)


class _Process:
    """One process, for one thread; only `kill` may be called from others."""

    def __init__(self, command: Sequence[str]) -> None:
        # Not multiprocessing: it would pass on what this program is and has, and unpickle the answers.
        self._popen = subprocess.Popen(  # noqa: S603 - this interpreter, this package
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=_environment()
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._requests, self._answers = self._popen.stdin, self._popen.stdout
        for pipe in (self._requests, self._answers):
            _widen(pipe)
        self._worn = False
        self._late = False

    @property
    def fit(self) -> bool:
        """Whether another image can be given to it."""
        return not self._worn and self._popen.poll() is None

    def wait_until_ready(self) -> None:
        """Raises OSError or EOFError if it does not start."""
        with self._at_most(_START_WITHIN):
            if _read(self._answers, len(READY)) != READY:
                raise EOFError("it says something else than that it is ready")

    def ask(self, request: Request, data: bytes) -> ImageInfo | Picture:
        """Have an image decoded.

        Raises:
            ImageError: is its answer, or it could not give one.
        """
        try:
            with self._at_most(request.seconds * _WALL_SECONDS):
                encoded = msgspec.msgpack.encode(request)
                _write(self._requests, REQUEST_HEADER.pack(len(encoded)) + encoded)
                _write(self._requests, data)
                answer = self._read_answer()
                if isinstance(answer, Decoded):
                    return self._read_picture(answer, request.max_pixels)
        except (OSError, EOFError, msgspec.DecodeError) as error:
            raise BrokenImageError(f"The image could not be decoded: {self._bury(request)}.") from error
        if isinstance(answer, Inspected):
            return answer.info
        raise _ERRORS.get(answer.error, BrokenImageError)(answer.message)

    def kill(self) -> None:
        self._popen.kill()

    def end(self) -> None:
        """Kill it, and leave nothing of it behind."""
        self._popen.kill()
        self._popen.wait()
        self._requests.close()
        self._answers.close()

    def _read_answer(self) -> Answer:
        self._worn, size = ANSWER_HEADER.unpack(_read(self._answers, ANSWER_HEADER.size))
        if size > _MAX_METADATA:
            raise EOFError("the answer is too long to be true")
        return _ANSWERS.decode(_read(self._answers, size))

    def _read_picture(self, answer: Decoded, max_pixels: int) -> Picture:
        if min(answer.width, answer.height) < 1 or answer.width * answer.height > max_pixels:
            raise EOFError("the picture is too large to be true")
        pixels = self._read_samples((answer.height, answer.width, 3))
        alpha = self._read_samples((answer.height, answer.width)) if answer.has_alpha else None
        return Picture(pixels, alpha, answer.icc_profile, answer.exif, answer.xmp)

    def _read_samples(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        samples = np.empty(shape, np.uint8)
        _read_into(self._answers, samples.data.cast("B"))
        samples.flags.writeable = False
        return samples

    @contextmanager
    def _at_most(self, seconds: float) -> Iterator[None]:
        """Kill it unless the block ends in time."""
        timer = threading.Timer(seconds, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # so that it does not kill a process that is given another image meanwhile

    def _give_up(self) -> None:
        self._late = self._worn = True
        self.kill()

    def _bury(self, request: Request) -> str:
        """End it for good, and say why."""
        self._worn = True
        self.kill()
        status = self._popen.wait()
        late = self._late or status == -_SIGXCPU
        reason = f"it took more than {request.seconds:g} seconds" if late else "the decoder crashed"
        log.warning("an image of %d bytes ended its decoder: %s (%d)", request.size, reason, status)
        return reason


def _environment() -> dict[str, str]:
    """No secrets; the modules are found where this program finds them."""
    own = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    modules = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    return own | {"PYTHONPATH": modules, "OPENBLAS_NUM_THREADS": "1"}


def _widen(pipe: IO[bytes]) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # the system may have a lower limit
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


def _write(pipe: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[pipe.write(rest) :]


def _read(pipe: IO[bytes], size: int) -> bytes:
    data = bytearray(size)
    _read_into(pipe, memoryview(data))
    return bytes(data)


def _read_into(pipe: IO[bytes], rest: memoryview) -> None:
    while rest:
        count = cast(io.RawIOBase, pipe).readinto(rest)
        if not count:
            raise EOFError("it ended")
        rest = rest[count:]
