"""One process that decodes, as seen from outside; `engines.codecs.decoder_process` is the inside.

Pictures come through pipes. 16 megapixels (48 MB) take 27 ms so; through shared memory, a fresh block for
each picture as it may outlive the process, 53 ms: the pipe's two copies overlap, fresh shared pages are slow.

What the process says is not trusted: its decoder may have been taken over.
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, cast

import msgspec
import numpy as np
import numpy.typing as npt

from engines.codecs.decoder_process import (
    ANSWER_HEADER,
    READY,
    REQUEST_HEADER,
    Answer,
    Decoded,
    Failed,
    Inspected,
    Request,
)
from engines.codecs.image import ImageInfo, Picture
from engines.errors import BrokenImageError, ImageError, ImageTooLargeError, NotAnImageError

if sys.platform == "linux":
    import fcntl

__all__ = ["COMMAND", "Decoder"]

log = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-P", "-W", "ignore", "-m", "engines.codecs.decoder_process")

_PASSED_ON: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # what an interpreter may need
_START_WITHIN: Final = 60.0
_WALL_SECONDS: Final = 3
"""Elapsed seconds for each second of processor time: others may use the processor too."""
_MAX_METADATA: Final = 64 * 2**20
_ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)
_ERRORS: Final[dict[str, type[ImageError]]] = {
    error.__name__: error for error in (NotAnImageError, BrokenImageError, ImageTooLargeError)
}
_SIGXCPU: Final = 24  # the same on Linux and macOS; Windows has none
_PIPE_SIZE: Final = 2**20  # what Linux lets anyone have; the default, 64 KiB, halves the speed


class _NonsenseError(Exception):
    """The process says what it cannot mean."""


class Decoder:
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
        self._fit = True
        self._late = False

    @property
    def fit(self) -> bool:
        """Whether another image can be given to it."""
        return self._fit and not self._late and self._popen.poll() is None

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
        self._fit = False  # until all of its answer is read
        try:
            with self._at_most(request.seconds * _WALL_SECONDS):
                encoded = msgspec.msgpack.encode(request)
                _write(self._requests, REQUEST_HEADER.pack(len(encoded)) + encoded)
                _write(self._requests, data)
                worn, answer = self._read_answer()
                outcome = self._outcome(answer, request)
        except (OSError, EOFError, _NonsenseError, msgspec.DecodeError) as error:
            raise BrokenImageError(f"The image could not be decoded: {self._end_of(request)}.") from error
        self._fit = not worn
        if isinstance(outcome, ImageError):
            raise outcome
        return outcome

    def kill(self) -> None:
        self._popen.kill()

    def end(self) -> None:
        """Kill it, and leave nothing of it behind."""
        self._popen.kill()
        self._popen.wait()
        self._requests.close()
        self._answers.close()

    def _read_answer(self) -> tuple[bool, Answer]:
        worn, size = ANSWER_HEADER.unpack(_read(self._answers, ANSWER_HEADER.size))
        if size > _MAX_METADATA:
            raise _NonsenseError("the answer is too long to be true")
        return worn, _ANSWERS.decode(_read(self._answers, size))

    def _outcome(self, answer: Answer, request: Request) -> ImageInfo | Picture | ImageError:
        match answer:
            case Inspected(info) if request.header_only:
                _check_size(info.width, info.height, request)
                return info
            case Decoded(width, height, has_alpha) if not request.header_only:
                _check_size(width, height, request)
                pixels = self._read_samples((height, width, 3))
                alpha = self._read_samples((height, width)) if has_alpha else None
                return Picture(pixels, alpha, answer.icc_profile, answer.exif, answer.xmp)
            case Failed(name, message) if name in _ERRORS:
                return _ERRORS[name](message)
        raise _NonsenseError("it answers another question")

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
        self._late = True
        self.kill()

    def _end_of(self, request: Request) -> str:
        """Why it ended at an image; it does so here if it has not."""
        self.kill()
        status = self._popen.wait()
        late = self._late or status == -_SIGXCPU
        reason = f"it took more than {request.seconds:g} seconds" if late else "the decoder crashed"
        log.warning("an image of %d bytes ended its decoder: %s (%d)", request.size, reason, status)
        return reason


def _check_size(width: int, height: int, request: Request) -> None:
    if min(width, height) < 1 or width * height > request.max_pixels:
        raise _NonsenseError("the picture is too large to be true")


def _environment() -> dict[str, str]:
    """No secrets; the modules are found where this program finds them, this package where it is."""
    own = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    home = Path(__file__).parents[2]  # the application that uses it may have an `engines` of its own
    modules = dict.fromkeys(str(Path(path).absolute()) for path in [str(home), *sys.path])
    return own | {"PYTHONPATH": os.pathsep.join(modules), "OPENBLAS_NUM_THREADS": "1"}


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
