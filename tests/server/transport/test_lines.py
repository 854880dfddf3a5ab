"""Lines that are slow, dead or cut: what was told arrives, and nobody who lives is dropped."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from server.serving import EmbeddedServer
from server.state.outbox import count_undelivered
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    PATIENCE,
    Item,
    Peer,
    connected,
    make_image,
    new_uuid,
    open_socket,
    until,
    upscale,
)
from tests.server.support.network import Faults, Network, running_network, to_url
from tests.server.support.web import Web
from tests.server.transport.test_hostile_clients import noise

Line = Callable[[EmbeddedServer], Network]


@pytest.fixture
def line() -> Iterator[Line]:
    """A network before a server."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(running_network(to_url(server.url)))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that ask often whether a client lives."""
    monkeypatch.setattr("server.transport.websocket._KEEP_ALIVE", 0.4)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def upload(image: str) -> Item:
    return {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image}


async def replies(peer: Peer) -> list[str]:
    """The UUIDs of the tasks that replies are of, until there are no more."""
    await peer.send({"taskType": "ping"})
    found = []
    while (item := await peer.receive_item())["taskType"] != "ping":
        found.append(item["taskUUID"])
    return found


async def test_what_was_written_into_a_dead_line_comes_when_the_session_resumes(
    start_server: StartServer, line: Line, web: Web
) -> None:
    server = start_server(private_networks=True)
    network, session = line(server), new_uuid()
    url = web.hold("/late.png", make_image())
    first, *tasks = [upscale(encoded(make_image(seed=seed))) for seed in range(20)]
    late, refused = upload(url), upscale(url, upscaleFactor=3.9, model="nothing")
    async with connected(network, session=session) as peer:
        await peer.ask(first)
        await peer.send(late, *(upscale(url) | {"taskUUID": task["taskUUID"]} for task in tasks))
        await web.receive()
        network.silent = True
        runner = server.services.runner
        await until(lambda: runner.count == len(tasks))
        web.release("/late.png")
        await until(lambda: runner.count == 0)
        network.cut_all()
        network.silent = False
        async with connected(server, session=session) as resumed:
            assert set(await replies(resumed)) == {task["taskUUID"] for task in (late, *tasks)}
            await resumed.ask(refused)
            await resumed.nothing_more()  # what came before is confirmed by then
            await until(lambda: not server.services.database.run_sync(count_undelivered))
    async with connected(server, session=session) as resumed:
        await resumed.nothing_more()


async def test_what_was_written_into_a_dead_line_as_the_server_stopped_comes_after_the_next_start(
    start_server: StartServer, line: Line, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.serving._SETTLE", 0.1)
    server = start_server(private_networks=True)
    network, session = line(server), new_uuid()
    tasks = [upscale(web.hold("/late.png", make_image())) for _ in range(5)]
    late = upload(web.hold("/other.png", make_image()))
    async with connected(network, session=session) as peer:
        await peer.send(late, *tasks)
        await until(lambda: server.services.runner.count == len(tasks))
        network.silent = True
        for path in ("/late.png", "/other.png"):
            web.release(path)
        await until(lambda: server.services.runner.count == 0)
        await asyncio.to_thread(server.stop)
        network.cut_all()
    again = start_server(private_networks=True)
    async with connected(again, session=session) as resumed:
        assert set(await replies(resumed)) >= {task["taskUUID"] for task in tasks}


@pytest.mark.usefixtures("impatient")
async def test_a_slow_uplink_is_not_taken_for_dead(start_server: StartServer, line: Line) -> None:
    server = start_server(idle_timeout=1)
    network = line(server)
    network.faults = Faults(bytes_per_second=200_000)
    async with connected(network) as peer:
        (reply,) = await peer.ask(upload(encoded(noise(380))))  # 580 kB: 3 s
        assert "imageUUID" in reply
    assert network.connections == 1


@pytest.mark.usefixtures("impatient")
async def test_a_slow_reader_gets_all_over_one_connection_and_its_own_pings_are_answered(
    start_server: StartServer, line: Line
) -> None:
    server = start_server(send_timeout=0.5, idle_timeout=1)
    network = line(server)
    tasks = [upscale(encoded(noise(110)), outputType="base64Data") for _ in range(3)]  # 190 kB each
    async with connected(server) as quick:
        assert all("imageBase64Data" in reply for reply in await quick.ask(*tasks))
    network.faults = Faults(bytes_per_second=200_000)
    async with open_socket(network, ping_interval=0.3, ping_timeout=2.5) as socket:
        peer = Peer(socket)
        await peer.authenticate()
        assert all("imageBase64Data" in reply for reply in await peer.ask(*tasks))
    assert network.connections == 1


@pytest.mark.usefixtures("impatient")
async def test_nobody_is_taken_for_dead_while_the_server_does_not_read(
    start_server: StartServer, web: Web
) -> None:
    server = start_server(private_networks=True, idle_timeout=1)
    url = web.hold("/late.png", make_image())
    async with connected(server) as peer:
        uploads = [upload(url) for _ in range(140)]
        asking = asyncio.create_task(peer.ask(*uploads))
        await web.receive()
        await asyncio.sleep(2)  # four times as long as anybody may be silent
        web.release("/late.png")
        assert len({reply["imageUUID"] for reply in await asking}) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_dead_line_is_noticed(start_server: StartServer, line: Line) -> None:
    server = start_server()
    network = line(server)
    async with connected(network) as peer:
        await peer.nothing_more()
        network.silent = True
        await until(lambda: not server.services.sessions.count)
        network.cut_all()


async def test_a_large_result_that_is_cut_again_and_again_comes_by_its_url(
    start_server: StartServer, line: Line
) -> None:
    server = start_server()
    network, session = line(server), new_uuid()
    task = upscale(encoded(noise(500)), outputType=["base64Data"])  # 3 MB
    async with connected(server, session=session) as peer:
        await peer.send(task)
        await peer.cut()
    network.faults_of_next = [Faults(cut_after=300_000) for _ in range(3)]
    for _ in range(3):
        async with connected(network, session=session) as peer:
            await asyncio.wait_for(peer.socket.wait_closed(), PATIENCE)
    assert network.cuts == 3
    async with connected(network, session=session) as peer:
        result = await peer.receive_item()
    assert (result["taskUUID"], "imageBase64Data" in result) == (task["taskUUID"], False)
    assert "imageURL" in result
    assert "get it from imageURL" in result["warnings"][0]
