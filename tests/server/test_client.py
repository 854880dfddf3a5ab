"""The client library."""

import asyncio
import socket
from typing import Any

import pytest

from server.client import Client, RefusedError, UnreachableError
from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.harness import FAST_MODEL, KEY, make_image, open_image, socket_url
from tests.server.web import Web

FAST: dict[str, Any] = {"model": FAST_MODEL, "upscaleFactor": 2, "outputFormat": "PNG"}


async def test_image_bytes_become_image_bytes(server: EmbeddedServer) -> None:
    async with Client(socket_url(server), KEY) as client:
        image = open_image(await client.upscale(make_image(30, 20), **FAST))
    assert (image.format, image.size) == ("PNG", (60, 40))


async def test_tasks_run_concurrently_and_each_gets_its_own_image(server: EmbeddedServer) -> None:
    async with Client(socket_url(server), KEY) as client:
        images = await asyncio.gather(
            *(client.upscale(make_image(10 + n, 10, seed=n), **FAST) for n in range(8))
        )
    assert [open_image(image).size for image in images] == [(2 * (10 + n), 20) for n in range(8)]


async def test_parameters_that_are_none_are_not_sent(server: EmbeddedServer) -> None:
    async with Client(socket_url(server), KEY) as client:
        image = await client.upscale(make_image(), model=FAST_MODEL, upscaleFactor=None, outputQuality=None)
    assert open_image(image).size == (96, 64)


async def test_progress_is_told_rising(server: EmbeddedServer) -> None:
    shares: list[float] = []
    async with Client(socket_url(server), KEY) as client:
        await client.upscale(make_image(1400, 190), shares.append, **FAST)
    assert shares
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)


async def test_a_refusal_is_raised_for_its_task_alone(server: EmbeddedServer) -> None:
    async with Client(socket_url(server), KEY) as client:
        good, bad = await asyncio.gather(
            client.upscale(make_image(), **FAST),
            client.upscale(b"no image", **FAST),
            return_exceptions=True,
        )
    assert isinstance(good, bytes)
    assert isinstance(bad, RefusedError)
    assert str(bad) == bad.item["message"]
    assert bad.item["parameter"] == "inputs.image"


async def test_a_wrong_key_is_refused(server: EmbeddedServer) -> None:
    with pytest.raises(RefusedError) as caught:
        async with Client(socket_url(server), "wrong"):
            pass
    assert caught.value.item["code"] == "invalidApiKey"


async def test_where_nobody_listens_is_unreachable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{closed.getsockname()[1]}/v1"
        with pytest.raises(UnreachableError, match=f"{url} cannot be reached: Connection refused"):
            async with Client(url, KEY):
                pass


async def test_what_is_no_socket_is_unreachable(server: EmbeddedServer, web: Web) -> None:
    for url in (f"{socket_url(server)}/nothing", web.url.replace("http", "ws", 1)):
        with pytest.raises(UnreachableError, match="cannot be reached"):
            async with Client(url, KEY):
                pass


@pytest.mark.parametrize("url", ["http://127.0.0.1/v1", "127.0.0.1:8080", "", "ws://"])
async def test_an_address_of_another_form_is_told(url: str) -> None:
    with pytest.raises(UnreachableError, match="ws://host:port/v1"):
        async with Client(url, KEY):
            pass


async def test_tasks_that_wait_are_told_that_the_connection_is_lost(
    start_server: StartServer, web: Web
) -> None:
    server = start_server(private_networks=True, drain_timeout=0.01)
    async with Client(socket_url(server), KEY) as client:
        url = web.hold("/input.png", make_image())
        waiting = asyncio.create_task(client.upscale(b"", inputs={"image": url}, **FAST))
        await web.receive()
        await asyncio.to_thread(server.stop)
        with pytest.raises(UnreachableError, match="the connection was lost"):
            await waiting
        with pytest.raises(UnreachableError):
            await client.upscale(make_image(), **FAST)


async def test_a_frame_that_is_too_large_is_told_as_the_reason(start_server: StartServer) -> None:
    server = start_server(max_frame_bytes=10_000)
    async with Client(socket_url(server), KEY) as client:
        with pytest.raises(UnreachableError, match=r"the connection was lost: .+"):
            await client.upscale(bytes(20_000), **FAST)


async def test_tasks_that_wait_when_the_client_closes_are_told(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True, drain_timeout=0.01)
    async with Client(socket_url(server), KEY) as client:
        url = web.hold("/input.png", make_image())
        waiting = asyncio.create_task(client.upscale(b"", inputs={"image": url}, **FAST))
        await web.receive()
    with pytest.raises(UnreachableError, match="the connection was closed"):
        await waiting
