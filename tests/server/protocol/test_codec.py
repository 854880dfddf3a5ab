"""Frames from anyone: they become tasks or errors about them, whatever they hold."""

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.protocol.codec import JSON, MESSAGEPACK, Codec, RawTask
from server.protocol.errors import FrameError, ParameterError
from server.protocol.requests import TASK_CLASSES, ImageUpload, Ping, Task, Upscale
from server.protocol.sources import InlineImage, parse_source
from tests.server.support.harness import new_uuid, upscale

CODECS = [pytest.param(JSON, id="JSON"), pytest.param(MESSAGEPACK, id="MessagePack")]
UUID = "550e8400-e29b-41d4-a716-446655440000"


def frame_of(codec: Codec, value: Any) -> bytes:
    return codec.encode(value)


def parsed(codec: Codec, frame: bytes | str) -> list[Task | ParameterError]:
    """What a connection makes of a frame: all of the decoding that there is."""
    outcomes: list[Task | ParameterError] = []
    for raw in codec.split(frame):
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
    if codec is JSON:
        padding = b" " * 70_000
        assert parsed(codec, padding + frame_of(codec, ping) + padding) == [Ping()]
        assert parsed(codec, b"[" + frame_of(codec, ping) + padding + b"]") == [Ping()]


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
        (b"[" * 60_000, "nested too deeply"),
        (b'[{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}]", "nested too deeply"),
        (b"[" + b"1," * 2**14 + b"1]", "length <= 16384"),
        (b"[" + b'"",' * 2**17 + b"1]", "more than 131072 values"),
        (b"[" + b"1," * 2**17 + b"1]", "in a row that are no string"),
        (b"[" + b'"%b",' % (b"x" * 60_000) * 300 + b"1]", "bytes beside its large images"),
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
        ({"taskType": "x" * 1_000_000}, "invalidTaskType", "taskType"),
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
@pytest.mark.parametrize(
    ("parameters", "wrong", "right"),
    [
        ({"upscalFactor": 2}, "upscalFactor", "upscaleFactor"),
        ({"UpscaleFactor": 2}, "UpscaleFactor", "upscaleFactor"),
        ({"upscale_factor": 2}, "upscale_factor", "upscaleFactor"),
        ({"inputs": {"imgae": "x"}}, "inputs.imgae", "inputs.image"),
        ({"settings": {"step": 3}}, "settings.step", "settings.steps"),
        ({"safety": {"checkcontent": True}}, "safety.checkcontent", "safety.checkContent"),
    ],
)
def test_a_misspelt_name_is_an_error_that_names_the_right_one(
    codec: Codec, parameters: dict[str, Any], wrong: str, right: str
) -> None:
    error = fails(codec, upscale("x") | parameters)
    assert (error.code, error.parameter) == ("unsupportedParameter", wrong)
    assert error.message == f"there is no parameter {wrong!r}; did you mean {right!r}?"


@pytest.mark.parametrize("codec", CODECS)
def test_other_unknown_names_are_ignored_with_a_warning(codec: Codec) -> None:
    def warnings(**fields: Any) -> list[str]:
        (raw,) = codec.split(frame_of(codec, upscale("x") | fields))
        raw.parse()
        return raw.warnings()

    assert warnings(somethingElse=1, inputs={"image": "x", "width": 2}) == [
        "unknown parameter 'somethingElse' was ignored",
        "unknown parameter 'inputs.width' was ignored",
    ]
    assert warnings(steps=3) == ["unknown parameter 'steps' was ignored; did you mean 'settings.steps'?"]
    assert warnings(routing={}, providerSettings={}, customTaskUUID="x") == [], "Runware's SDKs send these"


@pytest.mark.parametrize("codec", CODECS)
def test_names_that_are_many_or_long_are_refused(codec: Codec) -> None:
    assert "17 unknown" in fails(codec, upscale("x") | {f"name{n}": 1 for n in range(17)}).message
    assert "few fields" in fails(codec, upscale("x") | {f"name{n}": 1 for n in range(300)}).message
    for name in ("outputType" * 1000, "x" * 100_000):
        assert "longer than 128 characters" in fails(codec, upscale("x") | {name: 1}).message


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("task", "parameter"),
    [
        ({"taskType": "modelSearch", "search": "x" * 257}, "search"),
        ({"taskType": "modelSearch", "architecture": "x" * 129}, "architecture"),
        ({"taskType": "accountManagement", "operation": "x" * 129}, "operation"),
        ({"taskType": "authentication", "apiKey": "x" * 257}, "apiKey"),
        (upscale("x", model="x" * 129), "model"),
        (upscale("x", webhookURL="http://a/" + "x" * 8192), "webhookURL"),
        (upscale("x", uploadEndpoint="http://a/" + "x" * 8192), "uploadEndpoint"),
        (upscale("x", outputType=["URL"] * 9), "outputType"),
        (upscale("x", settings={"positivePrompt": "x" * 3001}), "settings.positivePrompt"),
        (upscale("x", settings={"positivePrompt": "x" * 100_000}), "settings.positivePrompt"),
        (upscale("x", model="é" * 100_000), "model"),
        (upscale("x", safety={"mode": "x" * 100_000}), "safety.mode"),
        (upscale("x", somethingElse="x" * 100_000), "somethingElse"),
        ({"taskType": "getResponse", "taskUUID": "x" * 100_000}, "taskUUID"),
        ({"taskType": "x" * 100_000}, "taskType"),
        (upscale(["x" * 100_000]), "inputs.image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_parameter_but_an_image_has_a_longest_length(
    codec: Codec, task: dict[str, Any], parameter: str
) -> None:
    (raw,) = codec.split(frame_of(codec, {"taskUUID": UUID} | task))

    def read() -> None:
        parsed_task = raw.parse()
        assert isinstance(parsed_task, Upscale)
        parse_source(msgspec.structs.asdict(parsed_task.inputs)["image"], "inputs.image", codec)

    with pytest.raises(ParameterError) as caught:
        read()
    assert caught.value.parameter == parameter
    item = caught.value.item(raw.task_type, raw.task_uuid, None)
    assert len(codec.errors([item])) < 2000
    assert b"aside-" not in codec.errors([item])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("form", ["inputImage", "inputs", "image"])
def test_long_images_come_through_whole(codec: Codec, form: str) -> None:
    images = [bytes(range(256)) * size for size in (1, 300, 5000)]
    texts = [base64.b64encode(image).decode() for image in images]
    texts[2] = texts[2].replace("/", "\\/") if codec is JSON else texts[2]
    tasks = [
        {"taskType": "imageUpload", "taskUUID": UUID, "image": text}
        if form == "image"
        else {
            "taskType": "upscale",
            "taskUUID": UUID,
            **({"inputs": {"image": text}} if form == "inputs" else {form: text}),
        }
        for text in texts
    ]
    frame = frame_of(codec, tasks)
    if codec is JSON:
        frame = frame.replace(b"\\\\/", b"\\/")
    for task, image in zip(parsed(codec, frame), images, strict=True):
        assert isinstance(task, Upscale | ImageUpload)
        raw = task.image if isinstance(task, ImageUpload) else task.input_image
        if form == "inputs" and isinstance(task, Upscale):
            raw = task.inputs.image
        assert isinstance(raw, msgspec.Raw)
        assert parse_source(raw, "image", codec) == InlineImage(image)


@pytest.mark.parametrize("codec", CODECS)
def test_a_frame_has_a_bounded_number_of_values(codec: Codec) -> None:
    for value in ([0] * 140_000, [{}] * 140_000, ["x"] * 140_000, [[0] * 400] * 400):
        with pytest.raises(FrameError, match=r"more than 131072 values|in a row that are no string"):
            codec.split(frame_of(codec, [upscale("x", somethingElse=value)]))
    few = [upscale("x", ttl=60, webhookURL="http://a/", includeCost=True) for _ in range(1000)]
    assert len(list(codec.split(frame_of(codec, few)))) == 1000


@given(st.binary(max_size=300), st.integers(0, 7))
def test_values_are_counted_wherever_a_frame_ends(frame: bytes, length: int) -> None:
    """Numbers, strings and extensions of all forms, whole and cut short, before too many values."""
    plain = {"a": [1, -1, 2**40, 1.5, None, True, "x" * 40, "x" * 300, b"y" * 300, {"b": [0] * 20}]}
    whole = msgspec.msgpack.encode([plain, msgspec.msgpack.Ext(5, b"z" * (1 << length)), [0] * 140_000])
    with pytest.raises(FrameError, match="more than 131072 values"):
        MESSAGEPACK.split(whole)
    only_tasks_or_errors(MESSAGEPACK, whole[: len(whole) // 2] + frame + bytes(140_000))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
names = sorted({"taskType", *(name for task in TASK_CLASSES for name in task.__struct_encode_fields__)})
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
