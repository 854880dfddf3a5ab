"""Copies images from one bucket to another: into a back-up, and out of one."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from server.images.bucket import Bucket
from server.images.store import attributes

__all__ = ["copy_images"]

_AT_ONCE: Final = 8


async def copy_images(
    source: Bucket,
    target: Bucket,
    images: Mapping[str, float],
    now: float,
    advance: Callable[[], None] = lambda: None,
) -> int:
    """Copy images that the target lacks; an image of a name is always the same.

    Args:
        source: where they are; one that is not is left out.
        target: where they go.
        images: their names, and when each expires.
        now: the time in seconds since the epoch.
        advance: called for each.

    Returns:
        How many were not there.

    Raises:
        UnavailableError: if a bucket cannot be used.
    """
    there = await target.names()
    missing = 0

    async def copy_some(names: Iterator[str]) -> None:
        nonlocal missing
        for name in names:
            if name not in there:
                try:
                    data = await source.read(name)
                    await target.write(name, data, attributes(name, images[name] - now))
                except FileNotFoundError:
                    missing += 1
            advance()

    names = iter(images)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(copy_some(names))
    except ExceptionGroup as failures:  # all for one reason
        raise failures.exceptions[0] from None
    return missing
