"""Limits of accounts and addresses: who goes over one is told so, and others notice nothing."""

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpcore
import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    KEY,
    PATIENCE,
    Address,
    Item,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_socket,
    upscale,
)
from tests.server.support.web import Web

SEARCH = {"taskType": "modelSearch"}
PING = {"taskType": "ping", "ping": True}


def search() -> Item:
    return SEARCH | {"taskUUID": new_uuid()}


def upload(image: Any) -> Item:
    return {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image}


async def post(server: Address, *tasks: Item, key: str = KEY) -> tuple[int, dict[str, str], Any]:
    """The status, headers and content of an answer."""
    async with httpcore.AsyncConnectionPool() as pool:
        response = await pool.request(
            "POST",
            f"{server.url}/v1",
            headers={"Authorization": f"Bearer {key}"},
            content=msgspec.json.encode(tasks),
        )
    headers = {name.decode().lower(): value.decode() for name, value in response.headers}
    return response.status, headers, msgspec.json.decode(response.content)


async def refused_at_the_handshake(server: Address, **options: Any) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refusal:
        await open_socket(server, **options)
    return refusal.value


def stop_clock(server: EmbeddedServer) -> Callable[[float], None]:
    """The limits of rates see no time pass, but what the function that this returns lets pass."""
    now = [0.0]
    server.services.edge._clock = lambda: now[0]

    def let_pass(seconds: float) -> None:
        now[0] += seconds

    return let_pass


async def test_tasks_over_the_rate_are_refused_until_the_time_that_the_error_tells(
    start_server: StartServer,
) -> None:
    server = start_server(requests_per_second=2, request_burst=5)
    let_pass = stop_clock(server)
    async with connected(server) as peer, connected(server, key=open_account(server).key) as other:
        replies = await peer.ask(*[search() for _ in range(9)])
        refused = [reply for reply in replies if "code" in reply]
        assert len(refused) == 4
        assert {reply["code"] for reply in refused} == {"requestRateLimit"}
        assert "2 tasks per second of one account, 5 at once" in refused[0]["message"]
        (reply,) = await other.ask(search())
        assert "code" not in reply
        let_pass(refused[0]["retryAfter"])
        (reply,) = await peer.ask(search())
        assert "code" not in reply


@pytest.mark.parametrize("of", ["account", "address"])
async def test_by_post_the_answer_over_the_rate_is_429_with_retry_after(
    start_server: StartServer, of: str
) -> None:
    server = start_server(requests_per_second=0.1, request_burst=2)
    stop_clock(server)
    if of == "account":
        assert (await post(server, search(), search()))[0] == 200
        refused = search()
        status, headers, content = await post(server, refused)
    else:
        assert [(await post(server))[0] for _ in range(2)] == [200, 200]
        status, headers, content = await post(server)
    (error,) = content["errors"]
    assert (status, error["code"]) == (429, "requestRateLimit")
    assert f"of one {of}, 2 at once" in error["message"]
    assert error["retryAfter"] == int(headers["retry-after"]) == 10
    assert of == "address" or error["taskUUID"] == refused["taskUUID"]


async def test_uploads_have_a_quota_however_they_come(start_server: StartServer, web: Web) -> None:
    picture = make_image(40, 30)
    web.files["/a.png"] = picture
    server = start_server(upload_bytes_per_hour=len(picture) + 10, private_networks=True)
    stop_clock(server)
    inline = base64.b64encode(picture).decode()
    for first in (upload(inline), upscale(inline), upload(f"{web.url}/a.png")):
        account = open_account(server)
        status, _, _ = await post(server, first, key=account.key)
        assert status == 200
        for second in (upload(inline), upscale(inline)):
            status, headers, content = await post(server, second, key=account.key)
            (error,) = content["errors"]
            assert (status, error["code"]) == (429, "uploadQuotaExceeded")
            assert f"{len(picture) + 10} bytes" in error["message"]
            assert error["taskUUID"] == second["taskUUID"]
            assert 1 <= error["retryAfter"] == int(headers["retry-after"]) <= 3600
        status, _, _ = await post(server, search(), key=account.key)
        assert status == 200


async def test_connections_that_do_not_authenticate_are_limited_by_address(
    start_server: StartServer,
) -> None:
    server = start_server(max_unauthenticated=3)
    async with connected(server) as peer, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(server, key=None)) for _ in range(3)]
        refusal = await refused_at_the_handshake(server)
        assert refusal.response.status_code == 429
        assert refusal.response.headers["retry-after"] == "1"
        (error,) = msgspec.json.decode(refusal.response.body or b"")["errors"]
        assert error["code"] == "connectionRateLimit"
        assert "3 connections" in error["message"]
        await peer.nothing_more()
        await silent[0].authenticate()
        async with connected(server) as another:  # those that have authenticated do not count
            await another.nothing_more()


async def test_connections_of_one_address_are_limited(start_server: StartServer) -> None:
    server = start_server(max_connections_per_address=3)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(connected(server))
        assert (await refused_at_the_handshake(server)).response.status_code == 429
    async with connected(server) as peer:
        await peer.nothing_more()


async def test_connections_of_all_are_limited(start_server: StartServer) -> None:
    server = start_server(max_connections=2)
    async with connected(server), connected(server) as peer:
        refusal = await refused_at_the_handshake(server)
        assert refusal.response.status_code == 503
        assert refusal.response.headers["retry-after"] == "1"
        await peer.nothing_more()


async def test_connections_of_one_account_are_limited(start_server: StartServer) -> None:
    server = start_server(max_connections_per_account=2)
    account, other = open_account(server), open_account(server)
    async with connected(server, key=account.key), connected(server, key=account.key) as second:
        async with connected(server, key=None) as third:
            refusal = await third.authenticate(account.key)
            assert refusal["code"] == "connectionRateLimit"
            assert refusal["retryAfter"] == 1
            await third.socket.wait_closed()
        status, _, content = await post(server, search(), key=account.key)
        assert (status, content["errors"][0]["code"]) == (429, "connectionRateLimit")
        await second.authenticate(account.key)  # again, which takes no other place
        await second.authenticate(other.key)
        async with connected(server, key=account.key) as peer:
            await peer.nothing_more()


async def test_a_connection_has_one_frame_to_authenticate(start_server: StartServer) -> None:
    server = start_server()
    authentication = {"taskType": "authentication", "apiKey": KEY}
    for first, code in (
        ("nonsense", "invalidFrame"),
        ([], None),
        ([PING, authentication], "missingApiKey"),
        ([search(), authentication], "missingApiKey"),
        ([{"taskType": "authentication", "apiKey": "wrong"}, authentication], "invalidApiKey"),
    ):
        async with connected(server, key=None) as peer:
            await peer.socket.send(msgspec.json.encode(first).decode())
            if code is not None:
                assert (await peer.receive_item())["code"] == code
            with pytest.raises(ConnectionClosed):
                await peer.socket.recv()
            assert peer.socket.close_code == 1008


@pytest.mark.parametrize("fragments", [1, 5])
async def test_a_large_first_frame_is_refused_but_not_one_that_follows_the_key_at_once(
    start_server: StartServer, fragments: int
) -> None:
    server = start_server()
    async with connected(server, key=None) as peer:
        await peer.socket.send(["x" * (70_000 // fragments)] * fragments)
        with pytest.raises(ConnectionClosed):
            await peer.socket.recv()
        assert peer.socket.close_code == 1009
    async with connected(server, key=None) as peer:
        await peer.send({"taskType": "authentication", "apiKey": KEY})
        task = search() | {"search": "x" * 300_000}
        await peer.send(task)
        assert (await peer.receive_item())["taskType"] == "authentication"
        assert (await peer.receive_item())["taskUUID"] == task["taskUUID"]


async def test_guessing_keys_ends_soon_and_only_for_the_address_that_guesses(
    start_server: StartServer,
) -> None:
    server = start_server(failed_authentications_per_minute=3, trusted_proxies=["127.0.0.1"])
    stop_clock(server)
    guesser = {"X-Forwarded-For": "192.0.2.1"}

    async def authenticate(key: str, headers: dict[str, str]) -> Item:
        async with open_socket(server, additional_headers=headers) as socket:
            await socket.send(msgspec.json.encode([{"taskType": "authentication", "apiKey": key}]).decode())
            reply: Item = msgspec.json.decode(await socket.recv())
            return next(iter(reply.values()))[0]

    for _ in range(3):
        assert (await authenticate("guess", guesser))["code"] == "invalidApiKey"
    for refused in await asyncio.gather(*(authenticate("guess", guesser) for _ in range(50))):
        assert (refused["code"], refused["retryAfter"]) == ("authenticationRateLimit", 20)
    assert (await authenticate("guess", {"X-Forwarded-For": "192.0.2.2"}))["code"] == "invalidApiKey"
    assert (await authenticate(KEY, guesser))["taskType"] == "authentication", (
        "wrong keys lock no right one out"
    )
    async with httpcore.AsyncConnectionPool() as pool:
        for key, status in (("guess", 429), (KEY, 200)):
            headers = guesser | {"Authorization": f"Bearer {key}"}
            response = await pool.request("POST", f"{server.url}/v1", headers=headers, content=b"[]")
            assert response.status == status


@pytest.mark.parametrize("frame", ['[{"taskType":"ping","ping":true}]', "[]", "x"])
async def test_a_flood_of_frames_is_read_slowly_and_others_are_served(
    start_server: StartServer, frame: str
) -> None:
    server = start_server(requests_per_second=20, request_burst=50)
    async with connected(server) as flooder, connected(server, key=open_account(server).key) as other:
        started = time.monotonic()
        for _ in range(70):
            await flooder.socket.send(frame)
        for _ in range(10):
            await other.nothing_more()
        await flooder.send({"taskType": "accountManagement", "taskUUID": new_uuid(), "operation": "x"})
        while b"operation" not in msgspec.json.encode(await flooder.receive()):
            pass
        assert time.monotonic() - started > 0.9, "70 frames at 20 a second, 50 of them at once"


@pytest.mark.parametrize("reads", [True, False])
async def test_a_flood_of_websocket_pings_ends_the_connection(start_server: StartServer, reads: bool) -> None:
    server = start_server()
    async with connected(server) as flooder, connected(server) as other:
        if not reads:
            flooder.socket.transport.pause_reading()
        flooder.socket.transport.write((b"\x89\x84mask" + b"ping") * 20_000)
        for _ in range(10):
            await other.nothing_more()
        flooder.socket.transport.resume_reading()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(flooder.socket.recv(), PATIENCE)
        assert flooder.socket.close_code in (1008, 1006)


async def test_a_message_of_endless_empty_fragments_ends_the_connection(start_server: StartServer) -> None:
    server = start_server()
    async with connected(server) as peer, connected(server) as other:
        peer.socket.transport.write(b"\x01\x80mask" + b"\x00\x80mask" * 20_000)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(peer.socket.recv(), PATIENCE)
        await other.nothing_more()


async def test_the_images_of_one_answer_are_limited_and_the_others_can_be_asked_for(
    start_server: StartServer,
) -> None:
    server = start_server(max_unsent_bytes=2000)
    image = base64.b64encode(make_image(60, 40)).decode()
    tasks = [upscale(image, outputType="base64Data") for _ in range(3)]
    status, _, content = await post(server, *tasks)
    assert status == 200
    (told,) = content["data"]
    assert len(told["imageBase64Data"]) > 2000
    assert [error["code"] for error in content["errors"]] == ["replyRateLimit"] * 2
    for error in content["errors"]:
        status, _, again = await post(server, {"taskType": "getResponse", "taskUUID": error["taskUUID"]})
        assert "imageBase64Data" in again["data"][0]
