"""Traces by OpenTelemetry, the extra `otel`: a span for each task, with one for each of its stages.

Spans are made when a task's story has ended, of the times that were measured anyway.
"""

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from server.telemetry.story import Story

__all__ = ["Tracing", "open_tracing"]

_EXPORT_TIMEOUT = 10  # seconds


class Tracing:
    """Tells stories as spans. Close it when done."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: "tilewire"}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tilewire")

    def record(self, story: Story) -> None:
        """Export a task that has its outcome."""
        subject = story.subject
        self._ids.next_span = story.trace and int(story.trace.span, 16)
        span = self._tracer.start_span(
            "task",
            _parent_of(story),
            kind=SpanKind.SERVER,
            start_time=_nanoseconds(story.began),
            attributes={
                "tilewire.task": subject.task,
                "tilewire.account": subject.account,
                "tilewire.session": subject.session or "",
                "tilewire.model": subject.model,
                "tilewire.outcome": story.outcome or "",
                "tilewire.output_pixels": story.output_pixels,
            },
        )
        if story.code is not None:
            span.set_attribute("error.type", story.code)
            span.set_status(Status(StatusCode.ERROR))
        within = set_span_in_context(span)
        end = story.began + story.seconds
        for stage, began, seconds in story.stages:
            child = self._tracer.start_span(stage, within, start_time=_nanoseconds(began))
            child.end(_nanoseconds(began + seconds))
            end = max(end, began + seconds)
        span.end(_nanoseconds(end))

    def close(self) -> None:
        """Export what is left. Blocks, for seconds if the collector does not answer."""
        self._provider.shutdown()


class _Ids(RandomIdGenerator):
    """Ids for spans: any, but for the next one if it is to have one of its own."""

    next_span: int | None = None

    def generate_span_id(self) -> int:
        wanted, self.next_span = self.next_span, None
        return wanted or super().generate_span_id()


def _parent_of(story: Story) -> Context | None:
    """What the task came from, if whoever sent it said so."""
    if story.trace is None or story.trace.parent is None:
        return None
    _, trace, span, flags = story.trace.parent.split("-")
    parent = SpanContext(
        int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return set_span_in_context(NonRecordingSpan(parent))


def open_tracing(endpoint: str) -> Tracing:
    """Traces to an OTLP collector, over HTTP, at a URL such as http://localhost:4318/v1/traces."""
    return Tracing(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
