"""One process that decodes, as seen from outside; `engines.codecs.decoder_process` is the inside.

Pictures come through pipes. 16 megapixels (48 MB) take 27 ms so; through shared memory, a fresh block for
each picture as it may outlive the process, 53 ms: the pipe's two copies overlap, fresh shared pages are slow.

What the process says is not trusted: its decoder may have been taken over.
"""

from __future__ import annotations

import io
import logging
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

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
    together,
)
from engines.codecs.image import ImageInfo
from engines.codecs.picture import Picture
from engines.errors import (
    BrokenImageError,
    ImageError,
    ImageTooLargeError,
    NotAnImageError,
    UnsupportedImageError,
)

if sys.platform == "linux":
    import fcntl

__all__ = ["COMMAND", "Decoder", "Reading"]

log = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-P", "-W", "ignore", "-m", "engines.codecs.decoder_process")

_PASSED_ON: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # what an interpreter may need
_START_WITHIN: Final = 60.0
_WALL_SECONDS: Final = 3
"""Elapsed seconds for each second of processor time: others may use the processor too."""
_MAX_METADATA: Final = 64 * 2**20
_ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)
_ERRORS: Final[dict[str, type[ImageError]]] = {
    error.__name__: error
    for error in (NotAnImageError, UnsupportedImageError, BrokenImageError, ImageTooLargeError)
}
_SIGXCPU: Final = 24  # the same on Linux and macOS; Windows has none
_PIPE_SIZE: Final = 2**20  # what Linux lets anyone have; the default, 64 KiB, halves the speed


class Reading(NamedTuple):
    """What was read of an image, as far as it was wanted."""

    info: ImageInfo | None
    picture: Picture | None


class _NonsenseError(Exception):
    """The answer of the process contradicts the request."""


class Decoder:
    """One process, for one thread at a time; only `kill` may be called meanwhile."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts it, and does not wait until it is ready.

        Raises:
            OSError: it cannot be started.
        """
        # Not multiprocessing: it would pass on what this program is and has, and unpickle the answers.
        self._popen = subprocess.Popen(  # noqa: S603 - this interpreter, this package
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=_environment()
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._requests, self._answers = _Pipe(self._popen.stdin), _Pipe(self._popen.stdout)
        self._fit = False

    @property
    def fit(self) -> bool:
        """Whether another image can be given to it."""
        return self._fit and self._popen.poll() is None

    def wait_until_ready(self) -> None:
        """Returns when it can be given an image.

        Raises:
            OSError: it does not start in time.
            EOFError: it does not start.
        """
        if not self._fit:
            if self._answers.read(len(READY), _Deadline(_START_WITHIN)) != READY:
                raise EOFError("it says something else than that it is ready")
            self._fit = True

    def ask(self, request: Request, data: bytes) -> Reading:
        """Have an image decoded.

        Raises:
            ImageError: is its answer, or it could not give one.
        """
        self._fit = False  # until all of its answer is read
        deadline = _Deadline(request.seconds * _WALL_SECONDS)
        try:
            encoded = msgspec.msgpack.encode(request)
            for part in together([REQUEST_HEADER.pack(len(encoded)) + encoded, data]):
                self._requests.write(part, deadline)
            worn, answer = self._read_answer(deadline)
            outcome = self._outcome(answer, request, deadline)
        except (OSError, EOFError, _NonsenseError, msgspec.DecodeError) as error:
            reason = self._end_of(request, is_late=isinstance(error, TimeoutError))
            raise BrokenImageError(f"The image could not be decoded: {reason}.") from error
        self._fit = not worn
        if isinstance(outcome, ImageError):
            raise outcome
        return outcome

    def kill(self) -> None:
        """End it at once; whoever waits for its answer gets an error."""
        self._popen.kill()

    def end(self) -> None:
        """Kill it, and leave nothing of it behind."""
        self._popen.kill()
        self._popen.wait()
        self._requests.close()
        self._answers.close()

    def _read_answer(self, deadline: _Deadline) -> tuple[bool, Answer]:
        worn, size = ANSWER_HEADER.unpack(self._answers.read(ANSWER_HEADER.size, deadline))
        if size > _MAX_METADATA:
            raise _NonsenseError("the answer is too long to be true")
        return worn, _ANSWERS.decode(self._answers.read(size, deadline))

    def _outcome(self, answer: Answer, request: Request, deadline: _Deadline) -> Reading | ImageError:
        match answer:
            case Inspected(info) if request.wanted != "picture":
                _check_size(info.width, info.height, request)
                return Reading(info, None)
            case Decoded(width, height) if request.wanted != "header":
                _check_size(width, height, request)
                if request.wanted == "both" and answer.info is None:
                    raise _NonsenseError("it answers another question")
                shape = (height, width) if answer.is_grey else (height, width, 3)
                pixels = self._read_samples(shape, deadline)
                alpha = self._read_samples((height, width), deadline) if answer.has_alpha else None
                return Reading(answer.info, Picture(pixels, alpha, answer.icc_profile, answer.metadata))
            case Failed(name, message) if name in _ERRORS:
                return _ERRORS[name](message)
        raise _NonsenseError("it answers another question")

    def _read_samples(self, shape: tuple[int, ...], deadline: _Deadline) -> npt.NDArray[np.uint8]:
        samples = np.empty(shape, np.uint8)
        self._answers.read_into(samples.data.cast("B"), deadline)
        samples.flags.writeable = False
        return samples

    def _end_of(self, request: Request, *, is_late: bool) -> str:
        """Why it ended at an image; it does so here if it has not."""
        self.kill()
        status = self._popen.wait()
        late = is_late or status == -_SIGXCPU
        reason = f"it took more than {request.seconds:g} seconds" if late else "the decoder crashed"
        log.warning("an image of %d bytes ended its decoder: %s (%d)", request.size, reason, status)
        return reason


class _Deadline:
    """A moment by which something must be done."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def milliseconds(self) -> int:
        """How many are left."""
        return max(0, math.ceil((self._end - time.monotonic()) * 1000))


class _Pipe:
    """One end of a pipe to a process, which may never read or write. Raises TimeoutError at the deadline."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._file = cast(io.RawIOBase, pipe)
        os.set_blocking(pipe.fileno(), False)
        _widen(pipe)
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLOUT if pipe.writable() else select.POLLIN)

    def write(self, data: bytes | memoryview, deadline: _Deadline) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._moved(self._file.write(rest), deadline) :]

    def read(self, size: int, deadline: _Deadline) -> bytes:
        data = bytearray(size)
        self.read_into(memoryview(data), deadline)
        return bytes(data)

    def read_into(self, rest: memoryview, deadline: _Deadline) -> None:
        while rest:
            count = self._file.readinto(rest)
            if count == 0:
                raise EOFError("it ended")
            rest = rest[self._moved(count, deadline) :]

    def close(self) -> None:
        self._file.close()

    def _moved(self, count: int | None, deadline: _Deadline) -> int:
        """How many bytes could be moved; if none could, waits until some can."""
        if count is None and not self._poll.poll(deadline.milliseconds):
            raise TimeoutError("it does not answer in time")
        return count or 0


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
