"""One account's slow hosts hold up nobody else."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from server.serving import EmbeddedServer
from server.state.logins import Login
from tests.server.support.harness import (
    Account,
    connected,
    make_image,
    new_uuid,
    open_account,
    until,
    upscale,
)
from tests.server.support.web import Web

pytestmark = pytest.mark.settings(private_networks=True)


@contextmanager
def hanging() -> Iterator[str]:
    """A host that takes connections and never answers."""
    with socket.create_server(("127.0.0.3", 0), backlog=256) as listener:
        yield f"http://127.0.0.3:{listener.getsockname()[1]}"


@pytest.fixture
def greedy(server: EmbeddedServer) -> Account:
    return open_account(server)


async def test_inputs_that_hang_leave_room_for_those_of_others(
    server: EmbeddedServer, greedy: Account, web: Web
) -> None:
    web.files["/a.png"] = make_image()
    with hanging() as host:
        async with connected(server, key=greedy.key) as slow, connected(server) as other:
            for number in range(64):
                await slow.send(
                    {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": f"{host}/{number}"}
                )
            async with asyncio.timeout(20):  # a third of what any of the others takes
                (reply,) = await other.ask(upscale(f"{web.url}/a.png"))
        assert "imageURL" in reply


async def test_uploads_that_hang_leave_room_for_those_of_others(
    server: EmbeddedServer, greedy: Account, web: Web
) -> None:
    web.files["/a.png"] = make_image()
    with hanging() as host:
        async with connected(server, key=greedy.key) as slow, connected(server) as other:
            tasks = [upscale(f"{web.url}/a.png", uploadEndpoint=f"{host}/{n}") for n in range(80)]
            await slow.send(*tasks)
            await until(lambda: server.services.runner.count == len(tasks))
            async with asyncio.timeout(20):
                (reply,) = await other.ask(upscale(f"{web.url}/a.png", uploadEndpoint=f"{web.url}/result"))
            assert "imageURL" in reply
            for task in tasks:
                await server.services.runner.cancel(Login(greedy.id, None), task["taskUUID"], server.url)
