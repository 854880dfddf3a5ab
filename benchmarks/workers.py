"""What is compared runs in processes of its own: nothing of one is in the way, or the memory, of another."""

import gc
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["AbsentError", "Worker"]

WARM_UPS = 2


class AbsentError(Exception):
    """It cannot run on this machine; the message says why."""


class Worker:
    """A function in a process of its own.

    Attributes:
        pid: of the process.
        output: what the function gave the last time it was warmed up.
    """

    def __init__(
        self, opening: Callable[[], Callable[..., object]], *arguments: object, warm_ups: int = WARM_UPS
    ) -> None:
        """Open it, and run it a few times to warm up.

        Args:
            opening: gives the function, there; can be pickled.
            arguments: of the function, for the warm-up.
            warm_ups: how often.

        Raises:
            AbsentError: if it cannot run here.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, opening, arguments, warm_ups))
        self._process.start()
        theirs.close()
        try:
            answer = self._pipe.recv()
        except EOFError:
            answer = AbsentError("it ended without a word")
        if isinstance(answer, AbsentError):
            self._process.join()
            raise answer
        self.output: Any = answer
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()

    def run(self, *arguments: object) -> float:
        """Seconds for one run."""
        self._pipe.send(arguments)
        seconds: float = self._pipe.recv()
        return seconds


def _work(
    pipe: Connection,
    opening: Callable[[], Callable[..., object]],
    arguments: tuple[object, ...],
    warm_ups: int,
) -> None:
    try:
        run = opening()
        output = [run(*arguments) for _ in range(warm_ups)][-1]
        pipe.send(output)
    except AbsentError as error:
        pipe.send(error)
        return
    except Exception as error:  # noqa: BLE001 - one that fails must not end the comparison
        pipe.send(AbsentError((str(error) or repr(error)).splitlines()[0]))
        return
    gc.disable()
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        begun = time.perf_counter()
        run(*arguments)
        pipe.send(time.perf_counter() - begun)
