"""Traces: a span for each task, one for each of its stages."""

import base64
import sys
from typing import Any

import httpcore
import msgspec
import pytest

from server.errors import StartError
from server.protocol.errors import invalid
from server.serving import EmbeddedServer
from server.state.accounts import AccountId
from server.state.records import Attempt, Status, StoredResult, TaskRecord
from server.telemetry.story import Story, Subject
from tests.server.conftest import StartServer
from tests.server.support.harness import FAST_MODEL, KEY, Item, connected, make_image, upscale
from tests.server.support.web import Web

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from server.telemetry.tracing import Tracing

SUBJECT = Subject("task-1", AccountId("account"), None, "model")


class Nobody:
    def stage_ended(self, *_: object) -> None:
        pass

    task_ended = story_ended = stage_ended


def exported(*stages: Any, error: Any = None) -> Any:
    """The spans of a task that went through these stages, by name."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter)
    story = Story(SUBJECT, Nobody())
    for stage in stages:
        with story.measure(stage):
            pass
    status = Status.FAILED if error else Status.SUCCEEDED
    result = None if error else StoredResult("image", "image.png", "input")
    story.finish(TaskRecord(Attempt.of(SUBJECT.account, "task-1"), b"{}", None, status, result, error))
    tracing.record(story)
    tracing.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_the_stages_are_children_of_their_task_and_lie_within_it() -> None:
    spans = exported("decode", "inference")
    task = spans.pop("task")
    assert list(spans) == ["decode", "inference"]
    assert task.attributes["tilewire.task"] == "task-1"
    assert task.attributes["tilewire.outcome"] == "succeeded"
    for span in spans.values():
        assert span.parent.span_id == task.context.span_id
        assert task.start_time <= span.start_time <= span.end_time <= task.end_time


def test_a_failed_task_is_an_error_with_its_code() -> None:
    task = exported("fetch", error=invalid("model", "there is none").item("upscale", "task-1", None))["task"]
    assert task.status.status_code is StatusCode.ERROR
    assert task.attributes["error.type"] == "invalidModel"


async def test_a_collector_gets_the_trace_of_a_task(start_server: StartServer, web: Web) -> None:
    server = start_server(otlp_endpoint=f"{web.url}/v1/traces")
    task = upscale(base64.b64encode(make_image()).decode())
    async with connected(server) as peer:
        await peer.ask(task)
    server.stop()
    received = await web.receive()
    assert received.path == "/v1/traces"
    request = ExportTraceServiceRequest.FromString(received.body)
    spans = {span.name: span for span in request.resource_spans[0].scope_spans[0].spans}
    assert {"fetch", "admission", "decode", "queue", "inference", "encode", "store", "task"} <= spans.keys()
    attributes = {entry.key: entry.value.string_value for entry in spans["task"].attributes}
    assert attributes["tilewire.task"] == task["taskUUID"]
    assert attributes["tilewire.model"] == FAST_MODEL


def test_without_the_extra_the_server_says_what_is_missing(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "server.telemetry.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartError, match="otlp_endpoint needs OpenTelemetry"):
        start_server(otlp_endpoint="http://127.0.0.1:4318/v1/traces")


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


async def send(server: EmbeddedServer, task: Item, how: str, **header: str) -> Item:
    """Send a task by POST or over a socket; its reply."""
    if how == "socket":
        async with connected(server) as peer:
            return (await peer.ask(task))[0]
    headers = [("Authorization", f"Bearer {KEY}"), *header.items()]
    async with httpcore.AsyncConnectionPool() as pool:
        body = msgspec.json.encode([task])
        response = await pool.request("POST", f"{server.url}/v1", headers=headers, content=body)
    ((item,),) = msgspec.json.decode(response.content).values()
    return dict(item)


@pytest.mark.parametrize("how", ["socket", "header"])
async def test_a_trace_that_a_task_is_part_of_goes_on_through_it(
    start_server: StartServer, web: Web, how: str
) -> None:
    server = start_server(otlp_endpoint=f"{web.url}/v1/traces", private_networks=True)
    endpoints = {"uploadEndpoint": f"{web.url}/upload", "webhookURL": f"{web.url}/hook"}
    task = upscale(base64.b64encode(make_image()).decode(), **endpoints)
    if how == "socket":
        assert "imageURL" in await send(server, {**task, "traceparent": PARENT}, how)
    else:
        assert "imageURL" in await send(server, task, how, traceparent=PARENT)
    received = {one.path: one for one in [await web.receive(), await web.receive()]}
    server.stop()
    received["/v1/traces"] = await web.receive()
    request = ExportTraceServiceRequest.FromString(received["/v1/traces"].body)
    spans = {span.name: span for span in request.resource_spans[0].scope_spans[0].spans}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    own = spans["task"].span_id.hex()
    assert (spans["task"].parent_span_id.hex(), spans["decode"].parent_span_id.hex()) == (SPAN, own)
    for path in ("/upload", "/hook"):
        assert received[path].headers["traceparent"] == f"00-{TRACE}-{own}-01"


async def test_without_a_collector_a_trace_is_passed_on_as_it_came(
    start_server: StartServer, web: Web
) -> None:
    server = start_server(private_networks=True)
    image = base64.b64encode(make_image()).decode()
    for header, passed_on in (
        (PARENT, PARENT),
        (f"01-{TRACE}-{SPAN}-01-more", PARENT),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        ("nonsense", None),
    ):
        task = upscale(image, uploadEndpoint=f"{web.url}/upload")
        assert "imageURL" in await send(server, task, "header", traceparent=header)
        assert (await web.receive()).headers.get("traceparent") == passed_on


async def test_a_task_that_is_sent_again_from_another_span_is_the_same_task(
    start_server: StartServer,
) -> None:
    server = start_server()
    task = upscale(base64.b64encode(make_image()).decode(), traceparent=PARENT)
    first = await send(server, task, "socket")
    again = await send(server, {**task, "traceparent": PARENT.replace(SPAN, "00f067aa0ba902b7")}, "socket")
    assert (again["imageUUID"], "imageURL" in first) == (first["imageUUID"], True)
    wrong = await send(server, upscale("x", traceparent=f"00-{TRACE}"), "socket")
    assert (wrong["code"], wrong["parameter"]) == ("invalidTraceparent", "traceparent")
