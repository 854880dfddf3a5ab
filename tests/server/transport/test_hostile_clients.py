"""Clients that want to do harm, or might as well: they are answered or cut off, and others are served."""

import asyncio
import base64
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus

from engines import OutputFormat, Picture, encode
from server.protocol.codec import JSON, MESSAGEPACK
from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.protocol.test_codec import mutated
from tests.server.support.harness import (
    KEY,
    PATIENCE,
    Item,
    Peer,
    charges,
    connected,
    make_image,
    new_uuid,
    open_account,
    open_socket,
    upscale,
)

GOOD = base64.b64encode(make_image(16, 12)).decode()
PING = {"taskType": "ping", "ping": True}


async def answers(peer: Peer) -> None:
    """The server answers a ping, whatever else it still has to say."""
    await peer.send(PING)
    async with asyncio.timeout(PATIENCE):
        while (await peer.receive()).get("data") != [{"taskType": "ping", "pong": True}]:
            pass


async def closed(peer: Peer) -> int:
    """The code that the server closes the connection with."""
    peer.socket.close_timeout = 0.1  # some of these connections cannot complete the closing handshake
    async with asyncio.timeout(PATIENCE):
        while (close := peer.socket.protocol.close_rcvd) is None:
            with suppress(ConnectionClosed, TimeoutError):
                await asyncio.wait_for(peer.socket.recv(), 0.05)
    return close.code


@pytest.mark.parametrize("authenticated", [True, False])
@pytest.mark.parametrize("fragments", [1, 5])
async def test_a_frame_over_the_limit_closes_the_connection(
    start_server: StartServer, authenticated: bool, fragments: int
) -> None:
    server = start_server(max_frame_bytes=10_000)
    async with connected(server) as other:
        async with connected(server, key=KEY if authenticated else None) as peer:
            await peer.socket.send(["x" * (10_001 // fragments + 1)] * fragments)
            assert await closed(peer) == 1009
        await answers(other)


async def test_text_that_is_not_utf8_closes_the_connection(server: EmbeddedServer) -> None:
    async with connected(server) as other:
        async with connected(server) as peer:
            await peer.socket.send(b'[{"taskType":"\xff"}]', text=True)
            assert await closed(peer) == 1007
        await answers(other)


async def test_ten_thousand_tasks_in_one_frame_are_all_answered(start_server: StartServer) -> None:
    server = start_server(max_tasks_in_flight=8, request_burst=20_000)
    account = open_account(server)
    upscales = {task["taskUUID"]: task for task in (upscale(GOOD, includeCost=True) for _ in range(300))}
    frame: list[Item] = [PING] * 9700
    for place, task in enumerate(upscales.values()):
        frame.insert(place * 33, task)
    answered: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    async with connected(server, key=account.key) as peer, connected(server) as other:
        await peer.send(*frame)
        await answers(other)
        while sum(kinds.values()) < len(frame):
            item = await peer.receive_item()
            kinds[str(item.get("code", item["taskType"]))] += 1
            if "taskUUID" in item:
                answered[item["taskUUID"]] += 1
    assert answered == Counter(upscales.keys())
    assert kinds["ping"] == 9700
    assert kinds["upscale"] + kinds["taskRateLimit"] == 300
    assert kinds["upscale"] >= 8
    assert charges(server, account.id)[1] == kinds["upscale"]


async def test_ten_thousand_wrong_tasks_are_ten_thousand_errors(start_server: StartServer) -> None:
    server = start_server(request_burst=20_000)
    async with connected(server) as peer:
        await peer.send(*[{"taskType": "steal", "taskUUID": new_uuid()} for _ in range(10_000)])
        for _ in range(10_000):
            assert (await peer.receive_item())["code"] == "unsupportedTaskType"
    async with connected(server) as peer:
        await peer.socket.send("[" + "1," * 10_000_000 + "1]")
        assert (await peer.receive_item())["code"] == "invalidFrame"
        await answers(peer)


@pytest.mark.parametrize("messagepack", [False, True])
async def test_deep_and_huge_values_cost_no_more_than_their_size(
    server: EmbeddedServer, messagepack: bool
) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = {"a": [deep]}
    huge = "x" * 3_000_000
    tasks = [
        *(upscale(GOOD) | {name: huge} for name in upscale(GOOD)),
        *(upscale(GOOD) | {name: deep} for name in ("inputs", "settings", "safety", "model", "taskType")),
        upscale(GOOD) | {"webhookURL": f"http://{huge}"},
        upscale(f"http://{huge}"),
        upscale(GOOD) | {"settings": {huge: 1}},
        upscale(GOOD) | {"settings": {f"s{number}": number for number in range(50_000)}},
        upscale(GOOD) | {f"outputTyp{number}": number for number in range(16_000)},
        upscale(GOOD) | {huge: 1},
        upscale(GOOD) | {f"x{number}": number for number in range(20_000)},
    ]
    async with connected(server, messagepack=messagepack) as peer:
        for task in tasks:
            await peer.send(task)
            item = await peer.receive_item()
            assert len(str(item)) < 5000
            assert item.get("code") != "internalServerError"
        await answers(peer)


async def test_deep_nesting_does_not_end_the_connection(server: EmbeddedServer, caplog: Any) -> None:
    async with connected(server) as peer:
        for depth in (100, 400, 500, 900, 1000, 10_000, 1_000_000):
            value = "[" * depth + "]" * depth
            for frame in (
                value,
                f'[{{"taskType":"upscale","taskUUID":"{new_uuid()}","settings":{{"a":{value}}}}}]',
            ):
                await peer.socket.send(frame)
                await peer.receive()
        await answers(peer)
    async with connected(server, messagepack=True) as peer:
        for depth in (100, 1000, 1_000_000):
            await peer.socket.send(b"\x91" * depth + b"\xc0")
            assert "errors" in await peer.receive()
        await answers(peer)
    assert not [record for record in caplog.records if record.exc_info]


def noise(side: int) -> bytes:
    """An image whose result is large as a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return encode(Picture(pixels), OutputFormat.PNG)


@asynccontextmanager
async def deaf(server: EmbeddedServer, key: str) -> AsyncIterator[tuple[Peer, str]]:
    """A peer whose system takes a few kilobytes that it does not read, and its session."""
    address = urlsplit(server.url)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (address.hostname, address.port))
    async with open_socket(server, sock=plain, max_queue=1, close_timeout=0.1) as client:
        peer = Peer(client)
        session = await peer.authenticate(key)
        yield peer, session["connectionSessionUUID"]


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"max_unsent_bytes": 50_000, "send_timeout": 60}, id="too much"),
        pytest.param({"max_unsent_bytes": 2**30, "send_timeout": 0.5}, id="too long"),
    ],
)
async def test_a_client_that_does_not_read_is_dropped_and_its_results_wait(
    start_server: StartServer, limits: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server = start_server(**limits, request_burst=10**6)
    account = open_account(server)
    image = base64.b64encode(noise(64)).decode()
    tasks = [upscale(image, outputType="base64Data") for _ in range(40)]
    async with deaf(server, account.key) as (peer, session):
        search = {"taskType": "modelSearch", "taskUUID": new_uuid()}
        await peer.send(*tasks, *[search] * 5_000)  # which makes no work, but many replies
        async with connected(server) as other, asyncio.timeout(PATIENCE):
            while "does not read" not in caplog.text:
                (result,) = await other.ask(upscale(GOOD))
                assert result["imageURL"]
    resumed: Counter[str] = Counter()
    found: set[str] = set()
    async with connected(server, key=account.key, session=session) as peer, asyncio.timeout(PATIENCE):
        while len(found) < len(tasks):
            # What was on its way when the connection was cut is the client's to ask for.
            asked = [task["taskUUID"] for task in tasks if task["taskUUID"] not in found]
            await peer.send(*({"taskType": "getResponse", "taskUUID": task} for task in asked))
            while asked:
                item = await peer.receive_item()
                if item.get("code") == "taskNotFound":  # it was sent, and is not accepted yet
                    asked.remove(item["taskUUID"])
                    continue
                if item["taskType"] == "modelSearch":
                    continue
                if "status" not in item:
                    resumed[item["taskUUID"]] += 1
                    continue
                asked.remove(item["taskUUID"])
                if item["status"] == "success":
                    found.add(item["taskUUID"])
        await answers(peer)
    assert resumed  # how many depends on what was on its way by then
    assert set(resumed.values()) == {1}
    assert charges(server, account.id)[1] == len(tasks)
    assert not [record for record in caplog.records if record.exc_info]


async def test_answers_that_can_be_asked_for_again_are_not_kept_for_who_does_not_read(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server = start_server(max_unsent_bytes=50_000)
    task = upscale(base64.b64encode(noise(64)).decode(), outputType="base64Data")
    async with connected(server) as other, asyncio.timeout(PATIENCE):
        await other.ask(task)
        async with deaf(server, KEY) as (peer, session):
            await peer.send(*[{"taskType": "getResponse", "taskUUID": task["taskUUID"]}] * 500)
            while "does not read" not in caplog.text:
                await answers(other)
        async with connected(server, session=session) as peer:
            await peer.nothing_more()


async def test_replies_that_are_not_read_do_not_grow_without_end(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Pings are the cheapest way to make a server talk."""
    caplog.set_level("INFO")
    server = start_server(send_timeout=0.5, request_burst=10**6)
    async with deaf(server, open_account(server).key) as (peer, _), asyncio.timeout(PATIENCE):
        while "does not read" not in caplog.text:
            with suppress(TimeoutError, ConnectionClosed):
                await asyncio.wait_for(peer.send(*[PING] * 1000), 0.1)
    async with connected(server) as other:
        await answers(other)


async def test_who_does_not_authenticate_in_time_is_closed(start_server: StartServer) -> None:
    server = start_server(auth_timeout=1)
    async with connected(server, key=None) as peer:
        assert await closed(peer) == 1001


async def test_a_frame_that_never_ends_does_not_keep_a_connection_open(start_server: StartServer) -> None:
    server = start_server(auth_timeout=1)
    async with connected(server, key=None) as peer:
        peer.socket.transport.write(b"\x81\xff" + (60_000).to_bytes(8) + b"mask" + b"x" * 1000)
        assert await closed(peer) == 1001


async def test_an_idle_connection_is_closed(start_server: StartServer) -> None:
    server = start_server(idle_timeout=1)
    async with connected(server) as peer:
        await answers(peer)
        assert await closed(peer) == 1001


async def test_a_list_of_too_many_tasks_is_one_error(server: EmbeddedServer) -> None:
    async with connected(server) as peer:
        await peer.send(*[PING] * (2**14 + 1))
        assert (await peer.receive_item())["code"] == "invalidFrame"
        await answers(peer)


async def test_a_flood_of_connections_is_refused_and_others_get_through(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server(
        requests_per_second=20, request_burst=60, max_unauthenticated=30, auth_timeout=PATIENCE
    )
    outcomes: Counter[int] = Counter()

    async def knock(silent: AsyncExitStack) -> None:
        try:
            flooder = open_socket(server, local_addr=("127.0.0.2", 0), close_timeout=0.1)
            await silent.enter_async_context(flooder)
            outcomes[101] += 1
        except InvalidStatus as refusal:
            outcomes[refusal.response.status_code] += "retry-after" in refusal.response.headers

    async with AsyncExitStack() as silent:
        flood = asyncio.gather(*(knock(silent) for _ in range(120)))
        async with connected(server) as peer:
            (result,) = await peer.ask(upscale(GOOD))
            assert result["imageURL"]
        await flood
        async with connected(server) as peer:
            await answers(peer)
    assert outcomes == {101: 30, 429: 90}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_many_connections_that_say_nothing_leave_room_for_others(server: EmbeddedServer) -> None:
    async with asyncio.TaskGroup() as group:
        silent = [group.create_task(open_socket(server).__aenter__()) for _ in range(100)]
    async with connected(server) as peer:
        (result,) = await peer.ask(upscale(GOOD))
        assert result["imageURL"]
    await asyncio.gather(*(task.result().close() for task in silent))


@pytest.mark.parametrize("codec", [JSON, MESSAGEPACK], ids=["JSON", "MessagePack"])
def test_whatever_is_sent_the_server_answers_and_logs_no_exception(
    server: EmbeddedServer, codec: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    @given(st.lists(mutated(codec) | st.binary(max_size=100), min_size=10, max_size=10))
    def attack(frames: list[bytes]) -> None:
        async def live() -> None:
            async with connected(server, messagepack=codec.binary) as peer:
                peer.socket.close_timeout = 0.1  # replies are left unread, the server's close behind them
                for frame in frames:
                    await peer.socket.send(frame)
                await answers(peer)

        asyncio.run(live())

    attack()
    assert not [record for record in caplog.records if record.exc_info]
