"""Results that go elsewhere, to an `uploadEndpoint`; and which URLs are taken for that and for webhooks."""

import base64

import pytest

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    Account,
    charges,
    connected,
    make_image,
    open_account,
    open_image,
    upscale,
)
from tests.server.support.web import Web

pytestmark = pytest.mark.settings(private_networks=True)


@pytest.fixture
def account(server: EmbeddedServer) -> Account:
    return open_account(server)


def encoded(seed: int = 0) -> str:
    return base64.b64encode(make_image(seed=seed)).decode()


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
async def test_a_private_address_is_refused_as_the_task_is_sent(
    start_server: StartServer, parameter: str
) -> None:
    server = start_server(allowed_private=["10.1.0.0/16"])
    account = open_account(server)
    private = [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "a.localhost", "LOCALHOST."),
        *("10.0.0.1:8080", "192.168.1.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "[fd00::1]"),
    ]
    async with connected(server, key=account.key) as peer:
        for host in private:
            (error,) = await peer.ask(upscale(encoded(), **{parameter: f"http://{host}/hook"}))
            assert (error["parameter"], "is not a public address" in error["message"]) == (parameter, True)
            assert error["code"].startswith("invalid")
        (allowed,) = await peer.ask(upscale("nothing", **{parameter: "http://10.1.2.3/hook"}))
        assert allowed["parameter"] != parameter
    assert charges(server, account.id) == (0, 0)
    assert server.services.runner.count == 0


@pytest.mark.parametrize("parameter", ["webhookURL", "uploadEndpoint"])
@pytest.mark.parametrize(
    "url", ["ftp://example.org/", "nonsense", "", "http://[", "http://host:port/", "https:///path"]
)
async def test_what_is_not_a_web_address_is_refused_before_any_work(
    server: EmbeddedServer, account: Account, parameter: str, url: str
) -> None:
    async with connected(server, key=account.key) as peer:
        (error,) = await peer.ask(upscale(encoded(), **{parameter: url}))
    assert error["parameter"] == parameter
    assert error["code"].startswith("invalid")
    assert charges(server, account.id) == (0, 0)
