"""The client when the connection, or the server, goes away in the middle."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_sockets
from websockets.typing import Subprotocol

from server.serving import EmbeddedServer
from server.state import ledger
from server.state.accounts import DEFAULT_ACCOUNT, account_named, revoke_key
from server.state.database import Database
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    FAST_MODEL,
    KEY,
    Address,
    charges,
    make_image,
    new_uuid,
    open_account,
    socket_url,
    until,
)
from tests.server.support.network import Faults, Network, running_network, to_url
from tests.server.support.process import serving
from tests.server.support.web import Web
from tilewire import (
    AuthenticationFailedError,
    Options,
    Result,
    TaskFailedError,
    Tilewire,
    UnreachableError,
)
from tilewire.socket import Socket, backoff
from tilewire.wire import SUBPROTOCOL

FAST: Options = {"model": FAST_MODEL, "factor": 2, "output_format": "PNG"}


NetworkTo = Callable[[Address], Network]


@pytest.fixture
def network_to() -> Iterator[NetworkTo]:
    """Makes networks that lead to servers."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(running_network(to_url(server.url)))


async def nowhere() -> NoReturn:
    """What `connect` of a network does while there is no server."""
    raise ConnectionRefusedError


def through(network: Network, key: str = KEY, **options: Any) -> Tilewire:
    return Tilewire(socket_url(network), key, **options)


async def test_a_task_outlives_a_cut_connection_and_is_charged_once(
    network_to: NetworkTo, start_server: StartServer, web: Web
) -> None:
    server = start_server(private_networks=True)
    account = open_account(server)
    network = network_to(server)
    async with through(network, account.key) as tilewire:
        waiting = asyncio.create_task(tilewire.upscale(web.hold("/a.png", make_image()), **FAST))
        await web.receive()
        network.cut_all()
        await until(lambda: network.connections == 2)
        web.release("/a.png")
        assert (await waiting).width == 48
        assert web.waiting() == 0, "it was done once"
    assert charges(server, account.id)[1] == 1


async def test_many_tasks_outlive_many_cuts(network_to: NetworkTo, server: EmbeddedServer) -> None:
    account = open_account(server)
    pictures = [make_image(200 + n, 150, seed=n) for n in range(12)]
    network = network_to(server)
    # Cut again and again amid the results; one of the greetings is cut too.
    network.faults_of_next = [Faults(cut_after=size) for size in (100_000, 150_000, 100, 250_000, 100_000)]
    async with through(network, account.key, concurrency=4) as tilewire:
        done = [finished async for finished in tilewire.upscale_many(pictures, **FAST)]
    sizes = {finished.source: finished.result().width for finished in done}
    assert sizes == {picture: 2 * (200 + n) for n, picture in enumerate(pictures)}
    assert not network.faults_of_next, "all cuts were made"
    assert charges(server, account.id)[1] == 12


async def test_a_result_that_was_cut_midway_comes_again(
    network_to: NetworkTo, server: EmbeddedServer
) -> None:
    account = open_account(server)
    network = network_to(server)
    network.faults_of_next = [Faults(cut_after=200_000)]
    async with through(network, account.key) as tilewire:
        result = await tilewire.upscale(noise := make_image(400, 300, seed=7), **FAST)
        assert len(result.image or b"") > 200_000, noise
    assert (result.width, network.connections) == (800, 2)
    assert charges(server, account.id)[1] == 1


async def test_a_server_that_is_killed_and_started_again_finishes_the_task(
    network_to: NetworkTo, tmp_path: Path, model_directory: Path, web: Web
) -> None:
    settings = {"TILEWIRE_PRIVATE_NETWORKS": "true"}
    with serving(tmp_path, model_directory, **settings) as first:
        network = network_to(first)
        async with through(network) as tilewire:
            slow = asyncio.create_task(tilewire.upscale(web.hold("/a.png", make_image()), **FAST))
            await web.receive()
            first.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(first.process.wait)
            late = asyncio.create_task(tilewire.upscale(make_image(seed=1), **FAST))
            web.release("/a.png")
            with serving(tmp_path, model_directory, **settings) as second:
                network.connect = to_url(second.url)
                assert (await slow).width == (await late).width == 48
    database = Database(f"sqlite:///{tmp_path / 'tilewire.db'}")
    account = database.run_sync(account_named, DEFAULT_ACCOUNT, 0.0)
    assert database.run_sync(ledger.spent, account)[1] == 2
    database.close()


async def test_a_slow_line_is_not_taken_for_a_dead_one(
    network_to: NetworkTo, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Socket, "ping_after", 0.2)
    monkeypatch.setattr(Socket, "dead_after", 1.2)
    network = network_to(server)
    network.faults = Faults(bytes_per_second=100_000)
    async with through(network) as tilewire:
        result = await tilewire.upscale(image := make_image(300, 300, seed=3), **FAST)
    assert len(image) + len(result.image or b"") > 360_000, "takes much longer than a dead line is waited for"
    assert network.connections == 1


async def test_a_line_that_has_gone_silent_is_given_up(
    network_to: NetworkTo, server: EmbeddedServer, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Socket, "ping_after", 0.2)
    monkeypatch.setattr(Socket, "dead_after", 0.6)
    network = network_to(server)
    async with through(network) as tilewire:
        await tilewire.account()
        network.silent = True
        waiting = asyncio.create_task(tilewire.upscale(make_image(), **FAST))
        await until(lambda: network.connections == 2)
        network.silent = False
        assert (await waiting).width == 48


async def test_what_is_said_twice_is_heard_once() -> None:
    """A reply that may have been lost with a connection is sent again after the session has resumed."""
    tasks: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def serve(socket: ServerConnection) -> None:
        async for frame in socket:
            for task in msgspec.msgpack.decode(frame):
                head = {"taskType": task["taskType"], "taskUUID": task.get("taskUUID", "")}
                if head["taskType"] == "authentication":
                    reply = {"data": [head | {"connectionSessionUUID": new_uuid()}]}
                elif tasks.empty():
                    reply = {"errors": [head | {"code": "serviceUnavailable", "retryAfter": 1}]}
                else:
                    reply = {"data": [head | {"imageUUID": new_uuid(), "imageURL": f"/{tasks.qsize()}"}]}
                if head["taskType"] != "authentication":
                    tasks.put_nowait(task)
                    await socket.send(msgspec.msgpack.encode(reply))
                await socket.send(msgspec.msgpack.encode(reply))

    subprotocol = Subprotocol(SUBPROTOCOL)
    async with serve_sockets(serve, "127.0.0.1", 0, subprotocols=[subprotocol]) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        async with Tilewire(f"ws://127.0.0.1:{port}", KEY) as tilewire:
            assert [(await tilewire.upload(make_image())).url for _ in range(3)] == ["/1", "/2", "/3"]
    assert tasks.qsize() == 4, "the one refusal, which came twice, led to one more try"


async def test_an_idle_connection_that_was_lost_is_made_again_when_it_is_needed(
    network_to: NetworkTo,
    server: EmbeddedServer,
) -> None:
    network = network_to(server)
    async with through(network) as tilewire:
        await tilewire.account()
        network.cut_all()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await until(lambda: network.connections > 1)
        assert (await tilewire.upscale(make_image(), **FAST)).width == 48
        assert network.connections == 2


async def test_a_task_cancelled_without_a_connection_is_cancelled_with_the_next(
    network_to: NetworkTo, start_server: StartServer, web: Web
) -> None:
    server = start_server(private_networks=True)
    account = open_account(server)
    network = network_to(server)
    async with through(network, account.key) as tilewire:
        waiting = asyncio.create_task(tilewire.upscale(web.hold("/a.png", make_image()), **FAST))
        await web.receive()
        listening, network.connect = network.connect, nowhere
        network.cut_all()
        await until(lambda: network.connections > 1)  # it tries, in vain
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        network.connect = listening
        await tilewire.account()
        await until(lambda: server.services.runner.count == 0)
    assert charges(server, account.id) == (0, 0)


async def test_patience_ends(network_to: NetworkTo, server: EmbeddedServer, web: Web) -> None:
    network = network_to(server)
    async with through(network, patience=0.3) as tilewire:
        network.connect = nowhere
        network.cut_all()
        with pytest.raises(UnreachableError):
            await tilewire.upscale(make_image(), **FAST)
        network.connect = to_url(server.url)
        assert isinstance(await tilewire.upscale(make_image(), **FAST), Result), "a new call tries anew"


async def test_a_key_that_is_no_longer_valid_ends_what_waits(
    network_to: NetworkTo, server: EmbeddedServer, web: Web
) -> None:
    account = open_account(server)
    network = network_to(server)
    async with through(network, account.key) as tilewire:
        server.services.database.run_sync(revoke_key, account.key)
        network.cut_all()
        with pytest.raises(AuthenticationFailedError):
            await tilewire.upscale(make_image(), **FAST)


async def test_an_image_too_large_for_the_server_fails_alone(start_server: StartServer) -> None:
    server = start_server(max_frame_bytes=10_000_000)
    async with Tilewire(socket_url(server), KEY) as tilewire:
        good, bad = await asyncio.gather(
            tilewire.upscale(make_image(300, 300), **FAST),
            tilewire.upscale(bytes(20_000_000), **FAST),
            return_exceptions=True,
        )
    assert isinstance(good, Result)
    assert isinstance(bad, TaskFailedError)
    assert bad.code == "invalidFrameSize"


def test_the_tries_come_ever_more_slowly_up_to_a_limit() -> None:
    delays = list(islice(backoff(first=1, longest=4), 50))
    for delay, longest in zip(delays, [1, 2, *[4] * 48], strict=True):
        assert longest / 2 <= delay <= longest
    assert len(set(delays)) > 40, "by chance"
