"""Each kind of wrong input gives one error that says what is wrong; everything else goes on."""

import base64
import io
import math
import struct
import zlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import httpcore
import msgspec
import pytest
from sqlalchemy import update

from server.protocol.codec import JSON
from server.protocol.text import find_control_character
from server.serving import EmbeddedServer
from server.state import ledger
from server.state.accounts import AccountId, revoke_key
from server.state.tables import images
from tests.server.conftest import StartServer, settings_for
from tests.server.support.harness import (
    KEY,
    Item,
    Peer,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    upscale,
)
from tests.server.support.web import Web

MAX_FRAME = 200_000


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, model_directory: Any) -> Iterator[EmbeddedServer]:
    """A server with narrow limits."""
    limits = {
        "max_input_megapixels": 0.01,
        "max_output_megapixels": 0.04,
        "max_image_bytes": 20_000,
        "max_frame_bytes": MAX_FRAME,
    }
    with EmbeddedServer(
        settings_for(tmp_path_factory.mktemp("strict"), model_directory, **limits)
    ) as running:
        yield running


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has so many pixels, all black."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def noise(size: int) -> bytes:
    """A BMP, as large as its pixels."""
    buffer = io.BytesIO()
    open_image(make_image(size, size)).save(buffer, "BMP")
    return buffer.getvalue()


GOOD = text_of(make_image(16, 12))
PHOTO = make_image(90, 90, "JPEG", seed=5, quality=95)
ABSENT = object()


class Bad(NamedTuple):
    """A wrong task: what it changes in a good one, and the error that it gives."""

    name: str
    changes: Item
    code: str
    parameter: str | None
    status: int = 400

    def task(self) -> Item:
        changed = upscale(GOOD) | self.changes
        return {name: value for name, value in changed.items() if value is not ABSENT}


def image(name: str, value: Any, code: str = "invalidInputsImage", status: int = 400) -> Bad:
    return Bad(name, {"inputs": {"image": value}}, code, "inputs.image", status)


def wrong_types() -> Iterator[Bad]:
    """Each parameter with values of types that it does not have."""
    values: dict[str, Any] = {"number": 12, "text": "x", "list": [1], "object": {"a": 1}, "boolean": True}
    takes = {
        "model": {"text"}, "inputs": {"object"}, "upscaleFactor": {"number"}, "targetMegapixels": {"number"},
        "outputType": {"text"}, "outputFormat": {"text"}, "outputQuality": {"number"},
        "includeCost": {"boolean"}, "includeProgress": {"boolean"}, "keepMetadata": {"boolean"},
        "keepHiddenColors": {"boolean"}, "denoise": {"object"}, "faceRestoration": {"object"},
        "deliveryMethod": {"text"}, "webhookURL": {"text"}, "uploadEndpoint": {"text"},
        "checkNSFW": {"boolean"}, "safety": {"object"}, "settings": {"object"}, "numberResults": {"number"},
        "ttl": {"number"}, "taskUUID": {"text"},
    }  # fmt: skip
    for parameter, right in takes.items():
        code = f"invalid{parameter[0].upper()}{parameter[1:]}"
        for kind in sorted(values.keys() - right):
            yield Bad(f"{parameter} is a {kind}", {parameter: values[kind]}, code, parameter)


BAD = [
    *wrong_types(),
    Bad("unknown task type", {"taskType": "imageInference"}, "unsupportedTaskType", "taskType"),
    Bad("task type of wrong case", {"taskType": "Upscale"}, "unsupportedTaskType", "taskType"),
    Bad("huge task type", {"taskType": "x" * 50_000}, "unsupportedTaskType", "taskType"),
    Bad("authentication without a key", {"taskType": "authentication"}, "missingApiKey", "apiKey", 401),
    Bad("no upload", {"taskType": "imageUpload"}, "missingImage", "image"),
    Bad("empty upload", {"taskType": "imageUpload", "image": ""}, "invalidImage", "image"),
    Bad("unknown operation", {"taskType": "accountManagement", "model": ABSENT, "operation": "steal" * 20},
        "unsupportedOperation", "operation"),
    Bad("no operation", {"taskType": "accountManagement", "model": ABSENT}, "missingOperation", "operation"),
    Bad("negative offset", {"taskType": "modelSearch", "offset": -1}, "invalidOffset", "offset"),
    Bad("huge limit", {"taskType": "modelSearch", "limit": 10**9}, "invalidLimit", "limit"),
    Bad("no target", {"taskType": "cancel"}, "missingTargetTaskUUID", "targetTaskUUID"),
    Bad("broken target", {"taskType": "cancel", "targetTaskUUID": "x"},
        "invalidTargetTaskUUID", "targetTaskUUID"),
    Bad("unknown target", {"taskType": "cancel", "targetTaskUUID": new_uuid()},
        "taskNotFound", "targetTaskUUID", 404),
    Bad("unknown task", {"taskType": "getResponse"}, "taskNotFound", "taskUUID", 404),
    Bad("missing UUID", {"taskUUID": ABSENT}, "missingTaskUUID", "taskUUID"),
    Bad("malformed UUID", {"taskUUID": "my-task"}, "invalidTaskUUID", "taskUUID"),
    Bad("huge UUID", {"taskUUID": "a" * 50_000}, "invalidTaskUUID", "taskUUID"),
    Bad("UUID with a brace", {"taskUUID": "{" + new_uuid() + "}"}, "invalidTaskUUID", "taskUUID"),
    Bad("no input", {"inputs": {}}, "missingInputImage", "inputImage"),
    Bad("two inputs", {"inputImage": GOOD}, "invalidInputImage", "inputImage"),
    Bad("a video", {"inputs": {"image": GOOD, "video": GOOD}}, "unsupportedInputsVideo", "inputs.video"),
    image("unknown image", new_uuid(), "imageNotFound", 404),
    image("broken base64", "!" + GOOD),
    image("broken long base64", GOOD + "?" + GOOD),
    image("empty", ""),
    image("null", None),
    image("a list", [GOOD]),
    image("no image", text_of(b"I am not an image, but long enough to be taken for one." * 4)),
    image("a web page", "data:text/html;base64," + text_of(b"<script>alert(1)</script>" * 9)),
    image("a script", text_of(b"%!PS-Adobe-3.0 EPSF-3.0\n" * 9)),
    image("SVG", text_of(b'<svg xmlns="http://www.w3.org/2000/svg"></svg>')),
    image("truncated PNG header", text_of(make_image()[:20])),
    image("truncated PNG", text_of(make_image(80, 80)[:-40])),
    image("truncated JPEG", text_of(PHOTO[: len(PHOTO) // 2])),
    image("JPEG of a few bytes", text_of(b"\xff\xd8\xff")),
    image("WebP of a few bytes", text_of(b"RIFF\x24\0\0\0WEBPVP8 ")),
    image("bomb", text_of(bomb(65_535, 65_535))),
    image("bomb beyond 32 bits", text_of(bomb(2**31 - 1, 2**31 - 1))),
    image("bomb of one line", text_of(bomb(1_000_000, 1))),
    image("no pixels", text_of(bomb(0, 0))),
    image("less than its size", text_of(bomb(100, 100)[:60])),
    image("too many pixels", text_of(make_image(101, 100))),
    image("too many bytes", text_of(noise(90))),
    Bad("too large a result", {"upscaleFactor": 4, "inputs": {"image": text_of(make_image(60, 60))}},
        "invalidUpscaleFactor", "upscaleFactor"),
    Bad("too large a target", {"upscaleFactor": None, "targetMegapixels": 0.05,
        "inputs": {"image": text_of(make_image(90, 90))}}, "invalidTargetMegapixels", "targetMegapixels"),
    Bad("factor and target", {"targetMegapixels": 0.01}, "invalidTargetMegapixels", "targetMegapixels"),
    Bad("target out of reach", {"upscaleFactor": None, "targetMegapixels": 2},
        "invalidTargetMegapixels", "targetMegapixels"),
    Bad("target smaller than the image", {"upscaleFactor": None, "targetMegapixels": 1e-9},
        "invalidTargetMegapixels", "targetMegapixels"),
    *(Bad(f"factor {factor}", {"upscaleFactor": factor}, "invalidUpscaleFactor", "upscaleFactor")
      for factor in (0, -1, 0.5, 17, 1e300, 10**40, -(10**40))),
    Bad("factor of text", {"upscaleFactor": "2"}, "invalidUpscaleFactor", "upscaleFactor"),
    Bad("quality 100", {"outputQuality": 100}, "invalidOutputQuality", "outputQuality"),
    Bad("quality 19", {"outputQuality": 19}, "invalidOutputQuality", "outputQuality"),
    Bad("quality 95.5", {"outputQuality": 95.5}, "invalidOutputQuality", "outputQuality"),
    Bad("huge quality", {"outputQuality": 10**40}, "invalidOutputQuality", "outputQuality"),
    Bad("format", {"outputFormat": "TIFF"}, "invalidOutputFormat", "outputFormat"),
    Bad("output type", {"outputType": "file"}, "invalidOutputType", "outputType"),
    Bad("output types", {"outputType": ["URL", "file"]}, "invalidOutputType", "outputType"),
    Bad("no output type", {"outputType": []}, "invalidOutputType", "outputType"),
    Bad("model", {"model": "runware:1@1"}, "invalidModel", "model"),
    Bad("huge model", {"model": "m" * 50_000}, "invalidModel", "model"),
    Bad("no steps", {"settings": {"steps": 0}}, "invalidSettingsSteps", "settings.steps"),
    Bad("no such setting", {"settings": {"novelty": 1}}, "unsupportedParameter", "settings.novelty"),
    Bad("steps", {"settings": {"steps": 20}}, "unsupportedSettingsSteps", "settings.steps"),
    Bad("safety checker", {"checkNSFW": True}, "unsupportedCheckNSFW", "checkNSFW"),
    Bad("two results", {"numberResults": 2}, "unsupportedNumberResults", "numberResults"),
    Bad("negative ttl", {"ttl": -5}, "invalidTtl", "ttl"),
    Bad("googol ttl", {"ttl": 10**100}, "invalidTtl", "ttl"),
    Bad("webhook", {"webhookURL": "javascript:alert(1)"}, "invalidWebhookURL", "webhookURL"),
    Bad("upload endpoint", {"uploadEndpoint": "/etc/passwd"}, "invalidUploadEndpoint", "uploadEndpoint"),
    Bad("private upload endpoint", {"uploadEndpoint": "http://127.0.0.1/"}, "invalidUploadEndpoint",
        "uploadEndpoint"),
    *(image(url, url) for url in (
        "http://127.0.0.1/a.png", "http://localhost/a.png", "http://[::1]/", "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/", "http://0x7f000001/", "http://2130706433/",
        "http://[::ffff:127.0.0.1]/", "http://user@127.0.0.1/", "https://127.0.0.1/", "ftp://example.org/a.png",
        "file:///etc/passwd", "gopher://example.org/", "http://", "HTTP:///")),
    image("a URL that cannot be read", "http://[::1", "downloadFailed"),
    image("a host that cannot be", f"http://{'a' * 70}.invalid/", "downloadFailed"),
    image("a huge URL", f"http://example.org/{'a' * 9000}"),
]  # fmt: skip


def check_error(server: EmbeddedServer, item: Item, bad: Bad, task: Item) -> None:
    assert (item["code"], item.get("parameter")) == (bad.code, bad.parameter), item
    for name in ("taskType", "taskUUID"):
        if isinstance(value := task.get(name), str):
            assert item[name] == value[:128]
    assert item["message"]
    assert item["documentation"].startswith(f"{server.url}/docs/errors#")
    check_discreet(server, item)


def check_discreet(server: EmbeddedServer, item: Item) -> None:
    """An error is short, and tells nothing of the inside."""
    text = msgspec.json.encode(item).decode()
    assert len(text) < 3000
    for secret in ("Traceback", ".py", "line ", "site-packages", KEY, str(server.services.settings.data)):
        assert secret not in text


async def still_answers(peer: Peer) -> None:
    """The next frame is the pong: nothing else was sent, and the connection is open."""
    await peer.send({"taskType": "ping", "ping": True})
    assert await peer.receive_item() == {"taskType": "ping", "pong": True}


async def test_only_the_wrong_task_of_a_frame_fails(strict: EmbeddedServer, caplog: Any) -> None:
    """All of the table over one connection, a good task before and one behind each wrong one."""
    async with connected(strict) as peer:
        for bad in BAD:
            before, task, behind = upscale(GOOD), bad.task(), upscale(GOOD)
            await peer.send(before, task, behind)
            results: list[Item] = []
            errors: list[Item] = []
            while len(results) + len(errors) < 3:
                frame = await peer.receive()
                results += frame.get("data", [])
                errors += frame.get("errors", [])
            assert {item["taskUUID"] for item in results} == {before["taskUUID"], behind["taskUUID"]}, (
                bad.name
            )
            check_error(strict, errors[0], bad, task)
            await still_answers(peer)
    assert not [record for record in caplog.records if record.exc_info]


async def post(server: EmbeddedServer, body: bytes, **headers: str) -> tuple[int, Item]:
    async with httpcore.AsyncConnectionPool() as pool:
        response = await pool.request("POST", f"{server.url}/v1", headers=list(headers.items()), content=body)
    return response.status, msgspec.json.decode(response.content)


async def post_tasks(server: EmbeddedServer, *tasks: Item, key: str = KEY) -> tuple[int, Item]:
    return await post(server, msgspec.json.encode(tasks), Authorization=f"Bearer {key}")


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name[:40])
async def test_over_http_the_status_is_that_of_the_error(strict: EmbeddedServer, bad: Bad) -> None:
    task = bad.task()
    status, body = await post_tasks(strict, task)
    (error,) = body.pop("errors")
    assert body == {}
    assert status == bad.status
    if task["taskType"] == "authentication":
        assert error["code"] == bad.code
    else:
        check_error(strict, error, bad, task)


@pytest.mark.parametrize(
    "frame",
    [
        "", "hello", "{", "[{]", "[1,", "12", '"text"', "null", "true", '{"taskType":"ping"} {}',
        '[{"taskType":"ping","ping":NaN}]', '[{"upscaleFactor":Infinity}]', "[" * 50_000, '[{"a":' * 20_000,
        "[" + "1," * 20_000 + "1]", b"\x00\x01\x02", b"\xff\xfe[]", b"\x89PNG\r\n", b"[\xff]",
    ],
    ids=lambda frame: repr(frame[:20]),
)  # fmt: skip
async def test_a_frame_that_is_not_json_of_tasks_is_one_error(
    strict: EmbeddedServer, frame: str | bytes
) -> None:
    async with connected(strict) as peer:
        await peer.socket.send(frame)
        error = await peer.receive_item()
        assert error["code"] == "invalidFrame"
        assert not {"taskUUID", "taskType", "parameter"} & error.keys()
        check_discreet(strict, error)
        await still_answers(peer)
    body = frame.encode() if isinstance(frame, str) else frame
    status, answer = await post(strict, body, Authorization=f"Bearer {KEY}")
    assert (status, answer["errors"][0]["code"]) == (400, "invalidFrame")


async def test_what_is_not_an_object_fails_beside_what_is(strict: EmbeddedServer) -> None:
    async with connected(strict) as peer:
        await peer.socket.send('[7, "x", null, [], {}, {"taskType":5}, {"taskType":"ping"}]')
        items = [await peer.receive_item() for _ in range(7)]
        codes = sorted(item.get("code", "none") for item in items)
        assert codes == [*["invalidTask"] * 4, "invalidTaskType", "missingTaskType", "none"]
        await still_answers(peer)


async def test_the_error_of_an_unknown_task_type_names_the_known_ones(strict: EmbeddedServer) -> None:
    async with connected(strict) as peer:
        (error,) = await peer.ask(upscale(GOOD, taskType="imageInference"))
    assert all(name in error["message"] for name in JSON.decoders)


@pytest.mark.parametrize("name", ["upscaleFactor", "targetMegapixels"])
async def test_messagepack_numbers_that_are_none_are_refused(strict: EmbeddedServer, name: str) -> None:
    async with connected(strict, messagepack=True) as peer:
        for number in (math.nan, math.inf, -math.inf):
            task = upscale(make_image(), **{"upscaleFactor": None, name: number})
            error, good = await peer.ask(task, upscale(make_image()))
            assert error["parameter"] == name
            assert good["imageURL"]
        await peer.socket.send("[]")
        assert (await peer.receive_item())["code"] == "invalidFrame"


async def test_the_same_task_again_is_answered_again_and_charged_once(strict: EmbeddedServer) -> None:
    account = open_account(strict)
    task = upscale(GOOD, includeCost=True)
    async with connected(strict, key=account.key) as peer:
        (first,) = await peer.ask(task)
        (second,) = await peer.ask(task)
        (other_case,) = await peer.ask(task | {"upscaleFactor": 2.0})
        await peer.send(task, task)
        more = [await peer.receive_item(), await peer.receive_item()]
        assert [second, other_case, *more] == [first] * 4
        (conflict,) = await peer.ask(task | {"upscaleFactor": 3})
        assert (conflict["code"], conflict["parameter"]) == ("conflictTaskUUID", "taskUUID")
        (other_name,) = await peer.ask(task | {"taskType": "imageUpscale"})
        assert other_name["code"] == "conflictTaskUUID"
        await still_answers(peer)
    assert charges(strict, account.id)[1] == 1
    status, body = await post_tasks(strict, task | {"upscaleFactor": 3}, key=account.key)
    assert (status, body["errors"][0]["code"]) == (409, "conflictTaskUUID")
    async with connected(strict) as stranger:  # another account may use the UUID too
        (theirs,) = await stranger.ask(task)
    assert theirs["imageUUID"] != first["imageUUID"]


async def test_an_image_of_another_account_is_not_found(strict: EmbeddedServer) -> None:
    async with connected(strict, key=open_account(strict).key) as peer:
        (theirs,) = await peer.ask(upscale(GOOD))
    async with connected(strict) as peer:
        errors = await peer.ask(upscale(theirs["imageUUID"]), upscale(theirs["inputImageUUID"].upper()))
    assert [error["code"] for error in errors] == ["imageNotFound"] * 2


async def test_an_expired_image_is_not_found(strict: EmbeddedServer) -> None:
    async with connected(strict) as peer:
        upload_task = {
            "taskType": "imageUpload",
            "taskUUID": new_uuid(),
            "image": text_of(make_image(seed=9)),
        }
        (upload,) = await peer.ask(upload_task)
        strict.services.database.run_sync(
            lambda connection: connection.execute(
                update(images).where(images.c.uuid == upload["imageUUID"]).values(expires=1.0)
            )
        )
        bad, good = await peer.ask(upscale(upload["imageUUID"]), upscale(GOOD))
        assert (bad["code"], bad["parameter"]) == ("imageNotFound", "inputs.image")
        assert good["imageURL"]
        (again,) = await peer.ask(upload_task)  # the same UUID, alive again
        assert again["imageUUID"] == upload["imageUUID"]
        (result,) = await peer.ask(upscale(upload["imageUUID"]))
        assert result["inputImageUUID"] == upload["imageUUID"]


async def test_a_task_that_is_not_covered_is_refused_and_costs_nothing(strict: EmbeddedServer) -> None:
    small = upscale(GOOD)  # 32 × 24 pixels: 1 microdollar
    large = upscale(text_of(make_image(70, 70)))  # 140 × 140 pixels: 2 microdollars
    account = open_account(strict, Decimal("0.000001"))
    async with connected(strict, key=account.key) as peer:
        refused, done = await peer.ask(large, small)
        assert (refused["code"], refused["taskUUID"]) == ("insufficientCredits", large["taskUUID"])
        assert done["imageURL"]
        (broke,) = await peer.ask(upscale(GOOD))
        assert broke["code"] == "insufficientCredits"
        await still_answers(peer)
    assert charges(strict, account.id) == (1000, 1)
    status, body = await post_tasks(strict, upscale(GOOD), key=account.key)
    assert (status, body["errors"][0]["code"]) == (402, "insufficientCredits")
    strict.services.database.run_sync(ledger.deposit, AccountId(account.id), 10_000, 0.0)
    status, body = await post_tasks(strict, large, key=account.key)  # the very task that failed
    assert status == 200


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (upscale(GOOD), "missingApiKey"),
        ({"taskType": "ping", "ping": True, "taskUUID": new_uuid()}, "missingApiKey"),
        ({"taskType": "nonsense"}, "missingTaskUUID"),
        *(
            ({"taskType": "authentication", "apiKey": key}, "invalidApiKey")
            for key in ("tw_wrong", "", KEY + " ", KEY[:-1], "\x00", "é" * 1000, 5)
        ),
        *(
            (
                {"taskType": "authentication", "apiKey": KEY, "connectionSessionUUID": session},
                "invalidConnectionSessionUUID",
            )
            for session in ("", "x" * 1000, "a b", "\x00")
        ),
    ],
)
async def test_a_first_task_that_is_no_valid_authentication_is_the_last(
    strict: EmbeddedServer, task: Item, code: str
) -> None:
    async with connected(strict, key=None) as peer:
        await peer.send(task)
        error = await peer.receive_item()
        assert error["code"] == code
        assert error.get("taskUUID") == task.get("taskUUID")
        assert "tw_wrong" not in str(error)
        await peer.socket.wait_closed()
        assert peer.socket.close_code == 1008


async def test_a_key_that_is_no_text_is_an_error(strict: EmbeddedServer) -> None:
    async with connected(strict, key=None) as peer:
        await peer.socket.send('[{"taskType":"authentication","apiKey":"\\ud800"}]')
        assert "code" in await peer.receive_item()


async def test_a_wrong_key_later_ends_nothing(strict: EmbeddedServer) -> None:
    async with connected(strict) as peer:
        assert (await peer.authenticate("wrong"))["code"] == "invalidApiKey"
        (result,) = await peer.ask(upscale(GOOD))
        assert result["imageURL"]


async def test_a_revoked_key_is_not_valid(strict: EmbeddedServer) -> None:
    account = open_account(strict)
    async with connected(strict, key=account.key) as peer:
        await still_answers(peer)
    strict.services.database.run_sync(revoke_key, account.key)
    async with connected(strict, key=None) as peer:
        assert (await peer.authenticate(account.key))["code"] == "invalidApiKey"
    status, body = await post_tasks(strict, upscale(GOOD), key=account.key)
    assert (status, body["errors"][0]["code"]) == (401, "invalidApiKey")


async def test_http_needs_a_key_and_a_body_of_allowed_size(strict: EmbeddedServer) -> None:
    tasks = [upscale(GOOD), upscale(GOOD)]
    body = msgspec.json.encode(tasks)
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}, {"Authorization": KEY}):
        status, answer = await post(strict, body, **headers)
        assert status == 401
        assert [error["code"] for error in answer["errors"]] == ["missingApiKey"] * 2
        assert [error["taskUUID"] for error in answer["errors"]] == [task["taskUUID"] for task in tasks]
    status, answer = await post(strict, b"[]")
    assert (status, answer["errors"][0]["code"]) == (401, "missingApiKey")
    status, answer = await post(strict, b" " * (MAX_FRAME + 1), Authorization=f"Bearer {KEY}")
    assert (status, answer["errors"][0]["code"]) == (413, "invalidFrameSize")
    misplaced = {"taskType": "authentication", "apiKey": KEY}
    status, answer = await post_tasks(strict, {"taskType": "ping"}, misplaced)
    assert answer["errors"][0]["code"] == "invalidTaskType"
    status, answer = await post(strict, msgspec.json.encode([misplaced, {"taskType": "ping"}]))
    assert (status, answer) == (200, {"data": [{"taskType": "ping", "pong": True}]})


async def test_misspelt_parameters_are_refused_and_unknown_ones_are_named_with_the_result(
    strict: EmbeddedServer,
) -> None:
    async with connected(strict) as peer:
        misspelt, unknown, right = await peer.ask(
            upscale(GOOD, outputqualty=50), upscale(GOOD, somethingNew=1), upscale(GOOD, routing={})
        )
    assert (misspelt["code"], misspelt["parameter"]) == ("unsupportedParameter", "outputqualty")
    assert unknown["warnings"] == ["unknown parameter 'somethingNew' was ignored"]
    assert "warnings" not in right


async def test_downloads_that_fail_are_errors_of_their_tasks(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True, fetch_timeout=2, max_image_bytes=20_000)
    data = make_image()
    web.files |= {"/good.png": data, "/large.png": data + b"\0" * 20_000, "/page.png": b"<html>" * 99}
    slow = web.hold("/slow.png", data)
    async with connected(server) as peer:
        good, missing, large, page, late, unreachable = await peer.ask(
            upscale(f"{web.url}/good.png"),
            upscale(f"{web.url}/missing.png"),
            upscale(f"{web.url}/large.png"),
            upscale(f"{web.url}/page.png"),
            upscale(slow),
            upscale("http://127.0.0.1:1/"),
        )
        await still_answers(peer)
    assert good["imageURL"]
    for item, code, words in (
        (missing, "downloadFailed", "status 404"),
        (large, "downloadFailed", "larger than 20000 bytes"),
        (page, "invalidInputsImage", "Not an image"),
        (late, "downloadFailed", "within 2 seconds"),
        (unreachable, "downloadFailed", "cannot be reached"),
    ):
        assert (item["code"], item["parameter"]) == (code, "inputs.image")
        assert words in item["message"]
        check_discreet(server, item)


async def test_too_many_tasks_are_refused_over_http_with_429(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True, max_tasks_in_flight=1)
    url = web.hold("/held.png", make_image())
    async with connected(server) as peer:
        await peer.send(upscale(url))
        await web.receive()
        status, body = await post_tasks(server, upscale(GOOD))
        web.release("/held.png")
        assert "imageURL" in await peer.receive_item()
    assert (status, body["errors"][0]["code"]) == (429, "taskRateLimit")


@pytest.mark.parametrize("character", ["\0", "\x1f", "\x7f", "\x85"])
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("webhookURL", "http://x/{}"),
        ("uploadEndpoint", "http://x/{}"),
        ("model", "runware:504{}@1"),
        ("inputs.image", "http://x/{}"),
        ("settings.positivePrompt", "a cat{}"),
    ],
)
async def test_control_characters_are_refused(
    server: EmbeddedServer, parameter: str, value: str, character: str
) -> None:
    task = upscale("http://example.com/image.png")
    outer, _, inner = parameter.partition(".")
    text = value.format(character)
    task[outer] = {inner: text} if inner else text
    async with connected(server) as peer, connected(server, messagepack=True) as binary:
        for one in (peer, binary):
            (error,) = await one.ask(task)
            assert error["parameter"] == parameter
            assert f"U+{ord(character):04X}" in error["message"]


def test_prompts_may_have_several_lines() -> None:
    texts = {"positivePrompt": "a cat\n\ton a mat\r\n", "negativePrompt": "a dog"}
    assert find_control_character({"settings": texts}) is None
    assert find_control_character({"settings": {"scheduler": "a\n"}}) == ("settings.scheduler", "\n")
    assert find_control_character({"list": [{"na\0me": 1}]}) == ("list", "\0")
