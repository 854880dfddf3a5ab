"""The client has its own names for the wire, and needs nothing of the server."""

import subprocess
import sys

import msgspec
import pytest
from msgspec import Struct

import tilewire
from server.protocol import names, replies, requests
from server.protocol.codec import SUBPROTOCOL
from server.protocol.error_codes import CODES
from server.protocol.errors import ErrorItem
from tilewire import errors, events, listings, wire


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (wire.ErrorItem, ErrorItem),
        (events.Upload, replies.ImageUploadResult),
        (events.Result, replies.UpscaleResult),
        (events.WireProgress, replies.Progress),
        (events.WireTile, replies.Tile),
        (listings.ModelPage, replies.ModelSearchResult),
        (listings.Model, replies.ModelItem),
        (listings.Account, replies.AccountManagementResult),
        (listings.Balance, replies.Balance),
        (listings.ApiKey, replies.KeyItem),
        (listings.Usage, replies.Usage),
    ],
)
def test_the_fields_of_replies_have_the_servers_names(ours: type[Struct], theirs: type[Struct]) -> None:
    """What the server always sends the client may need; what it need not send the client can do without."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(theirs)}
    for field in msgspec.structs.fields(ours):
        assert field.encode_name in fields, field.name
        if field.required and ours is not events.WireTile:  # whose bytes come in MessagePack only
            assert fields[field.encode_name].required or field.encode_name == "taskUUID", field.name


def test_options_have_the_names_of_the_tasks_parameters() -> None:
    known = {field.encode_name for field in msgspec.structs.fields(requests.Upscale)}
    spelt = {wire.wire_name(name) for name in tilewire.Options.__annotations__}
    turned = {"factor", "faceVisibility", "faceWeight", "includeImage", "nsfw", "restoreFaces"}
    assert spelt - known == turned, "what the client turns into other parameters"
    assert wire.SUBPROTOCOL == SUBPROTOCOL
    assert all(
        wire.wire_name(name) == names.wire_name(name)
        for name in (*wire.Head.__struct_fields__, "image_data_uri")
    )


def test_every_code_of_the_server_has_its_exception() -> None:
    kinds = {
        401: errors.AuthenticationFailedError,
        402: errors.InsufficientCreditsError,
        403: errors.AuthenticationFailedError,
        404: errors.NotFoundError,
        429: errors.BusyError,
        503: errors.BusyError,
    }
    for code, meaning in CODES.items():
        expected = kinds.get(meaning.status, errors.TaskFailedError)
        if code == "taskCancelled":
            expected = errors.TaskCancelledError
        if code == "frameDropped":
            expected = errors.FrameDroppedError
        assert type(errors.failure(wire.ErrorItem(code=code))) is expected, code


HEAVY = {
    "PIL",
    "engines",
    "isal",
    "numpy",
    "onnx",
    "onnx_models",
    "onnxruntime",
    "prometheus_client",
    "sqlalchemy",
}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("tilewire", HEAVY | {"server"}), ("server.client", HEAVY), ("tilewire.__main__", HEAVY)],
)
def test_importing_the_client_loads_no_heavy_library(module: str, heavy: set[str]) -> None:
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.check_output([sys.executable, "-W", "ignore", "-c", script], encoding="utf-8").split()
    assert not heavy.intersection(loaded)


def test_the_former_place_of_the_client_still_works_and_says_that_it_moved() -> None:
    script = "import tilewire, server.client; print(server.client.Tilewire is tilewire.Tilewire)"
    run = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], capture_output=True, encoding="utf-8", check=True
    )
    assert run.stdout.strip() == "True"
    assert "DeprecationWarning: server.client has moved: use `from tilewire import Tilewire`" in run.stderr


def test_a_task_that_waits_has_its_place_in_the_queue() -> None:
    news = {"taskUUID": "u", "status": "processing", "progress": 0, "queuePosition": 2}
    waiting = events.decode_event(msgspec.Raw(msgspec.msgpack.encode(news)))
    del news["queuePosition"]
    running = events.decode_event(msgspec.Raw(msgspec.msgpack.encode(news | {"progress": 50})))
    assert waiting == tilewire.Progress(task_uuid="u", share=0, queue_position=2)
    assert running == tilewire.Progress(task_uuid="u", share=0.5)
