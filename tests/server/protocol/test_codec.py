"""Frames from anyone: they become tasks or errors about them, whatever they hold."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.protocol.codec import JSON, MESSAGEPACK, TASK_CLASSES, Codec, RawTask
from server.protocol.errors import FrameError, ParameterError
from server.protocol.requests import ImageUpload, Ping, Task, Upscale
from server.protocol.sources import parse_source
from tests.server.support.harness import new_uuid, upscale

CODECS = [pytest.param(JSON, id="JSON"), pytest.param(MESSAGEPACK, id="MessagePack")]
UUID = "550e8400-e29b-41d4-a716-446655440000"


def frame_of(codec: Codec, value: Any) -> bytes:
    return codec.encode(value)


def parsed(codec: Codec, frame: bytes | str) -> list[Task | ParameterError]:
    """What a connection makes of a frame: all of the decoding that there is."""
    outcomes: list[Task | ParameterError] = []
    for raw in codec.split(frame):
        raw.misspelt()
        try:
            task = raw.parse()
            for name in ("image", "input_image"):
                if isinstance(value := getattr(task, name, None), msgspec.Raw):
                    parse_source(value, name, codec)
        except ParameterError as error:
            item = error.item(raw.task_type, raw.task_uuid, None)
            assert len(codec.errors([item])) < 20_000
            outcomes.append(error)
        else:
            outcomes.append(task)
    return outcomes


def fails(codec: Codec, task: Any) -> ParameterError:
    (outcome,) = parsed(codec, frame_of(codec, [task]))
    assert isinstance(outcome, ParameterError)
    return outcome


@pytest.mark.parametrize("codec", CODECS)
def test_an_array_of_tasks_and_a_single_task_are_taken(codec: Codec) -> None:
    ping = {"taskType": "ping"}
    assert parsed(codec, frame_of(codec, [ping, ping])) == [Ping(), Ping()]
    assert parsed(codec, frame_of(codec, ping)) == [Ping()]
    assert parsed(codec, frame_of(codec, [])) == []


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[{]", "malformed"),
        (b"hello", "malformed"),
        (b'[{"taskType":"ping"}', "truncated"),
        (b'[{"taskType":"ping"}] and more', "malformed"),
        (b'[{"upscaleFactor":NaN}]', "malformed"),
        (b"123", "got `int`"),
        (b'"text"', "got `str`"),
        (b"null", "got `null`"),
        (b"[" * 100_000, "nested too deeply"),
        (b'[{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}]", "nested too deeply"),
        (b"[" + b"1," * 2**14 + b"1]", "length <= 16384"),
        (b"[" + b"1," * 2**21 + b"1]", "more than 1048576 values"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
def test_what_is_not_json_of_tasks_is_refused_whole_with_the_reason(frame: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        JSON.split(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("[]", id="text"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="a byte that is never used"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="an array of four thousand million"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map of four thousand million"),
        pytest.param(b"\x91\xdf\xff\xff\xff\xff", id="such a map in an array"),
        pytest.param(b"\x91" * 100_000, id="deep"),
        pytest.param(b"\xdc\xff\xff" + b"\xc0" * 0xFFFF, id="too many tasks"),
    ],
)
def test_what_is_not_messagepack_of_tasks_is_refused_whole(frame: bytes | str) -> None:
    with pytest.raises(FrameError, match="MessagePack"):
        MESSAGEPACK.split(frame)


@pytest.mark.parametrize("codec", CODECS)
def test_a_broken_task_fails_alone(codec: Codec) -> None:
    good = {"taskType": "ping"}
    outcomes = parsed(codec, frame_of(codec, [good, 7, None, "x", [], {}, {"taskType": 3}, good]))
    assert [getattr(outcome, "parameter", "none") for outcome in outcomes] == [
        "none", "task", "task", "task", "task", "taskType", "taskType", "none",
    ]  # fmt: skip
    codes = [outcome.code for outcome in outcomes if isinstance(outcome, ParameterError)]
    assert codes == ["invalidTask"] * 4 + ["missingTaskType", "invalidTaskType"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("changes", "code", "parameter"),
    [
        ({"taskUUID": None}, "invalidTaskUUID", "taskUUID"),
        ({"taskUUID": 12}, "invalidTaskUUID", "taskUUID"),
        ({"taskUUID": ""}, "invalidTaskUUID", "taskUUID"),
        ({"taskUUID": "not-a-uuid"}, "invalidTaskUUID", "taskUUID"),
        ({"taskUUID": UUID.replace("-", "")}, "invalidTaskUUID", "taskUUID"),
        ({"taskUUID": f"{{{UUID}}}"}, "invalidTaskUUID", "taskUUID"),
        ({"taskUUID": "9" * 1_000_000}, "invalidTaskUUID", "taskUUID"),
        ({"taskType": "imageInference"}, "unsupportedTaskType", "taskType"),
        ({"taskType": "x" * 1_000_000}, "unsupportedTaskType", "taskType"),
        ({"ttl": 10**15}, "invalidTtl", "ttl"),
        ({"inputs": {"image": "x", "video": "y"}, "outputType": ["URL", "carrierPigeon"]},
         "invalidOutputType", "outputType"),
        ({"settings": []}, "invalidSettings", "settings"),
    ],
    ids=repr,
)  # fmt: skip
def test_an_error_names_its_parameter(
    codec: Codec, changes: dict[str, Any], code: str, parameter: str
) -> None:
    error = fails(codec, upscale("x") | changes)
    assert (error.code, error.parameter) == (code, parameter)


def test_every_task_type_is_named_when_another_is_asked_for() -> None:
    message = fails(JSON, {"taskType": "imageInference", "taskUUID": UUID}).message
    assert all(str(task.__struct_config__.tag) in message for task in TASK_CLASSES)


def test_text_that_is_not_utf8_fails_its_task_alone() -> None:
    frame = b'[{"taskType":"\xff"},{"\xff":1},{"taskType":"ping"}]'
    first, second, third = parsed(JSON, frame)
    assert isinstance(first, ParameterError)
    assert isinstance(second, ParameterError)
    assert third == Ping()


def test_deep_values_inside_a_task_fail_their_task_alone() -> None:
    # The frame can be split: msgspec skips half as deep as it decodes.
    for depth in range(100, 2000, 100):
        deep = b"[" * depth + b"]" * depth
        frame = b'[{"taskType":"upscale","taskUUID":"%s","settings":{"a":%s}}, {"taskType":"ping"}]' % (
            UUID.encode(),
            deep,
        )
        try:
            outcomes = parsed(JSON, frame)
        except FrameError:
            continue
        assert outcomes[1] == Ping()


@pytest.mark.parametrize("codec", CODECS)
def test_misspelt_names_are_told_and_others_ignored(codec: Codec) -> None:
    def told(**fields: Any) -> list[str]:
        (raw,) = codec.split(frame_of(codec, upscale("x") | fields))
        return raw.misspelt()

    assert told(upscalefactor=2, outputTyp="URL") == [
        "unknown parameter 'outputTyp' was ignored; did you mean 'outputType'?",
        "unknown parameter 'upscalefactor' was ignored; did you mean 'upscaleFactor'?",
    ]
    assert told(somethingElse=1) == []
    assert len(told(**{f"outputTyp{number}": 1 for number in range(10_000)})) <= 16
    assert told(**{"outputType" * 1000: 1}) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
names = sorted(
    {name for codec in (JSON, MESSAGEPACK) for known in codec.field_names.values() for name in known}
)
likely_values = (
    json_values
    | st.sampled_from(sorted(JSON.decoders))
    | st.sampled_from([UUID, 2, 4, "URL", "PNG", "http://127.0.0.1/a.png", "data:image/png;base64,AAAA"])
)
likely_tasks = st.fixed_dictionaries(
    {"taskType": st.sampled_from(sorted(JSON.decoders)), "taskUUID": st.just(UUID) | json_values},
    optional={name: likely_values for name in names if name not in ("taskType", "taskUUID")},
)


@st.composite
def mutated(draw: st.DrawFn, codec: Codec) -> bytes:
    """A plausible frame with some bytes removed, doubled or replaced."""
    frame = bytearray(frame_of(codec, draw(st.lists(likely_tasks | json_values, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(frame)))
        stop = draw(st.integers(start, min(len(frame), start + 8)))
        frame[start:stop] = draw(st.binary(max_size=4) | st.just(bytes(frame[start:stop]) * 2))
    return bytes(frame)


def only_tasks_or_errors(codec: Codec, frame: bytes | str) -> None:
    with suppress(FrameError):
        assert all(isinstance(outcome, Task | ParameterError) for outcome in parsed(codec, frame))


@settings(max_examples=200)
@given(st.binary(max_size=200) | mutated(JSON))
@example(b'[{"taskType":"\\ud800"}]')
@example(b'[{"taskType":"authentication","apiKey":"\\udfff\\ud800"}]')
@example(b'{"taskType":"upscale","taskUUID":"%s","inputImage":"\xff"}' % UUID.encode())
def test_any_bytes_are_tasks_or_errors_as_json(frame: bytes) -> None:
    only_tasks_or_errors(JSON, frame)


@settings(max_examples=200)
@given(st.binary(max_size=200) | mutated(MESSAGEPACK))
def test_any_bytes_are_tasks_or_errors_as_messagepack(frame: bytes) -> None:
    only_tasks_or_errors(MESSAGEPACK, frame)


@given(st.text())
def test_any_text_is_tasks_or_errors(frame: str) -> None:
    only_tasks_or_errors(JSON, frame)
    only_tasks_or_errors(MESSAGEPACK, frame)


@pytest.mark.parametrize(
    ("codec", "decode"),
    [
        pytest.param(JSON, json.loads, id="JSON"),
        pytest.param(MESSAGEPACK, msgspec.msgpack.decode, id="MessagePack"),
    ],
)
def test_huge_names_come_back_short(codec: Codec, decode: Callable[[bytes], Any]) -> None:
    huge = "x" * 1_000_000
    for task in ({"taskType": huge}, {"taskType": "upscale", "taskUUID": huge}):
        (raw,) = codec.split(frame_of(codec, [task]))
        with pytest.raises(ParameterError) as caught:
            raw.parse()
        frame = codec.errors([caught.value.item(raw.task_type, raw.task_uuid, None)])
        assert len(frame) < 2000
        assert decode(frame)["errors"][0]["code"]


def test_an_image_is_not_decoded_with_its_task() -> None:
    raw: RawTask
    (raw,) = JSON.split(json.dumps({"taskType": "imageUpload", "taskUUID": new_uuid(), "image": {"a": []}}))
    task = raw.parse()
    assert isinstance(task, ImageUpload)
    assert bytes(task.image) == b'{"a": []}'
    (raw,) = JSON.split(json.dumps(upscale({"no": "image"})))
    assert isinstance(raw.parse(), Upscale)
