"""Results that go elsewhere, to an `uploadEndpoint`; and which URLs are taken for that and for webhooks."""

import asyncio
import base64

import pytest

from server.serving import EmbeddedServer
from server.state.audit import audit
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    Account,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_image,
    upscale,
)
from tests.server.support.web import Web, running_web

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


async def test_a_result_whose_upload_fails_is_kept_and_charged_once(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    web.statuses.append(403)
    task = upscale(encoded(), uploadEndpoint=f"{web.url}/bucket/result", outputType="base64Data")
    async with connected(server, key=account.key) as peer:
        (error,) = await peer.ask(task)
        assert (error["code"], error["parameter"]) == ("uploadFailed", "uploadEndpoint")
        assert "403" in error["message"]
        assert "the result is kept and costs" in error["message"]
        sent = (await web.receive()).body
        assert await peer.ask(task) == [error], "it is the outcome, however often it is asked for"
        (kept,) = await peer.ask({"taskType": "getResponse", "taskUUID": task["taskUUID"]})
        assert (kept["status"], kept["warnings"]) == ("success", [error["message"]])
        assert base64.b64decode(kept["imageBase64Data"]) == sent
    assert charges(server, account.id) == (round(error["cost"] * 1e9), 1)
    assert server.services.database.snapshot(audit).mistakes == []
    assert web.waiting() == 0, "it is not uploaded again"


async def test_an_upload_that_is_cancelled_while_it_hangs_is_charged_and_its_result_kept(
    server: EmbeddedServer, account: Account, web: Web
) -> None:
    task = upscale(encoded(), uploadEndpoint=web.hold("/bucket/result"))
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        assert (await web.receive()).body, "it has all of it"
        cancel = {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": task["taskUUID"]}
        await peer.send(cancel)
        items = {item["taskUUID"]: item for item in [await peer.receive_item(), await peer.receive_item()]}
        error = items[task["taskUUID"]]
        assert error["code"] == "taskCancelled"
        (kept,) = await peer.ask({"taskType": "getResponse", "taskUUID": task["taskUUID"]})
        assert "imageURL" in kept
    assert charges(server, account.id) == (round(error["cost"] * 1e9), 1)
    assert server.services.database.snapshot(audit).mistakes == []


async def test_what_was_being_uploaded_at_a_stop_is_uploaded_after_the_next_start_and_charged_once(
    start_server: StartServer, web: Web
) -> None:
    settings = {"private_networks": True, "drain_timeout": 0.01}
    server = start_server(**settings)
    account = open_account(server)
    task = upscale(encoded(), uploadEndpoint=web.hold("/bucket/result"))
    async with connected(server, key=account.key) as peer:
        await peer.send(task)
        first = await web.receive()
        await asyncio.to_thread(server.stop)
    server = start_server(**settings)
    assert (await web.receive()).body == first.body
    web.release("/bucket/result")
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in await peer.finished(task["taskUUID"])
    assert charges(server, account.id)[1] == 1
    assert server.services.database.snapshot(audit).mistakes == []


@pytest.mark.parametrize("parameter", ["webhookURL", "uploadEndpoint"])
async def test_a_host_that_takes_no_connections_is_found_before_anything_is_done(
    server: EmbeddedServer, account: Account, web: Web, parameter: str
) -> None:
    async with connected(server, key=account.key) as peer:
        for url in ("http://127.0.0.1:9/result", f"https{web.url.removeprefix('http')}/result"):
            (error,) = await peer.ask(upscale(encoded(), **{parameter: url}))
            assert (error["parameter"], error["code"]) == (
                parameter,
                "invalidWebhookURL" if parameter == "webhookURL" else "invalidUploadEndpoint",
            )
            assert "127.0.0.1 cannot be reached" in error["message"]
    assert charges(server, account.id) == (0, 0)
    assert server.services.runner.count == 0


async def test_a_task_that_is_sent_again_gets_its_answer_though_its_host_is_gone(
    server: EmbeddedServer, account: Account
) -> None:
    async with connected(server, key=account.key) as peer:
        with running_web() as gone:
            task = upscale(encoded(), uploadEndpoint=f"{gone.url}/result")
            (result,) = await peer.ask(task)
        assert await peer.ask(task) == [result]


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
