"""Which pictures the arguments name: files, folders, patterns, web addresses, standard input."""

import asyncio
import glob
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from engines import ImageInfo, inspect
from server.commands.upscale.record import digest_of
from server.outbound.addresses import Reachable
from server.outbound.fetch import FetchError, WebClient

__all__ = ["READABLE", "STANDARD", "Found", "Source", "find_sources"]

STANDARD: Final = "-"
"""Names standard input or output."""

READABLE: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
)
"""Suffixes of the files that folders and patterns are searched for."""

_LARGEST_DOWNLOAD: Final = 2**30
_DOWNLOAD_WITHIN: Final = 600.0
_ANY_SIZE: Final = 2**40


class Look(NamedTuple):
    """What a picture is: the digest of its file, and what its header says."""

    digest: bytes
    info: ImageInfo


class Source:
    """A picture to be upscaled.

    Attributes:
        name: as it was given, for messages.
        path: of the file; of other sources what the file would be called, in the current folder.
        folder: where it is below the folder that was given.
        named: whether it was given itself, not found in a folder or by a pattern.
        read: gives the bytes of the file; raises OSError.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        folder: Path | None = None,
        named: bool = False,
        read: Callable[[], bytes] | None = None,
    ) -> None:
        """Name a file, or with `read` something else.

        Args:
            path: of the file.
            name: for messages; default: the path.
            folder: see the attribute.
            named: see the attribute.
            read: what gives the bytes of something that is no file.
        """
        self.path = path
        self.name = str(path) if name is None else name
        self.folder = folder or Path()
        self.named = named
        self.is_file = read is None
        self.read = read or path.read_bytes

    @cached_property
    def look(self) -> Look:
        """What it is; reads the file once.

        Raises:
            OSError: if it cannot be read.
            ImageError: if it is no picture.
        """
        data = self.read()
        return Look(digest_of(data), inspect(data, max_pixels=_ANY_SIZE))


class Found(NamedTuple):
    """What the arguments name: pictures, and the files in folders that are none, or of unknown formats."""

    sources: list[Source]
    skipped: list[Path]


def find_sources(inputs: list[str], output: Path | None) -> Found:
    """Find the pictures, each once.

    Folders are searched to the bottom for files whose suffix tells that they are pictures; hidden ones, and
    the output folder, are left out. A pattern such as `**/*.jpg` is looked up if the shell has not done so.

    Args:
        inputs: the arguments.
        output: the folder that results go to, if there is one.

    Raises:
        ValueError: if an input does not exist.
    """
    sources: dict[str, Source] = {}
    skipped: dict[str, Path] = {}
    for given in inputs:
        for found in _find(given, output):
            if isinstance(found, Source):
                sources.setdefault(os.path.abspath(found.path) if found.is_file else found.name, found)  # noqa: PTH100 - links are files of their own
            else:
                skipped[os.path.abspath(found)] = found  # noqa: PTH100
    return Found(list(sources.values()), [path for key, path in skipped.items() if key not in sources])


def _find(given: str, output: Path | None) -> Iterator[Source | Path]:
    """The pictures that one argument names, and the paths of what is skipped."""
    if given == STANDARD:
        yield Source(Path("stdin"), name="standard input", named=True, read=_read_standard_input)
        return
    if given.startswith(("http://", "https://")):
        name = Path(unquote(urlsplit(given).path)).name or "image"
        yield Source(Path(name), name=given, named=True, read=cache(lambda: _download(given)))
        return
    path = Path(given)
    if path.is_dir():
        yield from _below(path, output)
    elif path.exists():
        yield Source(path, named=True)  # whatever its suffix
    elif matches := sorted(glob.glob(given, recursive=True)):  # noqa: PTH207 - takes absolute patterns
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        for match in map(Path, matches):
            if match.is_dir():
                continue  # its files match ** too, or were not asked for
            if match.suffix.lower() in READABLE:
                yield Source(match, folder=match.parent.relative_to(root))
            else:
                yield match
    else:
        raise ValueError(f"{given} does not exist")


def _below(root: Path, output: Path | None) -> Iterator[Source | Path]:
    """The files in a folder and those below it, but not in the output folder."""
    for name, folders, files in os.walk(root):
        folder = Path(name)
        folders[:] = sorted(
            inner
            for inner in folders
            if not inner.startswith(".") and (output is None or not _same(folder / inner, output))
        )
        for file in sorted(files):
            path = folder / file
            if file.startswith(".") or not path.is_file():
                continue
            if path.suffix.lower() in READABLE:
                yield Source(path, folder=folder.relative_to(root))
            else:
                yield path


def _same(folder: Path, other: Path) -> bool:
    return folder.resolve() == other.resolve()


@cache
def _read_standard_input() -> bytes:
    return sys.stdin.buffer.read()


def _download(url: str) -> bytes:
    """What is at a web address; any address, as the user named it.

    Raises:
        OSError: if it cannot be fetched.
    """

    async def fetch() -> bytes:
        web = WebClient(timeout=_DOWNLOAD_WITHIN, reachable=Reachable(all_private=True))
        try:
            return await web.get(url, max_bytes=_LARGEST_DOWNLOAD)
        finally:
            await web.close()

    try:
        return asyncio.run(fetch())
    except FetchError as error:
        raise OSError(str(error)) from error
