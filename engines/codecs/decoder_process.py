"""A process that decodes images for another one, which starts it as `engines.codecs.decoder` tells.

Image decoders are large C libraries, and the bytes come from anyone. Here a crash or a runaway of one costs
an image, not the server. Before the process takes the first image it gives up what it has no need of: it can
open no file and no connection, write to no file and gain no rights, and it ends with the process that
started it. For each image it has a limit of memory and one of processor time.

It answers each request, until its input ends. Both ways a message is a length, MessagePack of that length,
and bytes without framing: the file one way, the samples of the picture the other.
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec
from PIL import AvifImagePlugin

from engines.codecs.image import ImageInfo, decode, inspect, read
from engines.codecs.picture import Metadata, Picture
from engines.errors import ImageError

if sys.platform != "win32":
    import resource

__all__ = [
    "ANSWER_HEADER",
    "READY",
    "REQUEST_HEADER",
    "Answer",
    "Decoded",
    "Failed",
    "Inspected",
    "Request",
    "Wanted",
    "together",
]

READY: Final = b"R"
"""What the process says when it has started."""
REQUEST_HEADER: Final = struct.Struct("<I")
"""Length of the `Request`."""
ANSWER_HEADER: Final = struct.Struct("<?I")
"""Whether the process had grown so much before that it should be replaced; length of the `Answer`."""

_BYTES_PER_PIXEL: Final = 48
"""Of memory, at the peak; what most formats and modes need is less than half of it."""
_BYTES_FOR_ANY: Final = 128 * 2**20
_AVIF_THREADS: Final = 2
"""By itself libavif starts one for each processor, whose stacks alone are more than the limit of memory."""
_MAX_GROWTH: Final = 128 * 2**20
_SMALL: Final = 2**16
"""Bytes of a message that is passed in one step."""

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_PR_SET_NO_NEW_PRIVS: Final = 38

Wanted = Literal["header", "picture", "both"]


class Request(msgspec.Struct, frozen=True):
    """What to do with the file of `size` bytes that follows."""

    wanted: Wanted
    max_pixels: int
    seconds: float
    """Processor time that it may take."""
    size: int
    decoded_up_to: int = 0
    """Of "both": the pixels up to which the samples are wanted."""


class Inspected(msgspec.Struct, frozen=True, tag=True):
    """What the header says."""

    info: ImageInfo


class Decoded(msgspec.Struct, frozen=True, tag=True):
    """A picture without its samples, which follow: pixels, then alpha."""

    width: int
    height: int
    is_grey: bool
    has_alpha: bool
    icc_profile: bytes | None
    metadata: Metadata
    info: ImageInfo | None
    """What the header says, where that was wanted too."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The name of an `ImageError`, and its message."""

    error: str
    message: str


Answer = Inspected | Decoded | Failed


def together(parts: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
    """The parts of a message; of a small one as a whole: whoever reads it is woken once."""
    if sum(memoryview(part).nbytes for part in parts) > _SMALL:
        return parts
    return [b"".join(parts)]


def main() -> None:
    """Answer requests until there are no more."""
    requests, answers = os.fdopen(os.dup(0), "rb"), io.FileIO(os.dup(1), "wb")
    AvifImagePlugin.DEFAULT_MAX_THREADS = _AVIF_THREADS
    memory = _Memory()
    _give_up_rights()
    answers.write(READY)
    while _serve(requests, answers, memory):
        pass


def _serve(requests: io.BufferedReader, answers: io.FileIO, memory: _Memory) -> bool:
    """Answer one request; False if there is none."""
    header = requests.read(REQUEST_HEADER.size)
    if not header:
        return False
    worn = memory.has_grown()
    request = msgspec.msgpack.decode(requests.read(*REQUEST_HEADER.unpack(header)), type=Request)
    for part in together(list(_answer(request, requests.read(request.size), memory, worn))):
        _write(answers, part)
    return True


def _answer(request: Request, data: bytes, memory: _Memory, worn: bool) -> Iterator[bytes | memoryview]:
    """The parts of the message that goes back."""
    _limit_time(request.seconds)
    memory.limit(_BYTES_PER_PIXEL * request.max_pixels + 4 * len(data) + _BYTES_FOR_ANY)
    picture: Picture | None = None
    answer: Answer
    try:
        info, picture = _read(request, data)
        if picture is not None:
            answer = _without_samples(picture, info)
        else:
            assert info is not None
            answer = Inspected(info)
    except ImageError as error:
        answer = Failed(type(error).__name__, str(error))
    finally:
        memory.limit(None)
    encoded = msgspec.msgpack.encode(answer)
    yield ANSWER_HEADER.pack(worn, len(encoded)) + encoded
    if picture is not None:
        yield picture.pixels.data
        if picture.alpha is not None:
            yield picture.alpha.data


def _read(request: Request, data: bytes) -> tuple[ImageInfo | None, Picture | None]:
    """At least one of them. Raises an ImageError."""
    match request.wanted:
        case "header":
            return inspect(data, max_pixels=request.max_pixels), None
        case "picture":
            return None, decode(data, max_pixels=request.max_pixels)
        case "both":
            return read(data, max_pixels=request.max_pixels, decoded_up_to=request.decoded_up_to)


def _without_samples(picture: Picture, info: ImageInfo | None) -> Decoded:
    return Decoded(
        picture.width,
        picture.height,
        picture.is_grey,
        picture.alpha is not None,
        picture.icc_profile,
        picture.metadata,
        info,
    )


def _write(file: io.FileIO, part: bytes | memoryview) -> None:
    rest = memoryview(part).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


class _Memory:
    """How much address space the process may take; without limit where the system does not tell its size."""

    def __init__(self) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY) if sys.platform == "linux" else None
        self._at_start = self._size()

    def limit(self, more: int | None) -> None:
        """By how many bytes it may grow from now on; None for any number."""
        if sys.platform == "linux":
            _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY if more is None else self._size() + more)

    def has_grown(self) -> bool:
        """Whether much was not given back: a leak, or memory in pieces."""
        return self._size() - self._at_start > _MAX_GROWTH

    def _size(self) -> int:
        if self._statm is None:
            return 0
        return int(os.pread(self._statm, 64, 0).split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _limit_time(seconds: float) -> None:
    if sys.platform != "win32":
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))


def _limit(kind: int, value: int) -> None:
    if sys.platform != "win32":
        _, hard = resource.getrlimit(kind)
        possible = [limit for limit in (value, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(kind, (min(possible, default=resource.RLIM_INFINITY), hard))


def _give_up_rights() -> None:
    # The server decides when its decoders end, also where a signal goes to a whole group of processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # what a library writes there on its own is nothing to the server
        os.dup2(nowhere, standard)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for nothing in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(nothing, (0, 0))


if __name__ == "__main__":
    main()
