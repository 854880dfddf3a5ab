"""Which picture becomes which file: the plan of `tilewire upscale`, made before anything is done."""

import glob
import os
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import Struct

__all__ = ["Job", "Options", "Plan", "make_plan"]

Format = Literal["JPG", "PNG", "WEBP"]

_SUFFIXES: Final[dict[str, Format]] = {".jpg": "JPG", ".jpeg": "JPG", ".png": "PNG", ".webp": "WEBP"}
_READABLE: Final = {*_SUFFIXES, ".gif", ".bmp", ".tif", ".tiff", ".avif"}
_RESULT: Final = re.compile(r"(.+)-(?:\d+(?:\.\d+)?x|upscaled)")


class Options(Struct, frozen=True, kw_only=True):
    """What the command was told; None means not given."""

    output: Path | None = None
    model: str | None = None
    factor: float | None = None
    image_format: str | None = None
    quality: int | None = None
    keep_metadata: bool = False
    overwrite: bool = False


class Job(Struct, frozen=True):
    """One file to read, where its result goes, and in which format."""

    source: Path
    target: Path
    image_format: Format


class Plan(Struct, frozen=True):
    """What is to be done.

    Attributes:
        jobs: in the order of the inputs, folders sorted by name.
        done: how many more have a result already that is newer than its source.
        results: how many files are left out because they are results of other inputs, by their name.
    """

    jobs: list[Job]
    done: int
    results: int


class _Source(NamedTuple):
    """A picture: its path is root / folder / its name."""

    path: Path
    root: Path
    folder: Path

    @property
    def place(self) -> tuple[Path, Path, str]:
        return self.root, self.folder, self.path.stem


def make_plan(inputs: list[Path], options: Options) -> Plan:
    """Find the pictures, and where their results go.

    Folders are searched to the bottom for files whose suffix tells that they are pictures; hidden ones, and
    the output folder, are left out. A pattern such as `**/*.jpg` is looked up if the shell has not done so.
    What is found keeps its place in the tree below the output folder.

    Raises:
        ValueError: if an input does not exist, there is no picture, several would go to one file, one would
            overwrite an input, or the format is not one that can be written.
    """
    output = options.output
    found = {_absolute(source.path): source for path in inputs for source in _find(path, output)}
    results = _results(found)
    sources = [source for place, source in found.items() if place not in results]
    if not sources:
        raise ValueError("there are no images to upscale")
    into_folder = output is not None and _is_folder(output, inputs)
    if len(sources) > 1 and output is not None and not into_folder:
        raise ValueError(f"{output} is one file, but there are {len(sources)} inputs")
    jobs: dict[Path, Job] = {}
    for source in sources:
        job = _job(source, options, into_folder=into_folder)
        place = _absolute(job.target)
        if place in jobs:
            raise ValueError(f"{jobs[place].source} and {job.source} would both become {job.target}")
        if place in found and place not in results:
            raise ValueError(f"{job.target} is an input and would be overwritten")
        jobs[place] = job
    done = set() if options.overwrite else {job for job in jobs.values() if _is_done(job)}
    return Plan([job for job in jobs.values() if job not in done], len(done), len(results))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - without `..`, and links are files of their own


def _find(path: Path, output: Path | None) -> Iterator[_Source]:
    """The pictures that one argument names."""
    if path.is_dir():
        yield from _below(path, output)
    elif path.exists():
        yield _Source(path, path.parent, Path())  # whatever its suffix: it was named
    elif matches := sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - takes absolute patterns
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        for match in map(Path, matches):
            if match.is_dir():
                continue  # its files match ** too, or were not asked for
            if match.suffix.lower() in _READABLE:
                yield _Source(match, root, match.parent.relative_to(root))
    else:
        raise ValueError(f"{path} does not exist")


def _below(root: Path, output: Path | None) -> Iterator[_Source]:
    """The pictures in a folder and those below it, but not in the output folder."""
    for name, folders, files in os.walk(root):
        folder = Path(name)
        folders[:] = sorted(
            inner
            for inner in folders
            if not inner.startswith(".") and (output is None or not _same(folder / inner, output))
        )
        for file in sorted(files):
            path = folder / file
            if not file.startswith(".") and path.suffix.lower() in _READABLE and path.is_file():
                yield _Source(path, root, folder.relative_to(root))


def _same(folder: Path, other: Path) -> bool:
    return folder.resolve() == other.resolve()


def _results(found: dict[Path, _Source]) -> set[Path]:
    """Those that have the name which the result of another would have.

    It may be in a folder further down, where `-o` led into the input folder: then its own folder ends as
    that of its source does.
    """
    names = {source.place for source in found.values()}
    return {place for place, source in found.items() if any(origin in names for origin in _origins(source))}


def _origins(source: _Source) -> Iterator[tuple[Path, Path, str]]:
    name = _RESULT.fullmatch(source.path.stem)
    if name is None or source.path.suffix.lower() not in _SUFFIXES:
        return
    parts = source.folder.parts
    for start in range(len(parts) + 1):
        yield source.root, Path(*parts[start:]), name[1]


def _is_folder(output: Path, inputs: list[Path]) -> bool:
    """Whether the output is meant as a folder, be it there or not."""
    if output.exists():
        return output.is_dir()
    return not output.suffix or (output.suffix not in _SUFFIXES and any(path.is_dir() for path in inputs))


def _job(source: _Source, options: Options, *, into_folder: bool) -> Job:
    output = options.output
    image_format = _format(source.path, None if into_folder else output, options.image_format)
    if output is not None and not into_folder:
        return Job(source.path, output, image_format)
    tag = f"{options.factor:g}x" if options.factor else "upscaled"
    folder = output / source.folder if output is not None else source.path.parent
    return Job(source.path, folder / f"{source.path.stem}-{tag}.{image_format.lower()}", image_format)


def _format(source: Path, target: Path | None, asked: str | None) -> Format:
    if asked is not None:
        image_format = _SUFFIXES.get(f".{asked.lower()}")
        if image_format is None:
            raise ValueError(f"the format must be JPG, PNG or WEBP, not {asked}")
        return image_format
    if target is not None and target.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{target}: only {', '.join(_SUFFIXES)} can be written; or give --format")
    return _SUFFIXES.get((target or source).suffix.lower(), "PNG")


def _is_done(job: Job) -> bool:
    try:
        newer = job.target.stat().st_mtime_ns >= job.source.stat().st_mtime_ns
        return newer and job.target.is_file()
    except OSError:
        return False
