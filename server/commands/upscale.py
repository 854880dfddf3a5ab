"""`tilewire upscale`: files in, files out, through a server."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from onnx_models import ModelBuildError, UnknownModelError, load_catalogue
from server.commands.building import build_missing
from server.commands.embedded import embedded_server
from server.commands.terminal import ConfigFile, console, effective_settings, give_up, problems
from server.commands.upscale_plan import Job, Options, make_plan
from server.commands.upscale_report import Report
from server.serving import StartError
from server.settings import Settings
from tilewire import (
    AuthenticationFailedError,
    Progress,
    Result,
    Tilewire,
    TilewireError,
    UnreachableError,
)
from tilewire import Options as TaskOptions

__all__ = ["INTERRUPTED", "upscale"]

INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as of a shell: 128 + SIGINT."""

_FILES_AT_ONCE: Final = 4


def upscale(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Image files, folders of them, or patterns: '**/*.jpg'."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file, or a folder for several.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name or AIR id; see: tilewire models list.")] = None,
    factor: Annotated[
        float | None, typer.Option(help="How much larger; default: the model's largest.")
    ] = None,
    image_format: Annotated[
        str | None, typer.Option("--format", help="JPG, PNG or WEBP; default: by OUT, or as the input.")
    ] = None,
    quality: Annotated[int | None, typer.Option(min=20, max=99, help="Of JPG and WEBP.")] = None,
    keep_metadata: Annotated[bool, typer.Option(help="Keep EXIF and XMP, GPS included.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also do what has a result that is newer than the input.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="A running server, ws://host:port/v1; default: one just for this.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="TILEWIRE_API_KEY", help="API key for the running server.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Upscale images, through a running server or one that is started just for this.

    What is done already is skipped: after Ctrl-C the same command goes on. Exit status: 0 when all is done, 1
    when some failed, 2 when the command is wrong or finds no images, 130 after Ctrl-C.
    """
    settings, _ = effective_settings(config)
    options = Options(
        output=output,
        model=model,
        factor=factor,
        image_format=image_format,
        quality=quality,
        keep_metadata=keep_metadata,
        overwrite=overwrite,
    )
    if url is not None and key is None:
        give_up("--url needs a key: --key, or TILEWIRE_API_KEY")
    _log_in_one_line()
    try:
        status = _upscale_files(inputs, options, settings, url, key, console, problems)
    except (ValueError, UnknownModelError) as error:
        give_up(str(error))
    except (ModelBuildError, StartError) as error:
        give_up(str(error), status=1)
    raise typer.Exit(status)


def _upscale_files(
    inputs: list[Path],
    options: Options,
    settings: Settings,
    url: str | None,
    key: str | None,
    console: Console,
    problems: Console,
) -> int:
    """Upscale files, showing progress; returns the exit status: 0, 1 if any failed, 130 if interrupted.

    Args:
        inputs: files, folders and patterns.
        options: what the command was given.
        settings: of the server that is started where no other is given.
        url: of a running server; without one a server is started for the time of the call.
        key: an API key of the running server.
        console: where to print what was done.
        problems: where to print what went wrong.

    Raises:
        ValueError: if there is nothing to do, or the options contradict each other.
        UnknownModelError: if the server is to be started here and has no such model.
        ModelBuildError: if its network cannot be built.
        StartError: if it cannot be started.
    """
    plan = make_plan(inputs, options)
    report = Report(plan, console, problems, show_cost=url is not None)
    if not plan.jobs:
        report.summarize()
        return 0
    try:
        if url is not None and key is not None:
            asyncio.run(_upscale_all(plan.jobs, options, url, key, report))
        else:
            catalogue = load_catalogue(settings.effective_added_models)
            model = catalogue.default if options.model is None else catalogue.get(options.model)
            build_missing([model], settings.model_directory, console)
            with embedded_server(settings) as (address, secret):
                asyncio.run(_upscale_all(plan.jobs, options, address, secret, report))
    except KeyboardInterrupt:
        report.summarize(interrupted=True)
        return INTERRUPTED
    report.summarize()
    return 1 if report.failed or report.stopped else 0


async def _upscale_all(jobs: list[Job], options: Options, url: str, key: str, report: Report) -> None:
    left = iter(jobs)

    async def work() -> None:
        for job in left:
            await _upscale(tilewire, job, options, report)
            if report.stopped:
                return

    try:
        async with Tilewire(url, key, concurrency=_FILES_AT_ONCE) as tilewire:
            with report.live():
                async with asyncio.TaskGroup() as group:
                    for _ in range(_FILES_AT_ONCE):
                        group.create_task(work())
    except TilewireError as error:
        report.stop(str(error))


async def _upscale(tilewire: Tilewire, job: Job, options: Options, report: Report) -> None:
    """Upscale one file, and tell what became of it."""
    told: TaskOptions = {
        "model": options.model,
        "factor": options.factor,
        "output_format": job.image_format,
        "output_quality": options.quality,
        "keep_metadata": options.keep_metadata,
    }
    report.begin(job)
    try:
        async for event in tilewire.stream(job.source, tiles=False, **told):
            match event:
                case Progress(share=share):
                    report.advance(job, share)
                case Result():
                    await asyncio.to_thread(_save, event, job.target)
                    report.succeed(job, event)
    except (UnreachableError, AuthenticationFailedError) as error:
        report.stop(str(error))  # the others would fail as well
    except TilewireError as error:
        report.fail(job, str(error))
    except OSError as error:
        report.fail(job, f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _save(result: Result, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    result.save(target)


class _OneLine(logging.Formatter):
    """Tells the reason of an error, not where in the program it came up."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return f"{ei[0].__name__}: {ei[1]}"


def _log_in_one_line() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
