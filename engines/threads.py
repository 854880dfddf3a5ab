"""Threads of their own for one kind of work, so that it holds up no other."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from engines.errors import ModelError

__all__ = ["Threads"]

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """A number of threads. Close it when done."""

    def __init__(self, count: int, name: str) -> None:
        """Start a thread whenever there is work and fewer than `count` run.

        Args:
            count: how many.
            name: what they are for.
        """
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a function called soon.

        Raises:
            ModelError: if this is closed.
        """
        try:
            return self._pool.submit(function, *args, **kwargs)
        except RuntimeError as error:
            raise ModelError("the engine is shutting down") from error

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What a function returns that is called in a thread.

        Raises:
            ModelError: if this is closed.
        """
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Wait until all is done. Blocks."""
        self._pool.shutdown()
