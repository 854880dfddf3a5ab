"""Where events go: to the metrics always, to traces where the settings name a collector of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from server.settings import Settings
from server.telemetry.metrics import Metrics
from server.telemetry.speeds import Speeds
from server.telemetry.story import Stage, Story
from server.telemetry.usage import UsageTally

if TYPE_CHECKING:
    from server.telemetry.tracing import Tracing

__all__ = ["Telemetry", "running_telemetry", "sample_lag"]

_SAMPLE_LAG_EVERY: Final = 0.05  # seconds


class Telemetry:
    """The `Audience` of all stories.

    Attributes:
        speeds: how fast models are, by the stories so far.
        usage: what accounts use.
    """

    def __init__(self, metrics: Metrics, tracing: "Tracing | None") -> None:
        self.metrics = metrics
        self.speeds = Speeds()
        self.usage = UsageTally()
        self._tracing = tracing

    def stage_ended(self, stage: Stage, seconds: float) -> None:
        """See `Audience.stage_ended`."""
        self.metrics.stage_ended(stage, seconds)

    def task_ended(self, story: Story) -> None:
        """See `Audience.task_ended`."""
        self.metrics.task_ended(story)
        self.speeds.task_ended(story)
        self.usage.task_ended(story)

    def story_ended(self, story: Story) -> None:
        """See `Audience.story_ended`. A task that the server's stop cut short will have another story."""
        if self._tracing is not None and story.outcome is not None:
            self._tracing.record(story)


@asynccontextmanager
async def running_telemetry(settings: Settings) -> AsyncIterator[Telemetry]:
    """Metrics and traces; what is left of these is exported at the end.

    Raises:
        ImportError: if traces are wanted, and the extra `otel` is not installed.
    """
    tracing = _open_tracing(settings.otlp_endpoint)
    telemetry = Telemetry(Metrics(), tracing)
    sampler = asyncio.create_task(sample_lag(_SAMPLE_LAG_EVERY, telemetry.metrics.loop_lagged))
    try:
        yield telemetry
    finally:
        sampler.cancel()
        await asyncio.gather(sampler, return_exceptions=True)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


async def sample_lag(every: float, observe: Callable[[float], None]) -> None:
    """Observe again and again how late the event loop runs a timer, in seconds.

    uvloop's timers are exact to a millisecond: that much is always observed.
    """
    while True:
        due = time.perf_counter() + every
        await asyncio.sleep(every)
        observe(max(0.0, time.perf_counter() - due))


def _open_tracing(endpoint: str | None) -> "Tracing | None":
    if endpoint is None:
        return None
    try:
        from server.telemetry.tracing import open_tracing  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ImportError(
            f"otlp_endpoint needs OpenTelemetry; pip install 'tilewire[otel]' brings it ({error})"
        ) from error
    return open_tracing(endpoint)
