"""Writing a result wherever the user wants it: files, links, devices, pipes, standard output."""

import asyncio
import errno
import os
import stat
import sys
from pathlib import Path
from typing import Final

from server.commands.output import printable
from server.commands.upscale.sources import STANDARD
from tilewire.pictures import write_file

__all__ = [
    "cannot_be_written",
    "has_content",
    "is_standard_output",
    "is_stream",
    "name_of",
    "place_of",
    "write_result",
]

_LONGEST_NAME: Final = 255  # bytes, where the system does not tell
_LOOK_FOR_READER_EVERY: Final = 0.05  # seconds


def is_stream(target: Path) -> bool:
    """Whether what is written there is gone, or goes on: standard output, a device, a FIFO, a socket."""
    mode = _mode(target)
    other = mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    return other or is_standard_output(target)


def is_standard_output(target: Path) -> bool:
    """Whether it is standard output, by `-` or under a name such as /dev/stdout."""
    if str(target) == STANDARD:
        return True
    try:
        return os.path.samestat(target.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # no such file, or no such output
        return False


def name_of(target: Path) -> str:
    """What a target is called in messages."""
    return "standard output" if str(target) == STANDARD else printable(target)


def has_content(target: Path) -> bool:
    """Whether there is a file that is not empty, or anything else that is no stream."""
    mode = _mode(target)
    return mode is not None and not (stat.S_ISREG(mode) and not target.stat().st_size)


def place_of(target: Path) -> str:
    """What is written to in the end: two targets are one file if their places are equal."""
    return os.path.realpath(target)


def cannot_be_written(target: Path) -> str | None:
    """Why a target cannot be written, as far as can be known before there is a result; None if it can."""
    if is_stream(target):
        return None
    place = Path(place_of(target))
    mode = _mode(place)
    if mode is not None and stat.S_ISDIR(mode):
        return f"{target} is a folder"
    folder = place.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{target} cannot be written: {folder} is not a folder"
    if len(os.fsencode(place.name)) > _longest_name(folder):
        return f"{target} cannot be written: the name is too long; -o can give another"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{target} cannot be written: {folder} is not writable"
    return None


async def write_result(target: Path, data: bytes) -> None:
    """Write a result. A file is seen whole or not at all, and keeps its mode; links are followed.

    Raises:
        OSError: if it cannot be written.
    """
    if is_stream(target):
        stream = await _open_stream(target)
        await asyncio.to_thread(_write, stream, data)
    else:
        await asyncio.to_thread(_replace, Path(place_of(target)), data)


async def _open_stream(target: Path) -> int:
    """A file descriptor. A FIFO has none to offer before somebody reads it: that is waited for."""
    if is_standard_output(target):
        sys.stdout.flush()
        return os.dup(sys.stdout.fileno())
    while True:
        try:
            stream = os.open(target, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # which says that nobody reads it yet
                raise
            await asyncio.sleep(_LOOK_FOR_READER_EVERY)
        else:
            os.set_blocking(stream, True)
            return stream


def _write(stream: int, data: bytes) -> None:
    with os.fdopen(stream, "wb") as file:
        file.write(data)


def _replace(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, data)


def _mode(target: Path) -> int | None:
    """What it is, links followed; None if it is not there, or cannot be, as its name is too long."""
    try:
        return target.stat().st_mode
    except OSError:
        return None


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return _LONGEST_NAME
