"""What clients may have in memory: all together, and each of them."""

import asyncio
import base64
import json
import socket
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from server.images.store import ImageStore
from server.limits import memory
from server.limits.memory import Budget
from server.settings import Settings
from server.state.outbox import keep_outcome
from tests.server.conftest import StartServer
from tests.server.limits.test_edge import post
from tests.server.support.harness import (
    KEY,
    PATIENCE,
    Item,
    connected,
    make_image,
    new_uuid,
    open_account,
    until,
    upscale,
)
from tests.server.support.records import record_of
from tests.server.support.scrape import metrics_of
from tests.server.support.wire import Op, Wire, frame, wired
from tests.server.transport.test_hostile_clients import deaf, noise

MIB = 2**20
IMAGE = base64.b64encode(make_image()).decode()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.limits.memory._PATIENCE", 0.3)


async def test_who_holds_too_much_waits_until_there_is_room() -> None:
    budget, events = Budget(limit=100, largest=40), []
    ada = budget.holding("ada", lambda: events.append("refused"), lambda: events.append("room"))
    bob, eve = (budget.holding(name, lambda: None) for name in ("bob", "eve"))
    assert (ada.add(40), ada.add(1)) == (True, False), "40 is her share"
    assert bob.add(40)
    ada.add(-20)
    assert events == ["room"]
    assert eve.add(39)
    assert not eve.add(2), "all together hold too much"
    bob.release()
    part = ada.split(15)
    assert (ada.size, part.size, budget.used) == (6, 15, 62)
    for holding in (ada, eve, part):
        holding.release()
    assert (budget.used, events) == (0, ["room"])


async def test_the_largest_of_who_holds_most_is_refused_if_waiting_does_not_help() -> None:
    budget, refused = Budget(limit=60, largest=20), asyncio.Queue[str]()

    def hold(owner: str, name: str, size: int) -> None:
        def refuse() -> None:
            refused.put_nowait(name)
            holding.release()

        holding = budget.holding(owner, refuse)
        holding.add(size)

    hold("bob", "other", 18)
    for name, size in (("small", 5), ("large", 14), ("last", 6)):
        hold("ada", name, size)
    assert await asyncio.wait_for(refused.get(), PATIENCE) == "large"
    assert (budget.used, refused.empty()) == (29, True)


async def ended(wire: Wire) -> int:
    """The code that the server closes a connection with."""
    code = await wire.closed()
    assert code is not None
    return code


async def test_unfinished_messages_are_bounded_and_others_are_served(start_server: StartServer) -> None:
    server = start_server(max_incoming_bytes=8 * MIB, max_frame_bytes=2 * MIB)
    unfinished = b"\x81\xff" + (2 * MIB - 100).to_bytes(8) + b"mask" + bytes(3 * MIB // 2)
    async with AsyncExitStack() as stack, connected(server, key=open_account(server).key) as other:
        wires = [await stack.enter_async_context(wired(server)) for _ in range(20)]
        async with asyncio.TaskGroup() as group:
            sending = [group.create_task(wire.send(unfinished)) for wire in wires]
            ends = [group.create_task(ended(wire)) for wire in wires]
            (result,) = await other.ask(upscale(IMAGE))
            assert "imageURL" in result
            await until(lambda: sum(end.done() for end in ends) >= 16)
            assert {end.result() for end in ends if end.done()} == {1013}
            metrics = await metrics_of(server)
            assert metrics["tilewire_incoming_bytes"] <= metrics["tilewire_incoming_limit_bytes"] == 8 * MIB
            (result,) = await other.ask(upscale(IMAGE))
            assert "imageURL" in result
            for task in (*sending, *ends):
                task.cancel()
    await until(lambda: server._server._app.state.memory.incoming.used == 0)


async def test_messages_that_wait_when_their_connection_is_closed_count_no_longer(
    start_server: StartServer,
) -> None:
    server = start_server()
    async with wired(server, authenticate=False) as wire:
        await wire.send(frame(Op.TEXT, b'[{"taskType":"ping"}]'), frame(Op.TEXT, b" " * 20_000))
        assert b"missingApiKey" in await wire.message()
        assert (await wire.receive()).opcode == Op.CLOSE
    await until(lambda: server._server._app.state.memory.incoming.used == 0)


async def test_unfinished_bodies_are_bounded_and_others_are_served(start_server: StartServer) -> None:
    server = start_server(max_incoming_bytes=8 * MIB, max_frame_bytes=2 * MIB)
    address = urlsplit(server.url)
    head = f"POST /v1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {2 * MIB}\r\n\r\n"

    async def post() -> bytes:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(head.encode() + bytes(3 * MIB // 2))
        try:
            return await reader.readline()
        finally:
            writer.transport.abort()

    async with connected(server, key=open_account(server).key) as other, asyncio.TaskGroup() as group:
        posts = [group.create_task(post()) for _ in range(12)]
        await until(lambda: sum(task.done() for task in posts) >= 8)
        assert {task.result() for task in posts if task.done()} == {b"HTTP/1.1 503 Service Unavailable\r\n"}
        (result,) = await other.ask(upscale(IMAGE))
        assert "imageURL" in result
        for task in posts:
            task.cancel()
    await until(lambda: server._server._app.state.memory.incoming.used == 0)


async def test_replies_that_nobody_reads_are_bounded_over_all_connections(start_server: StartServer) -> None:
    server = start_server(max_outgoing_bytes=4 * MIB, max_unsent_bytes=MIB, send_timeout=PATIENCE)
    account = open_account(server)
    task = upscale(base64.b64encode(noise(256)).decode(), outputType="base64Data")  # 1 MB
    async with connected(server, key=account.key) as peer:
        await peer.ask(task)
    question = {"taskType": "getResponse", "taskUUID": task["taskUUID"]}
    async with AsyncExitStack() as stack, connected(server, key=open_account(server).key) as other:
        for _ in range(8):
            peer, _ = await stack.enter_async_context(deaf(server, account.key))
            await peer.send(question, question)
        memory = server._server._app.state.memory
        await until(lambda: 0 < len(server.services.sessions.links) <= 4)
        assert memory.outgoing.used <= memory.outgoing.limit
        (result,) = await other.ask(upscale(IMAGE))
        assert "imageURL" in result
    await until(lambda: memory.outgoing.used == 0)


async def test_who_asks_over_many_connections_at_once_holds_no_more(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(max_outgoing_bytes=40 * MIB, max_unsent_bytes=4 * MIB, send_timeout=PATIENCE)
    memory = server._server._app.state.memory
    account = open_account(server)
    task = upscale(base64.b64encode(noise(256)).decode(), outputType="base64Data")  # 1 MB
    question = {"taskType": "getResponse", "taskUUID": task["taskUUID"]}
    async with connected(server, key=account.key) as peer:
        await peer.ask(task)
    async with AsyncExitStack() as stack:
        peers = [(await stack.enter_async_context(deaf(server, account.key)))[0] for _ in range(30)]
        most = 0

        def over() -> bool:
            nonlocal most
            most = max(most, memory.outgoing.used)
            return memory.outgoing.used > memory.outgoing.share

        await asyncio.gather(*(peer.send(question, question) for peer in peers))
        await until(over)
        await until(lambda: not over() or len(server.services.sessions.links) < 30)  # one was dropped
        assert most < memory.outgoing.limit
    await until(lambda: memory.outgoing.used == 0)


@pytest.mark.parametrize("how", ["resumed", "sent again", "asked for", "posted"])
async def test_large_replies_that_many_want_at_once_are_prepared_as_there_is_room(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("server.limits.memory._PATIENCE", PATIENCE)
    server = start_server(max_outgoing_bytes=16 * MIB, max_unsent_bytes=4 * MIB)
    memory, account = server._server._app.state.memory, open_account(server)
    task = upscale(base64.b64encode(noise(256)).decode(), outputType="base64Data")  # 1 MB
    async with connected(server, key=account.key) as peer:
        await peer.ask(task)
    record = record_of(server.services.database, account.id, task["taskUUID"])
    assert record.finished is not None
    sessions = [new_uuid() for _ in range(10)]
    question = {"taskType": "getResponse", "taskUUID": task["taskUUID"]}
    sent = {"sent again": [task], "asked for": [question]}.get(how, [])
    if how == "resumed":
        for session in sessions:
            server.services.database.run_sync(
                keep_outcome, account.id, session, record.finished, record.task_uuid
            )
    gate, loops, counts = asyncio.Event(), set[asyncio.AbstractEventLoop](), [0]
    read = ImageStore.read

    async def read_slowly(store: ImageStore, name: str) -> bytes:
        if record.result is None or name != record.result.image_name:
            return await read(store, name)
        loops.add(asyncio.get_running_loop())
        counts.append(counts[-1] + 1)
        await gate.wait()
        counts.append(counts[-1] - 1)
        return await read(store, name)

    async def get(session: str) -> Item:
        if how == "posted":
            _, _, content = await post(server, question, key=account.key)
            return dict(content["data"][0])
        async with connected(server, key=account.key, session=session) as peer:
            for task in sent:
                await peer.send(task)
            return await peer.receive_item()

    monkeypatch.setattr(ImageStore, "read", read_slowly)
    getting = [asyncio.create_task(get(session)) for session in sessions]
    await until(lambda: counts[-1] >= 5)
    async with connected(server, key=account.key) as other:
        (result,) = await other.ask(upscale(IMAGE))
        assert "imageURL" in result, "an ordinary outcome does not wait"
    loops.pop().call_soon_threadsafe(gate.set)
    assert all("imageBase64Data" in item for item in await asyncio.gather(*getting))
    assert max(counts) <= 6, "4 MiB are the account's share"
    await until(lambda: memory.outgoing.used == 0)


async def test_answers_to_posts_that_nobody_reads_are_bounded_too(start_server: StartServer) -> None:
    server = start_server(max_outgoing_bytes=4 * MIB, max_unsent_bytes=MIB, send_timeout=PATIENCE)
    account, address = open_account(server), urlsplit(server.url)
    task = upscale(base64.b64encode(noise(256)).decode(), outputType="base64Data")  # 1 MB
    async with connected(server, key=account.key) as peer:
        await peer.ask(task)
    body = json.dumps([{"taskType": "getResponse", "taskUUID": task["taskUUID"]}])
    head = f"POST /v1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {account.key}\r\n"
    memory = server._server._app.state.memory
    async with AsyncExitStack() as stack, connected(server, key=open_account(server).key) as other:
        sockets = [stack.enter_context(socket.socket()) for _ in range(12)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect((address.hostname, address.port))
            one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        await until(lambda: memory.outgoing.used > MIB // 2)
        await until(lambda: memory.outgoing.used <= memory.outgoing.share)
        (result,) = await other.ask(upscale(IMAGE))
        assert "imageURL" in result
    await until(lambda: memory.outgoing.used == 0)


async def test_a_reply_counts_until_the_client_is_known_to_have_it(start_server: StartServer) -> None:
    server = start_server()
    memory = server._server._app.state.memory
    task = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": IMAGE}
    async with wired(server) as wire:
        await wire.send(frame(Op.TEXT, json.dumps([task]).encode()))
        while (received := await wire.receive()).opcode == Op.PING:
            await wire.send(frame(Op.PONG, received.payload))
        kept = received.payload
        ping = await wire.receive()
        assert (ping.opcode, memory.outgoing.used) == (Op.PING, len(kept)), "it may have to be sent again"
        await wire.send(frame(Op.PONG, ping.payload))
        await until(lambda: memory.outgoing.used == 0)


async def test_the_body_of_another_service_counts_for_the_account(start_server: StartServer) -> None:
    server = start_server()
    account, address = open_account(server), urlsplit(server.url)
    head = (
        f"POST /sdapi/v1/extra-single-image HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {account.key}\r\n"
        f"Content-Length: {MIB}\r\n\r\n"
    )
    memory = server._server._app.state.memory
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(head.encode() + bytes(MIB // 2))
    try:
        await until(lambda: memory.incoming._of_owners[account.id] == MIB // 2)
    finally:
        writer.transport.abort()
    await until(lambda: memory.incoming.used == 0)


def test_too_little_memory_is_reported_with_what_would_fit() -> None:
    assert memory.shortage(Settings(), 16 * 10**9) is None
    said = memory.shortage(Settings(), 2 * 10**9)
    assert said is not None
    assert "2.0 GB of memory" in said
    fitting = float(said.rpartition("; ")[2].split()[0])
    assert memory.shortage(Settings(active_megapixels=fitting), 2 * 10**9) is None
