"""Results that go elsewhere: `webhookURL` and `uploadEndpoint`."""

import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from server.addresses import Reachable
from server.fetch import WebClient
from server.serving import EmbeddedServer
from server.webhooks import DELAYS, call_webhook
from tests.server.conftest import settings_for
from tests.server.harness import (
    Account,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    upscale,
)
from tests.server.web import Web

AT_ONCE = (0.0,) * len(DELAYS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[EmbeddedServer]:
    settings = settings_for(tmp_path_factory.mktemp("server"), model_directory, private_networks=True)
    with EmbeddedServer(settings) as running:
        yield running


@pytest.fixture
def account(server: EmbeddedServer) -> Account:
    return open_account(server)


@pytest.fixture
async def client() -> AsyncIterator[WebClient]:
    client = WebClient(timeout=5, reachable=Reachable(all_private=True))
    yield client
    await client.close()


def encoded(seed: int = 0) -> str:
    return base64.b64encode(make_image(seed=seed)).decode()


async def test_a_webhook_gets_the_frame_that_the_socket_gets(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    task = upscale(encoded(), webhookURL=f"{web.url}/hook?x=1", outputType="base64Data", includeCost=True)
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        frame = await peer.receive()
    request = await web.receive()
    assert (request.method, request.path) == ("POST", "/hook?x=1")
    assert request.headers["content-type"] == "application/json"
    assert msgspec.json.decode(request.body) == frame
    assert frame["data"][0]["cost"] == 0.000001


async def test_a_webhook_is_told_of_failures_too(server: EmbeddedServer, account: Account, web: Web) -> None:
    task = upscale(f"{web.url}/nothing", webhookURL=f"{web.url}/hook")
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        frame = await peer.receive()
    assert (await web.receive()).path == "/nothing"
    request = await web.receive()
    assert msgspec.json.decode(request.body) == frame
    assert [error["taskUUID"] for error in frame["errors"]] == [task["taskUUID"]]


async def test_a_webhook_of_a_messagepack_session_gets_json(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    task = upscale(make_image(), webhookURL=f"{web.url}/hook", outputType="base64Data")
    async with connected(server, key=account.key, messagepack=True) as peer:
        (result,) = await peer.ask(task)
    (told,) = msgspec.json.decode((await web.receive()).body)["data"]
    assert base64.b64decode(told.pop("imageBase64Data")) == result.pop("imageBase64Data")
    assert told == result


async def test_a_webhook_that_fails_once_is_called_again(client: WebClient, web: Web) -> None:
    web.statuses.extend([500, 503])
    assert await call_webhook(client, f"{web.url}/hook", b'{"data":[]}', new_uuid(), AT_ONCE)
    calls = [await web.receive() for _ in range(3)]
    assert [call.body for call in calls] == [b'{"data":[]}'] * 3
    assert web.waiting() == 0


async def test_a_webhook_that_always_fails_is_given_up(client: WebClient, web: Web) -> None:
    web.statuses.extend([500] * 100)
    assert not await call_webhook(client, f"{web.url}/hook", b"{}", new_uuid(), AT_ONCE)
    assert web.waiting() == len(DELAYS)


async def test_a_webhook_on_a_private_address_is_not_tried_twice(web: Web) -> None:
    client = WebClient(timeout=5)
    try:
        assert not await call_webhook(client, f"{web.url}/hook", b"{}", new_uuid(), (0.0, 1000.0))
    finally:
        await client.close()
    assert web.waiting() == 0


def test_webhooks_are_tried_at_once_and_then_with_growing_pauses() -> None:
    assert DELAYS[0] == 0
    assert list(DELAYS) == sorted(DELAYS)
    assert sum(DELAYS) > 30


async def test_a_failing_webhook_keeps_nobody_from_their_result(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    web.statuses.append(500)
    async with connected(server, key=account.key) as peer:
        (result,) = await peer.ask(upscale(encoded(), webhookURL=f"{web.url}/hook"))
    assert "imageURL" in result
    assert charges(server, account.id)[1] == 1


@pytest.mark.parametrize(
    ("image_format", "media_type"), [("PNG", "image/png"), ("JPG", "image/jpeg"), ("WEBP", "image/webp")]
)
async def test_an_upload_endpoint_gets_the_image(
    server: EmbeddedServer, account: Account, web: Web, image_format: str, media_type: str
) -> None:
    task = upscale(
        encoded(),
        uploadEndpoint=f"{web.url}/bucket/result?signature=abc",
        outputFormat=image_format,
        outputType=["URL", "base64Data"],
    )
    async with connected(server, key=account.key) as peer:
        (result,) = await peer.ask(task)
    request = await web.receive()
    assert (request.method, request.path) == ("PUT", "/bucket/result?signature=abc")
    assert request.headers["content-type"] == media_type
    assert request.headers["content-length"] == str(len(request.body))
    assert request.body == base64.b64decode(result["imageBase64Data"])
    assert open_image(request.body).size == (48, 32)
    assert "imageURL" in result


async def test_a_failing_upload_endpoint_fails_the_task_and_nothing_is_charged(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    web.statuses.append(403)
    task = upscale(encoded(), uploadEndpoint=f"{web.url}/bucket/result")
    async with connected(server, key=account.key) as peer:
        (error,) = await peer.ask(task)
        assert (error["code"], error["parameter"]) == ("uploadFailed", "uploadEndpoint")
        assert "403" in error["message"]
        assert charges(server, account.id) == (0, 0)
        (result,) = await peer.ask(task)
        assert "imageURL" in result, "the same task may be sent again"
    assert charges(server, account.id)[1] == 1


async def test_an_upload_endpoint_that_nobody_serves_fails_the_task(
    server: EmbeddedServer, account: Account
) -> None:
    async with connected(server, key=account.key) as peer:
        (error,) = await peer.ask(upscale(encoded(), uploadEndpoint="http://127.0.0.1:9/result"))
    assert error["code"] == "uploadFailed"
    assert charges(server, account.id) == (0, 0)


@pytest.mark.parametrize("parameter", ["webhookURL", "uploadEndpoint"])
@pytest.mark.parametrize("url", ["ftp://example.org/", "nonsense", ""])
async def test_what_is_not_a_web_address_is_refused_before_any_work(
    server: EmbeddedServer, account: Account, parameter: str, url: str
) -> None:
    async with connected(server, key=account.key) as peer:
        (error,) = await peer.ask(upscale(encoded(), **{parameter: url}))
    assert error["parameter"] == parameter
    assert error["code"].startswith("invalid")
    assert charges(server, account.id) == (0, 0)
