"""What happens to a task, reported once to the metrics, the log and the trace.

`Story.measure` is the one place where a stage is timed, `Story.finish` the one where an outcome is counted.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol, get_args

from engines import DeviceTime, device_time
from server.money import to_usd
from server.state.accounts import AccountId
from server.state.records import TaskRecord
from server.state.requests import Service
from server.state.usage import CANCELLED
from server.telemetry.logs import bound

__all__ = ["STAGES", "Audience", "Outcome", "Stage", "Story", "Subject", "Timed", "Trace", "story_of"]

log = logging.getLogger(__name__)

Stage = Literal[
    "fetch", "admission", "decode", "safety", "queue", "inference", "encode", "store", "upload", "deliver"
]
"""In the order of a task's life. `admission` waits for room in memory, `queue` for a device."""

STAGES: tuple[Stage, ...] = get_args(Stage)

Outcome = Literal["succeeded", "failed", "cancelled"]


class Subject(NamedTuple):
    """Which task a story is of, and in whose shape and with which key it came."""

    task: str
    account: AccountId
    session: str | None
    model: str
    service: Service = "runware"
    key: str | None = None


class Trace(NamedTuple):
    """The id of a task's span, and the `traceparent` that it has if it is part of someone else's trace."""

    span: str
    parent: str | None


class Timed(NamedTuple):
    """A stage that has ended. `began` in seconds since the epoch."""

    stage: Stage
    began: float
    seconds: float


class Audience(Protocol):
    """Who listens to stories."""

    def stage_ended(self, stage: Stage, seconds: float) -> None:
        """A stage of some task took so long."""

    def task_ended(self, story: "Story") -> None:
        """A task has its outcome, which may still have to be delivered."""

    def story_ended(self, story: "Story") -> None:
        """Nothing more will happen."""


class Story:
    """One task, from acceptance to delivery.

    Attributes:
        stages: those that have ended, in order.
        output_pixels: of the result, once it is known.
        is_plain: whether one model makes the result at once: that tells how fast it is.
        cost: what was charged, in nanodollars.
        device: how long devices have worked for it.
        trace: the ids of its span; None: any.
        outcome, code: how it ended, and with which error; None before.
    """

    def __init__(
        self,
        subject: Subject,
        audience: Audience,
        device: DeviceTime | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.subject = subject
        self.trace = trace
        self.device = device or DeviceTime()
        self.began = time.time()
        self.seconds = 0.0
        self.stages: list[Timed] = []
        self.output_pixels = 0
        self.is_plain = True
        self.cost = 0
        self.outcome: Outcome | None = None
        self.code: str | None = None
        self._audience = audience
        self._started = time.perf_counter()

    def measure(self, stage: Stage) -> "Measuring":
        """Time a `with` block as a stage. Stages follow each other; none is within another."""
        return Measuring(self, stage)

    def finish(self, record: TaskRecord) -> None:
        """The outcome is recorded."""
        self.seconds = time.perf_counter() - self._started
        milliseconds: dict[str, float] = {}
        for stage, _, seconds in self.stages:
            name = f"{stage}_ms"
            milliseconds[name] = round(milliseconds.get(name, 0) + 1000 * seconds, 1)
        fields: dict[str, object] = {"total_ms": round(1000 * self.seconds, 1), **milliseconds}
        self.cost = record.spent
        if record.error is None:
            self.outcome = "succeeded"
            log.info("task finished", extra={**fields, "cost_usd": to_usd(self.cost)})
        else:
            self.outcome = "cancelled" if record.error.code in CANCELLED else "failed"
            self.code = record.error.code
            log.info("task failed", extra={**fields, "code": self.code, "cost_usd": to_usd(self.cost)})
        self._audience.task_ended(self)

    def note(self, timed: Timed) -> None:
        """A stage has ended."""
        self.stages.append(timed)
        self._audience.stage_ended(timed.stage, timed.seconds)


class Measuring:
    """A stage under way."""

    def __init__(self, story: Story, stage: Stage) -> None:
        self._story = story
        self._begin(stage)

    def __enter__(self) -> "Measuring":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def become(self, stage: Stage) -> None:
        """This stage ends here and another begins, unless the block was left already."""
        if self._under_way and stage != self._stage:
            self.end()
            self._begin(stage)

    def end(self) -> None:
        """The block is left."""
        self._under_way = False
        self._story.note(Timed(self._stage, self._began, time.perf_counter() - self._started))

    def _begin(self, stage: Stage) -> None:
        self._stage: Stage = stage
        self._under_way = True
        self._began = time.time()
        self._started = time.perf_counter()


@contextmanager
def story_of(subject: Subject, audience: Audience, trace: Trace | None = None) -> Iterator[Story]:
    """The story of a task, for the time that it is worked on; what is logged meanwhile names the task.

    Args:
        subject: the task.
        audience: to whom it is reported.
        trace: what the task's span is; it may be part of a trace of someone else's.
    """
    parent = trace.parent if trace else None
    fields = {name: value for name, value in subject._asdict().items() if name != "key"}
    with bound(**fields, trace=parent and parent.split("-")[1]), device_time() as device:
        story = Story(subject, audience, device, trace)
        try:
            yield story
        finally:
            audience.story_ended(story)
