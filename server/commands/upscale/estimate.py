"""How long a batch should take, by how fast the model was before: on this machine, or on the server."""

from collections.abc import Iterable
from typing import Final

from engines import TURNS, sizes_of_passes
from server.commands.upscale.plan import Job, Options
from server.commands.upscale.sizing import Offer

__all__ = ["seconds_for", "work_of"]

_LEAST: Final = 0.05
"""Megapixels: what smaller pictures take is not for their pixels."""


def seconds_for(jobs: Iterable[Job], options: Options, offer: Offer) -> float | None:
    """Seconds that all should take; None where nobody knows.

    Args:
        jobs: what is to be done.
        options: what the command was given.
        offer: of the model, with its speed.
    """
    work = work_of(jobs, options, offer)
    return None if offer.seconds is None or work is None else offer.seconds * work


def work_of(jobs: Iterable[Job], options: Options, offer: Offer) -> float | None:
    """Megapixels of all passes together; None where models beside or settings of its own change the time.

    Args:
        jobs: as for `seconds_for`.
        options: likewise.
        offer: likewise.
    """
    beside = options.faces, options.blend, options.denoise or None, options.nsfw, options.settings or None
    if any(each is not None for each in beside):
        return None
    return sum(_megapixels(job, offer) for job in jobs) * (len(TURNS) if options.tta else 1)


def _megapixels(job: Job, offer: Offer) -> float:
    info = job.source.look.info
    size = job.box or (round(info.width * job.factor), round(info.height * job.factor))
    passes = sizes_of_passes((info.width, info.height), size, offer.factors[-1])
    return max(_LEAST, sum(width * height for width, height in passes) / 1e6)
