"""The metrics, named as Prometheus advises (https://prometheus.io/docs/practices/naming/).

1. `Metrics` counts what happens.
2. `Snapshot` is how things stand, looked up when someone asks.
3. `Metrics.render` writes both in Prometheus' text format.

Labels have few values: models, devices, stages, outcomes and error codes, never tasks; accounts only if the
setting `metrics_accounts` says how many.
"""

from collections import Counter as Multiset
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from engines import Activity, DeviceActivity
from server.money import to_usd
from server.protocol.error_codes import error_label
from server.state.usage import Amounts
from server.telemetry.story import STAGES, Stage, Story

__all__ = ["Metrics", "Snapshot"]

# `process_start_time_seconds` says it for all; a series beside each counter would double the output.
disable_created_metrics()  # type: ignore[no-untyped-call]

_TASK_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_STAGE_BUCKETS: Final = (0.001, 0.0025, 0.005, *_TASK_BUCKETS)
_LAG_BUCKETS: Final = (0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_FILL_BUCKETS: Final = (0.125, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How things stand.

    Attributes:
        tasks: that have no outcome yet.
        incoming: bytes of messages that are coming in or worked on, and their limit.
        outgoing: bytes of replies that wait to be sent, and their limit.
        unsent_bytes: of replies that clients have not read yet.
        outbox: replies that wait for their session to resume; None while the database does not answer.
        webhooks: neither delivered nor given up; None likewise.
        reserved: for tasks without an outcome, in nanodollars; None likewise.
        accounts: what the largest accounts used since the start, by name and model.
    """

    activity: Activity
    tasks: int
    sockets: int
    sessions: int
    unsent_bytes: int
    incoming: tuple[int, int]
    outgoing: tuple[int, int]
    outbox: int | None
    webhooks: int | None
    reserved: int | None
    accounts: Mapping[tuple[str, str], Amounts] = field(default_factory=dict)


class Metrics:
    """What one server counts. May be used from any thread."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._tasks = Counter(
            "tilewire_tasks",
            "Tasks that have an outcome, by the service in whose shape they came.",
            ["model", "service", "outcome"],
            registry=registry,
        )
        self._task_seconds = Histogram(
            "tilewire_task_seconds",
            "From the acceptance of a task to its outcome.",
            ["model"],
            buckets=_TASK_BUCKETS,
            registry=registry,
        )
        stage_seconds = Histogram(
            "tilewire_stage_seconds",
            "Time that tasks spend in each stage.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self._stages = {stage: stage_seconds.labels(stage) for stage in STAGES}
        self._output_pixels = Counter(
            "tilewire_output_pixels", "Pixels of finished results.", ["model"], registry=registry
        )
        self._charged = Counter("tilewire_charged_usd", "Money charged for tasks.", registry=registry)
        self._errors = Counter("tilewire_errors", "Errors sent to clients.", ["code"], registry=registry)
        self._lag = Histogram(
            "tilewire_event_loop_lag_seconds",
            "How late the event loop runs a timer, sampled.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        ProcessCollector(registry=registry)

    def stage_ended(self, stage: Stage, seconds: float) -> None:
        """A stage of some task took so long."""
        self._stages[stage].observe(seconds)

    def task_ended(self, story: Story) -> None:
        """A task has its outcome."""
        model, service = story.subject.model, story.subject.service
        self._tasks.labels(model, service, story.outcome).inc()
        self._task_seconds.labels(model).observe(story.seconds)
        if story.outcome == "succeeded":
            self._output_pixels.labels(model).inc(story.output_pixels)
            self._charged.inc(float(to_usd(story.cost)))
        if story.code is not None:
            self.error_sent(story.code)

    def error_sent(self, code: str) -> None:
        """An error was sent to a client."""
        self._errors.labels(error_label(code)).inc()

    def loop_lagged(self, seconds: float) -> None:
        """The event loop ran a timer so late."""
        self._lag.observe(seconds)

    def render(self, snapshot: Snapshot) -> bytes:
        """All metrics in Prometheus' text format. Reads files of the system."""
        return generate_latest(_Families([*self._registry.collect(), *_families(snapshot)]))


class _Families(Collector):
    """Metrics that were collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily("tilewire_unfinished_tasks", "Tasks without an outcome yet.", snapshot.tasks)
    yield GaugeMetricFamily("tilewire_sockets", "Open WebSockets.", snapshot.sockets)
    yield GaugeMetricFamily("tilewire_sessions", "Sessions that are connected.", snapshot.sessions)
    yield GaugeMetricFamily(
        "tilewire_unsent_bytes", "Replies that clients have not read yet.", snapshot.unsent_bytes
    )
    for name, what, (used, limit) in (
        ("incoming", "Messages that are coming in or worked on", snapshot.incoming),
        ("outgoing", "Replies that wait to be sent", snapshot.outgoing),
    ):
        yield GaugeMetricFamily(f"tilewire_{name}_bytes", f"{what}.", used)
        yield GaugeMetricFamily(f"tilewire_{name}_limit_bytes", f"{what}: the most there may be.", limit)
    if snapshot.outbox is not None:
        yield GaugeMetricFamily(
            "tilewire_outbox_replies", "Replies that wait to be delivered.", snapshot.outbox
        )
    if snapshot.webhooks is not None:
        yield GaugeMetricFamily(
            "tilewire_pending_webhooks", "Webhooks neither delivered nor given up.", snapshot.webhooks
        )
    if snapshot.reserved is not None:
        yield GaugeMetricFamily(
            "tilewire_reserved_usd",
            "Money set aside for tasks without an outcome.",
            float(to_usd(snapshot.reserved)),
        )
    yield from _accounts(snapshot.accounts)
    yield from _queue(snapshot.activity)
    yield from _devices(snapshot.activity.devices)
    yield _batch_fill(snapshot.activity.devices)


def _accounts(accounts: Mapping[tuple[str, str], Amounts]) -> Iterator[Metric]:
    """What the largest accounts used. One that is among them no more is left out; its counts go on."""
    per_model = ["account", "model"]
    tasks = CounterMetricFamily(
        "tilewire_account_tasks", "Tasks of the largest accounts.", labels=[*per_model, "outcome"]
    )
    pixels = CounterMetricFamily(
        "tilewire_account_output_pixels", "Pixels of their finished results.", labels=per_model
    )
    device = CounterMetricFamily(
        "tilewire_account_device_seconds", "Time that devices worked for them.", labels=per_model
    )
    charged = CounterMetricFamily("tilewire_account_charged_usd", "Money charged to them.", labels=per_model)
    for (name, model), used in accounts.items():
        succeeded = used.tasks - used.failed - used.cancelled
        for outcome, count in (
            ("succeeded", succeeded),
            ("failed", used.failed),
            ("cancelled", used.cancelled),
        ):
            tasks.add_metric([name, model, outcome], count)
        pixels.add_metric([name, model], used.pixels)
        device.add_metric([name, model], used.device / 1000)
        charged.add_metric([name, model], float(to_usd(used.charged)))
    return iter((tasks, pixels, device, charged))


def _queue(activity: Activity) -> Iterator[Metric]:
    tiles = GaugeMetricFamily("tilewire_queue_tiles", "Tiles that wait for a device.", labels=["model"])
    tasks = GaugeMetricFamily("tilewire_queue_tasks", "Tasks that have tiles waiting.", labels=["model"])
    for model, waiting in activity.waiting.items():
        tiles.add_metric([model], waiting.tiles)
        tasks.add_metric([model], waiting.tasks)
    return iter((tiles, tasks))


def _devices(devices: Iterable[DeviceActivity]) -> Iterator[Metric]:
    per_model = ["device", "model"]
    up = GaugeMetricFamily("tilewire_device_up", "Whether the device works: 1 or 0.", labels=["device"])
    busy = CounterMetricFamily(
        "tilewire_device_busy_seconds", "Time spent running and loading networks.", labels=["device"]
    )
    tiles = CounterMetricFamily("tilewire_device_tiles", "Tiles that were run.", labels=per_model)
    pixels = CounterMetricFamily(
        "tilewire_device_pixels", "Output pixels of the tiles, overlaps included.", labels=per_model
    )
    used = GaugeMetricFamily(
        "tilewire_device_memory_used_bytes", "GPU memory in use, by whomever.", labels=["device"]
    )
    size = GaugeMetricFamily("tilewire_device_memory_size_bytes", "GPU memory in all.", labels=["device"])
    for device in devices:
        up.add_metric([device.name], device.usable)
        busy.add_metric([device.name], device.busy_seconds)
        counts: Multiset[str] = Multiset()
        for run, count in device.runs.items():
            counts[run.model] += run.tiles * count
        for model, count in counts.items():
            tiles.add_metric([device.name, model], count)
        for model, count in device.pixels.items():
            pixels.add_metric([device.name, model], count)
        if device.memory is not None:
            used.add_metric([device.name], device.memory.used)
            size.add_metric([device.name], device.memory.size)
    return iter((up, busy, tiles, pixels, used, size))


def _batch_fill(devices: Iterable[DeviceActivity]) -> Metric:
    """How full runs are: the tiles that they had, as a share of those that they could have had."""
    family = HistogramMetricFamily(
        "tilewire_batch_fill_ratio",
        "Tiles of a run, as a share of the most it could have.",
        labels=["device", "model"],
    )
    for device in devices:
        for model in {run.model for run in device.runs}:
            counts = [0] * len(_FILL_BUCKETS)
            total = 0.0
            for run, count in device.runs.items():
                if run.model == model:
                    fill = min(1.0, run.tiles / run.limit)
                    counts[next(i for i, bound in enumerate(_FILL_BUCKETS) if fill <= bound)] += count
                    total += fill * count
            cumulative = list(accumulate(counts))
            bounds = [*map(str, _FILL_BUCKETS), "+Inf"]
            buckets = list(zip(bounds, [*cumulative, cumulative[-1]], strict=True))
            family.add_metric([device.name, model], buckets=buckets, sum_value=total)
    return family
