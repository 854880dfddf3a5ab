"""Runs of a part of a model that may go together, on their way through the scheduler."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engines.devices.parts import Arrays
from engines.job import Item, Job
from engines.progress import Progress
from engines.scheduling.executor import Executor
from engines.scheduling.work import PartKey

__all__ = ["run_part"]


async def run_part(
    executor: Executor,
    key: PartKey,
    inputs: Sequence[Arrays],
    *,
    account: str,
    on_start: Callable[[], None] | None = None,
    on_progress: Progress | None = None,
) -> list[Arrays]:
    """What a part makes of each of its inputs. Cancelling the call frees the runs that have not begun.

    Args:
        executor: where it is loaded.
        key: the part, and what the inputs share.
        inputs: the arrays of each run, without the axis of the batch.
        account: whose share of the devices they use.
        on_start: called on the event loop when a device takes the first of them.
        on_progress: called on the event loop with the finished share, from 0 to 1.

    Raises:
        ModelError: if one of them cannot be run.
    """
    job = _PartJob(inputs=inputs, loop=asyncio.get_running_loop(), on_start=on_start, on_progress=on_progress)
    await job.run(executor, account, key, job.items())
    return [result for result in job.results if result is not None]


@dataclass(slots=True, eq=False, kw_only=True)
class _PartJob(Job):
    """Some runs of a part, and what they give."""

    inputs: Sequence[Arrays]
    count: int = field(init=False)
    results: list[Arrays | None] = field(init=False)

    def __post_init__(self) -> None:
        self.count = len(self.inputs)
        self.results = [None] * self.count
        Job.__post_init__(self)

    def items(self) -> list["_PartRun"]:
        return [_PartRun(self, number) for number in range(self.count)]

    def take(self, number: int, result: Arrays) -> None:
        self.results[number] = result
        self.on_loop(self.advance)


@dataclass(frozen=True, slots=True, eq=False)
class _PartRun(Item[_PartJob]):
    """One run of the part."""

    number: int

    def inputs(self) -> Arrays:
        return self.job.inputs[self.number]

    def finish(self, result: Arrays) -> None:
        self.job.take(self.number, result)
