"""What `tilewire upscale` shows: bars while it works, a line for each file, and what it came to."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from server.commands.output import printable
from server.commands.upscale.plan import Job, Plan
from server.commands.upscale.targets import name_of
from tilewire import Result, TilewireError

__all__ = ["Report"]


_NAMED: Final = 3
"""How many files of a kind are named; of more there is the number."""


class Report:
    """Shows what is done, and counts.

    Attributes:
        failed: files that could not be upscaled.
        stopped: why the rest is not tried; None while all is well.
    """

    def __init__(self, plan: Plan, console: Console, problems: Console, *, show_cost: bool) -> None:
        """Start counting, and the clock.

        Args:
            plan: what is to be done.
            console: where to print what was done.
            problems: where to print what went wrong.
            show_cost: whether the work is charged.
        """
        self.failed = len(plan.failures)
        self.stopped: str | None = None
        self._plan = plan
        self._console = console
        self._problems = problems
        self._show_cost = show_cost
        self._succeeded = 0
        self._megapixels = 0.0
        self._ended_megapixels = 0.0
        self._cost = Decimal(0)
        self._failures = [f"{printable(name)}: {printable(reason)}" for name, reason in plan.failures]
        self._began = time.monotonic()
        self._bars = _bars(console)
        self._rows: dict[Job, TaskID] = {}
        self._total: TaskID | None = None

    def expect(self, seconds: float | None) -> None:
        """Say what is to be done, and how long it should take, if that is known; in a terminal only."""
        if seconds is None or not self._plan.jobs or not self._problems.is_terminal:
            return
        count, megapixels = len(self._plan.jobs), sum(job.megapixels for job in self._plan.jobs)
        noun = "picture" if count == 1 else "pictures"
        self._problems.print(
            f"{count} {noun}, {megapixels:.3g} megapixels: about {_duration(seconds)}", style="dim"
        )

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the bars for the time of the block; in a terminal only."""
        if len(self._plan.jobs) > 1:
            self._total = self._bars.add_task(
                self._progress(), total=sum(job.megapixels for job in self._plan.jobs)
            )
        with self._bars:
            try:
                yield
            finally:
                for row in self._bars.task_ids:  # they would stay behind
                    self._bars.remove_task(row)

    def begin(self, job: Job) -> None:
        """A file's turn has come."""
        # Until there is progress the bar moves to and fro.
        self._rows[job] = self._bars.add_task(printable(job.source.name), total=None)

    def advance(self, job: Job, share: float, queue_position: int | None = None) -> None:
        """A file is done to this share; or it waits behind others: 1 is the next."""
        place = "" if queue_position is None else f"{_ordinal(queue_position)} in line: "
        name = f"{place}{printable(job.source.name)}"
        total = None if queue_position is not None else 1.0
        self._bars.update(self._rows[job], description=name, total=total, completed=share)
        self._count()

    def succeed(self, job: Job, result: Result) -> None:
        """A file is done, and its result written."""
        self._succeeded += 1
        self._megapixels += job.megapixels
        self._cost += result.cost
        name = printable(job.source.name)
        self._console.print(f"{name} → {name_of(job.target)}")
        if result.nsfw:
            scores = ", ".join(f"{what} {score:.2f}" for what, score in result.nsfw_scores.items())
            self._console.print(f"{name}: may not be safe for work ({scores})", style="yellow")
        for warning in result.warnings:
            self._console.print(f"{name}: {printable(warning)}")
        self._end(job)

    def fail(self, job: Job, reason: str) -> None:
        """A file could not be upscaled."""
        self.failed += 1
        self._failures.append(f"{printable(job.source.name)}: {printable(reason)}")
        self._end(job)

    def stop(self, reason: str) -> None:
        """Nothing more can be done."""
        self.stopped = self.stopped or reason

    @property
    def status(self) -> int:
        """The exit status: 0 if all is done, 1 if something failed."""
        return 1 if self.failed or self.stopped else 0

    @contextmanager
    def summary(self) -> Iterator[None]:
        """Summarize at the end of the block, whether it is reached, interrupted, or the server is lost."""
        try:
            yield
        except TilewireError as error:
            self.stop(str(error))
        except (KeyboardInterrupt, asyncio.CancelledError):
            self.summarize(interrupted=True)
            raise
        self.summarize()

    def summarize(self, *, interrupted: bool = False) -> None:
        """Tell the failures, one a line, and what it came to."""
        for failure in self._failures:
            self._problems.print(failure, style="red")
        if self.stopped is not None:
            self._problems.print(self.stopped, style="red")
            if not self._succeeded and not self._failures:
                return
        plan = self._plan
        parts = [self._done()] if self._succeeded else []
        left = len(plan.jobs) + len(plan.failures) - self._succeeded - self.failed
        parts += [
            *_count(plan.done, "done before", "--overwrite does {} again"),
            *_count(plan.results, "left out as earlier results", "name {} to upscale {}"),
            *_count(plan.skipped, "skipped: no picture of a known format"),
        ]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if left:
            parts.append(
                f"{left} {'interrupted: run the same command to go on' if interrupted else 'not done'}"
            )
        self._console.print("; ".join(parts), style="bold")

    def _done(self) -> str:
        noun = "picture" if self._succeeded == 1 else "pictures"
        seconds = time.monotonic() - self._began
        cost = f", {self._cost.normalize():f} USD" if self._show_cost else ""
        return f"{self._succeeded} {noun}, {self._megapixels:.3g} megapixels, {_duration(seconds)}{cost}"

    def _progress(self) -> str:
        return f"{self._ended()} of {len(self._plan.jobs)} pictures"

    def _ended(self) -> int:
        return self._succeeded + self.failed - len(self._plan.failures)

    def _end(self, job: Job) -> None:
        self._bars.remove_task(self._rows.pop(job))
        self._ended_megapixels += job.megapixels
        self._count()

    def _count(self) -> None:
        """Show how far all is: by size, as a large picture takes longer."""
        if self._total is not None:
            shares = {task.id: task.percentage / 100 for task in self._bars.tasks}
            begun = sum(job.megapixels * shares[row] for job, row in self._rows.items())
            done = self._ended_megapixels + begun
            self._bars.update(self._total, description=self._progress(), completed=done)


def _count(paths: list[Path], what: str, advice: str | None = None) -> list[str]:
    """How many files of a kind there are, and the first of them; nothing of none."""
    if not paths:
        return []
    names = ", ".join(printable(path) for path in paths[:_NAMED])
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    it = "it" if len(paths) == 1 else "them"
    hint = f"; {advice.format(it, it)}" if advice else ""
    return [f"{len(paths)} {what} ({names}{more}{hint})"]


class _TimeLeft(TimeRemainingColumn):
    """The time that is left, if it can be told yet."""

    def render(self, task: Task) -> Text:
        if task.time_remaining is None or not task.total:
            return Text(" " * len("0:00:00 left"))
        return super().render(task).append(" left")


class _Bars(Progress):
    """Bars with room for the ^C of a terminal, which would else begin a line: one would stay behind."""

    def __init__(self, *columns: ProgressColumn, console: Console, **more: Any) -> None:
        self._terminal = console  # `Progress` renders once before it has its own
        super().__init__(*columns, console=console, **more)

    def get_renderables(self) -> Iterator[RenderableType]:
        for bars in super().get_renderables():
            yield Constrain(bars, self._terminal.width - len("^C") - 1)


def _bars(console: Console) -> Progress:
    name = Column(ratio=1, overflow="ellipsis", no_wrap=True)
    return _Bars(
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=24),
        TaskProgressColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        _TimeLeft(),
        console=console,
        disable=not console.is_terminal,
        expand=True,
        transient=True,
        speed_estimate_period=300,
    )


def _ordinal(number: int) -> str:
    end = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{end}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    if minutes:
        return f"{minutes} min {rest:02} s"
    return f"{seconds:.1f} s"
