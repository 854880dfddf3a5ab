"""`tilewire upscale`: files in, files out, through a server."""

import asyncio
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from onnx_models import load_catalogue
from server.building import build_missing
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
    problems: Console,
) -> int:
    """Upscale files, showing progress; returns how many failed.

    Args:
        inputs: files and folders.
        url, key: of a running server; without them one is started for the time of the call.
        console, problems: where to tell what was done, and what went wrong.

    Raises:
        ValueError: if there is nothing to do, or the options contradict each other.
        UnknownModelError: if the server is to be started here and has no such model.
        ModelBuildError: if its network cannot be built.
        StartError: if it cannot be started.
    """
    jobs = plan(inputs, options)
    if url is None:
        catalogue = load_catalogue(settings.effective_added_models)
        model = catalogue.default if options.model is None else catalogue.get(options.model)
        build_missing([model], settings.model_directory, console)
    with _server(settings, url, key) as (address, secret):
        return asyncio.run(_run(jobs, options, address, secret, console, problems))


def plan(inputs: list[Path], options: Options) -> list[Job]:
    """Which file becomes which.

    Raises:
        ValueError: if an input does not exist, there is none, several would go to one file, or the format is
            not one that can be written.
    """
    sources: list[Path] = []
    for path in inputs:
        if path.is_dir():
            sources += sorted(
                file for file in path.iterdir() if file.suffix.lower() in _READABLE and file.is_file()
            )
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
    jobs: dict[Path, Job] = {}
    for source in sources:
        image_format = _format(source, None if into_folder else output, options.image_format)
        if output is not None and not into_folder:
            target = output
        else:
            tag = f"{options.factor:g}x" if options.factor else "upscaled"
            folder = output if output is not None else source.parent
            target = folder / f"{source.stem}-{tag}.{image_format.lower()}"
        if target in jobs:
            raise ValueError(f"{jobs[target].source} and {source} would both become {target}")
        jobs[target] = Job(source, target, image_format)
    return list(jobs.values())


def _format(source: Path, target: Path | None, asked: str | None) -> str:
    if asked is not None:
        image_format = _SUFFIXES.get(f".{asked.lower()}")
        if image_format is None:
            raise ValueError(f"the format must be JPG, PNG or WEBP, not {asked}")
        return image_format
    if target is not None and target.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{target}: only {', '.join(_SUFFIXES)} can be written; or give --format")
    return _SUFFIXES.get((target or source).suffix.lower(), "PNG")


async def _run(
    jobs: list[Job], options: Options, url: str, key: str, console: Console, problems: Console
) -> int:
    columns = (
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, overflow="ellipsis", no_wrap=True),
        ),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    room = asyncio.Semaphore(_FILES_AT_ONCE)
    failures: list[str] = []
    try:
        async with Client(url, key) as client:
            with Progress(*columns, console=console, disable=not console.is_terminal, expand=True) as bars:

                async def one(job: Job) -> None:
                    async with room:
                        bar = bars.add_task(job.source.name, total=None)  # moves until there is progress
                        try:
                            await _upscale(client, job, options, bars, bar)
                        except (RefusedError, UnreachableError, OSError) as error:
                            failures.append(f"{job.source}: {error}")
                        else:
                            console.print(f"{job.source} → {job.target}")
                        bars.remove_task(bar)

                async with asyncio.TaskGroup() as group:
                    for job in jobs:
                        group.create_task(one(job))
    except (RefusedError, UnreachableError) as error:
        problems.print(str(error), style="red")
        return len(jobs)
    for failure in failures:
        problems.print(failure, style="red")
    return len(failures)


async def _upscale(client: Client, job: Job, options: Options, bars: Progress, bar: TaskID) -> None:
    parameters: dict[str, Any] = {
        "model": options.model,
        "upscaleFactor": options.factor,
        "outputFormat": job.image_format,
        "outputQuality": options.quality,
        "keepMetadata": options.keep_metadata,
    }
    data = await asyncio.to_thread(job.source.read_bytes)
    image = await client.upscale(data, partial(_advance, bars, bar), **parameters)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(job.target.write_bytes, image)


def _advance(bars: Progress, bar: TaskID, share: float) -> None:
    bars.update(bar, total=1.0, completed=share)


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
            added_models=settings.effective_added_models,
            api_key=secret,
            database_url=None,
            storage_url=None,
            public_url=None,
            tls_certificate=None,
            tls_key=None,
            models=(),
            max_frame_bytes=2**30,  # the files are the caller's own
            max_image_bytes=2**30,
            drain_timeout=0.1,  # nobody waits for tasks that are left when the command is interrupted
        )
        with EmbeddedServer(own) as server:
            yield f"{server.url.replace('http', 'ws', 1)}/v1", secret
