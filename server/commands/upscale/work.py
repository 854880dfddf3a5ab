"""Has a server upscale what is planned: several pictures at once, each written when it is done."""

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from server.commands.upscale.plan import Job, Options, recipe
from server.commands.upscale.record import Record, digest_of
from server.commands.upscale.report import Report
from server.commands.upscale.sizing import Offer
from server.commands.upscale.targets import name_of, write_result
from tilewire import (
    AuthenticationFailedError,
    Progress,
    Result,
    Tilewire,
    TilewireError,
    UnreachableError,
)
from tilewire import Options as TaskOptions

__all__ = ["FILES_AT_ONCE", "upscale_all"]

FILES_AT_ONCE: Final = 4

_RESULTS_FOR: Final = 3600
"""Seconds that the server keeps a result, which is fetched as soon as it is made."""


async def upscale_all(
    tilewire: Tilewire, jobs: Iterable[Job], options: Options, offer: Offer, record: Record, report: Report
) -> None:
    """Upscale all, reporting what becomes of each; nothing more is begun once the report is stopped.

    Args:
        tilewire: the server.
        jobs: what is to be done.
        options: what the command was given.
        offer: of the model.
        record: keeps how each result was made.
        report: shows it.
    """
    left = iter(jobs)
    upscale = partial(_upscale, tilewire, options=options, offer=offer, record=record, report=report)

    async def work() -> None:
        for job in left:
            await upscale(job)
            if report.stopped:
                return

    with report.live():
        async with asyncio.TaskGroup() as group:
            for _ in range(FILES_AT_ONCE):
                group.create_task(work())


async def _upscale(
    tilewire: Tilewire, job: Job, *, options: Options, offer: Offer, record: Record, report: Report
) -> None:
    """Upscale one picture, and report what became of it."""
    told: TaskOptions = {
        **options.of_task(),
        "model": offer.name,
        "factor": job.factor if job.box is None else None,
        "output_format": job.image_format,
        "output_quality": options.quality,
        "keep_metadata": options.keep_metadata,
        "ttl": _RESULTS_FOR,
        "keep_hidden_colors": options.keep_hidden_colors and job.image_format != "JPG",
    }
    report.begin(job)
    try:
        data = await asyncio.to_thread(job.source.read)
        source = digest_of(data)
        async for event in tilewire.events(data, tiles=False, **told):
            match event:
                case Progress(share=share, queue_position=position):
                    report.advance(job, share, position)
                case Result(image=bytes(image)):
                    await write_result(job.target, image)
                    record.add(image, recipe(job, source, options, offer), source)
                    report.succeed(job, event)
    except (UnreachableError, AuthenticationFailedError) as error:
        report.stop(str(error))  # the others would fail as well
    except TilewireError as error:
        report.fail(job, str(error))
    except OSError as error:
        report.fail(job, _reason(error, job.target))


def _reason(error: OSError, target: Path) -> str:
    if error.strerror is None:
        return str(error)
    return f"{error.filename or name_of(target)}: {error.strerror}"
