"""What `tilewire top` shows: two scrapes of `/metrics`, and what happened between them.

Pure functions; `top_command` fetches and repaints.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from server.telemetry.story import STAGES

__all__ = ["Scrape", "parse", "quantile", "view"]

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """The samples of one answer, taken at a time in seconds."""

    time: float
    samples: Mapping[str, Mapping[Labels, float]]

    def values(self, name: str, label: str) -> dict[str, float]:
        """The samples of a name, added up by one of their labels."""
        sums: dict[str, float] = {}
        for labels, value in self.samples.get(name, {}).items():
            key = dict(labels).get(label, "")
            sums[key] = sums.get(key, 0.0) + value
        return sums

    def total(self, name: str) -> float:
        """The sum of all samples of a name; 0 without any."""
        return sum(self.samples.get(name, {}).values())

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """The cumulative counts of a histogram by upper bound, of the series that have these labels."""
        wanted = set(labels.items())
        counts: dict[float, float] = {}
        for found, value in self.samples.get(f"{name}_bucket", {}).items():
            if wanted <= found:
                bound = float(dict(found)["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        return counts


def parse(text: str, time: float) -> Scrape:
    """The samples in Prometheus' text format.

    Raises:
        ValueError: if it is something else.
    """
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    if "tilewire_sockets" not in samples:
        raise ValueError("these are not the metrics of Tilewire")
    return Scrape(time, samples)


def quantile(share: float, before: Mapping[float, float], after: Mapping[float, float]) -> float | None:
    """The value that `share` (0 to 1) of what a histogram counted between two scrapes are not above.

    Values within a bucket are taken as spread evenly, as by Prometheus' histogram_quantile; None if nothing
    was counted.
    """
    counts = [(bound, after[bound] - before.get(bound, 0.0)) for bound in sorted(after)]
    if not counts or counts[-1][1] <= 0:
        return None
    rank = share * counts[-1][1]
    for (low, below), (high, count) in pairwise([(0.0, 0.0), *counts]):
        if count >= rank and count > below:
            return low if math.isinf(high) else low + (high - low) * (rank - below) / (count - below)
    return None


def view(before: Scrape, after: Scrape, url: str) -> RenderableType:
    """The server at `url`, between two scrapes."""
    return Group(
        _headline(before, after, url), _devices(before, after), _queue(after), _stages(before, after)
    )


def _headline(before: Scrape, after: Scrape, url: str) -> Text:
    def rate(name: str) -> float:
        return _rate(before.total(name), after.total(name), before, after)

    outcomes = after.values("tilewire_tasks_total", "outcome")
    lag = quantile(0.99, *(scrape.buckets("tilewire_event_loop_lag_seconds") for scrape in (before, after)))
    codes = Counter(after.values("tilewire_errors_total", "code")).most_common(5)
    errors = ", ".join(f"{code} {count:.0f}" for code, count in codes)
    ended = ", ".join(f"{count:.0f} {outcome}" for outcome, count in sorted(outcomes.items()))
    lines = [
        f"{url}   {rate('tilewire_tasks_total'):.1f} tasks/s   "
        f"{rate('tilewire_output_pixels_total') / 1e6:.2f} MP/s   "
        f"{after.total('tilewire_unfinished_tasks'):.0f} unfinished",
        f"tasks: {ended or 'none yet'}",
        f"sockets {after.total('tilewire_sockets'):.0f}   sessions {after.total('tilewire_sessions'):.0f}   "
        f"unsent {_bytes(after.total('tilewire_unsent_bytes'))}   "
        f"outbox {after.total('tilewire_outbox_replies'):.0f}   "
        f"webhooks {after.total('tilewire_pending_webhooks'):.0f}   event loop p99 {_seconds(lag)}",
        f"charged {_usd(after.total('tilewire_charged_usd_total'))} USD   "
        f"reserved {_usd(after.total('tilewire_reserved_usd'))} USD   "
        f"memory {_bytes(after.total('process_resident_memory_bytes'))}",
        f"errors: {errors or 'none'}",
    ]
    return Text("\n".join(lines) + "\n")


def _devices(before: Scrape, after: Scrape) -> Table:
    table = _table("device", "busy", "tiles/s", "MP/s", "memory")
    counters = (f"tilewire_device_{what}_total" for what in ("busy_seconds", "tiles", "pixels"))
    counted = [(before.values(name, "device"), after.values(name, "device")) for name in counters]
    used = after.values("tilewire_device_memory_used_bytes", "device")
    size = after.values("tilewire_device_memory_size_bytes", "device")
    for device, up in after.values("tilewire_device_up", "device").items():
        busy, tiles, pixels = (
            _rate(old.get(device, 0.0), new.get(device, 0.0), before, after) for old, new in counted
        )
        table.add_row(
            device,
            f"{min(1.0, busy):.0%}" if up else "lost",
            f"{tiles:.1f}",
            f"{pixels / 1e6:.2f}",
            f"{_bytes(used[device])} of {_bytes(size[device])}" if device in used else "-",
        )
    return table


def _queue(after: Scrape) -> Table:
    table = _table("model", "tasks waiting", "tiles waiting")
    tiles = after.values("tilewire_queue_tiles", "model")
    for model, tasks in sorted(after.values("tilewire_queue_tasks", "model").items()):
        table.add_row(model, f"{tasks:.0f}", f"{tiles.get(model, 0.0):.0f}")
    return table


def _stages(before: Scrape, after: Scrape) -> Table:
    table = _table("stage", "per second", "p50", "p95")
    rows: list[tuple[str, str, dict[str, str]]] = [("whole task", "tilewire_task_seconds", {})]
    rows += [(stage, "tilewire_stage_seconds", {"stage": stage}) for stage in STAGES]
    for title, name, labels in rows:
        then, now = before.buckets(name, **labels), after.buckets(name, **labels)
        count = now.get(math.inf, 0.0) - then.get(math.inf, 0.0)
        percentiles = (_seconds(quantile(share, then, now)) for share in (0.5, 0.95))
        table.add_row(title, f"{_rate(0, count, before, after):.1f}", *percentiles)
    return table


def _rate(then: float, now: float, before: Scrape, after: Scrape) -> float:
    """Per second; a server that was started anew in between has counted from zero."""
    span = after.time - before.time
    return (now - then if now >= then else now) / span if span > 0 else 0.0


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, min_width=30, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _usd(amount: float) -> str:
    return f"{amount:.9f}".rstrip("0").rstrip(".")


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
