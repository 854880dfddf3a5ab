"""What `tilewire upscale` shows: bars while it works, a line for each file, and what it came to."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from server.commands.upscale_plan import Job, Plan
from tilewire import Result

__all__ = ["Report"]


class Report:
    """Tells the user, and counts.

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
        self.failed = 0
        self.stopped: str | None = None
        self._plan = plan
        self._console = console
        self._problems = problems
        self._show_cost = show_cost
        self._succeeded = 0
        self._megapixels = 0.0
        self._cost = Decimal(0)
        self._failures: list[str] = []
        self._began = time.monotonic()
        self._bars = _bars(console)
        self._rows: dict[Job, TaskID] = {}
        self._total: TaskID | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the bars for the time of the block; in a terminal only."""
        if len(self._plan.jobs) > 1:
            self._total = self._bars.add_task(self._progress(), total=len(self._plan.jobs))
        with self._bars:
            try:
                yield
            finally:
                for row in self._bars.task_ids:  # they would stay behind
                    self._bars.remove_task(row)

    def begin(self, job: Job) -> None:
        """A file's turn has come."""
        # Until there is progress the bar moves to and fro.
        self._rows[job] = self._bars.add_task(job.source.name, total=None)

    def advance(self, job: Job, share: float) -> None:
        """A file is done to this share."""
        self._bars.update(self._rows[job], total=1.0, completed=share)
        self._count()

    def succeed(self, job: Job, result: Result) -> None:
        """A file is done, and its result written."""
        self._succeeded += 1
        self._megapixels += (result.width or 0) * (result.height or 0) / 1e6
        self._cost += result.cost
        self._console.print(f"{job.source} → {job.target}")
        for warning in result.warnings:
            self._console.print(f"{job.source}: {warning}")
        self._end(job)

    def fail(self, job: Job, reason: str) -> None:
        """A file could not be upscaled."""
        self.failed += 1
        self._failures.append(f"{job.source}: {reason}")
        self._end(job)

    def stop(self, reason: str) -> None:
        """Nothing more can be done."""
        self.stopped = self.stopped or reason

    def summarize(self, *, interrupted: bool = False) -> None:
        """Tell the failures, one a line, and what it came to."""
        for failure in self._failures:
            self._problems.print(failure, style="red")
        if self.stopped is not None:
            self._problems.print(self.stopped, style="red")
            if not self._succeeded and not self._failures:
                return
        parts = [self._done()] if self._plan.jobs else []
        left = len(self._plan.jobs) - self._succeeded - self.failed
        for count, what in (
            (self._plan.done, "done before"),
            (self._plan.results, "left out as earlier results"),
            (self.failed, "failed"),
            (left, "interrupted: run the same command to go on" if interrupted else "not done"),
        ):
            if count:
                parts.append(f"{count} {what}")
        self._console.print("; ".join(parts), style="bold")

    def _done(self) -> str:
        noun = "picture" if self._succeeded == 1 else "pictures"
        seconds = time.monotonic() - self._began
        cost = f", {self._cost.normalize():f} USD" if self._show_cost else ""
        return f"{self._succeeded} {noun}, {self._megapixels:.3g} megapixels, {_duration(seconds)}{cost}"

    def _progress(self) -> str:
        return f"{self._succeeded + self.failed} of {len(self._plan.jobs)} pictures"

    def _end(self, job: Job) -> None:
        self._bars.remove_task(self._rows.pop(job))
        self._count()

    def _count(self) -> None:
        if self._total is not None:
            shares = sum(task.percentage / 100 for task in self._bars.tasks if task.id in self._rows.values())
            done = self._succeeded + self.failed + shares
            self._bars.update(self._total, description=self._progress(), completed=done)


class _TimeLeft(TimeRemainingColumn):
    """The time that is left, if it can be told yet."""

    def render(self, task: Task) -> Text:
        if task.time_remaining is None or not task.total:
            return Text(" " * len("0:00:00 left"))
        return super().render(task).append(" left")


def _bars(console: Console) -> Progress:
    name = Column(ratio=1, overflow="ellipsis", no_wrap=True)
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=24),
        TaskProgressColumn("{task.percentage:>3.0f}%"),
        _TimeLeft(),
        console=console,
        disable=not console.is_terminal,
        expand=True,
        transient=True,
        speed_estimate_period=300,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    if minutes:
        return f"{minutes} min {rest:02} s"
    return f"{seconds:.1f} s"
