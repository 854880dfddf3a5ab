"""`tilewire upscale`: files in, files out, through a server."""

import asyncio
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from server.client import Client, RefusedError, UnreachableError
from server.serving import EmbeddedServer
from server.settings import Settings

__all__ = ["Options", "upscale_files"]

_SUFFIXES = {".jpg": "JPG", ".jpeg": "JPG", ".png": "PNG", ".webp": "WEBP"}
_READABLE = {*_SUFFIXES, ".gif", ".bmp", ".tif", ".tiff", ".avif"}
_FILES_AT_ONCE = 4


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was told; None means not given."""

    output: Path | None = None
    model: str | None = None
    factor: float | None = None
    image_format: str | None = None
    quality: int | None = None
    keep_metadata: bool = False


class Job(msgspec.Struct, frozen=True):
    """One file to read, where its result goes, and in which format."""

    source: Path
    target: Path
    image_format: str


def upscale_files(
    inputs: list[Path],
    options: Options,
    settings: Settings,
    url: str | None,
    key: str | None,
    console: Console,
) -> int:
    """Upscale files, showing progress; returns how many failed.

    Args:
        inputs: files and folders.
        url, key: of a running server; without them one is started for the time of the call.

    Raises:
        ValueError: if there is nothing to do, or the options contradict each other.
    """
    jobs = plan(inputs, options)
    with _server(settings, url, key) as (address, secret):
        return asyncio.run(_run(jobs, options, address, secret, console))


def plan(inputs: list[Path], options: Options) -> list[Job]:
    """Which file becomes which.

    Raises:
        ValueError: if an input does not exist, there is none, or several would go to one file.
    """
    sources: list[Path] = []
    for path in inputs:
        if path.is_dir():
            sources += sorted(file for file in path.iterdir() if file.suffix.lower() in _READABLE)
        elif path.exists():
            sources.append(path)
        else:
            raise ValueError(f"{path} does not exist")
    if not sources:
        raise ValueError("there are no images to upscale")
    output = options.output
    into_folder = output is not None and (output.is_dir() or not output.suffix)
    if len(sources) > 1 and output is not None and not into_folder:
        raise ValueError(f"{output} is one file, but there are {len(sources)} inputs")
    jobs = []
    for source in sources:
        image_format = _format(source, None if into_folder else output, options.image_format)
        if output is not None and not into_folder:
            target = output
        else:
            tag = f"{options.factor:g}x" if options.factor else "upscaled"
            folder = output if output is not None else source.parent
            target = folder / f"{source.stem}-{tag}.{image_format.lower()}"
        jobs.append(Job(source, target, image_format))
    return jobs


def _format(source: Path, target: Path | None, asked: str | None) -> str:
    if asked is not None:
        return "JPG" if asked.upper() == "JPEG" else asked.upper()
    suffix = (target or source).suffix.lower()
    return _SUFFIXES.get(suffix, "PNG")


async def _run(jobs: list[Job], options: Options, url: str, key: str, console: Console) -> int:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    room = asyncio.Semaphore(_FILES_AT_ONCE)
    failures = 0
    try:
        async with Client(url, key) as client:
            with Progress(*columns, console=console) as bars:

                async def one(job: Job, bar: TaskID) -> None:
                    nonlocal failures
                    async with room:
                        try:
                            await _upscale(client, job, options, bars, bar)
                        except (RefusedError, UnreachableError, OSError) as error:
                            failures += 1
                            bars.update(bar, description=f"[red]{job.source}: {error}[/]")

                async with asyncio.TaskGroup() as group:
                    for job in jobs:
                        group.create_task(one(job, bars.add_task(f"{job.source} → {job.target}", total=1.0)))
    except (RefusedError, UnreachableError) as error:
        console.print(f"[red]{error}[/]")
        return len(jobs)
    return failures


async def _upscale(client: Client, job: Job, options: Options, bars: Progress, bar: TaskID) -> None:
    parameters: dict[str, Any] = {
        "model": options.model,
        "upscaleFactor": options.factor,
        "outputFormat": job.image_format,
        "outputQuality": options.quality,
        "keepMetadata": options.keep_metadata,
    }
    data = await asyncio.to_thread(job.source.read_bytes)
    image = await client.upscale(data, lambda share: bars.update(bar, completed=share), **parameters)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(job.target.write_bytes, image)
    bars.update(bar, completed=1.0)


@contextmanager
def _server(settings: Settings, url: str | None, key: str | None) -> Iterator[tuple[str, str]]:
    """The address and key of the running server, or of one that is started here."""
    if url is not None and key is not None:
        yield url, key
        return
    secret = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="tilewire-") as directory:
        own = msgspec.structs.replace(
            settings,
            host="127.0.0.1",
            port=0,
            data=Path(directory),
            api_key=secret,
            database_url=None,
            storage_url=None,
        )
        with EmbeddedServer(own) as server:
            yield f"{server.url.replace('http', 'ws', 1)}/v1", secret
