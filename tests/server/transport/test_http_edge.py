"""HTTP clients that are slow, large or unknown; and the headers of every answer."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpcore
import msgspec
import pytest

from server.serving import EmbeddedServer
from tests.server.conftest import StartServer
from tests.server.support.harness import KEY, PATIENCE, connected, make_image, new_uuid, until
from tests.server.transport.test_hostile_clients import noise

AUTHENTICATION = {"taskType": "authentication", "apiKey": KEY}


@asynccontextmanager
async def raw(server: EmbeddedServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def status_of(reader: asyncio.StreamReader) -> int:
    line = await asyncio.wait_for(reader.readline(), PATIENCE)
    return int(line.split()[1])


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server ends the connection."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except ConnectionResetError:
        return b""


async def request(
    server: EmbeddedServer, method: str, path: str, content: bytes | None = None, **headers: str
) -> httpcore.Response:
    async with httpcore.AsyncConnectionPool() as pool:
        return await pool.request(method, f"{server.url}{path}", headers=headers, content=content)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: ",
    ],
    ids=["silent", "slow", "slow after another"],
)
async def test_a_head_that_does_not_end_in_time_ends_the_connection(
    start_server: StartServer, sent: bytes
) -> None:
    server = start_server(auth_timeout=0.2)
    async with raw(server) as (reader, writer):
        writer.write(sent)

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip()) if sent else None
        await ended(reader)
        if dripping is not None:
            dripping.cancel()


@pytest.mark.parametrize("name", [b"X-Long: ", b""])
async def test_a_head_that_is_too_large_is_refused(server: EmbeddedServer, name: bytes) -> None:
    async with raw(server) as (reader, writer):
        line = name + b"x" * 100_000 if name else b"".join(b"x-%d: y\r\n" % n for n in range(20_000))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + line)
        assert await status_of(reader) == 431


async def test_a_large_head_that_is_whole_is_refused_too(server: EmbeddedServer) -> None:
    async with raw(server) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 66_000 + b"\r\n\r\n")
        assert await status_of(reader) == 431


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: x\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nhost: y\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", 200),
    ],
)
async def test_a_request_must_say_once_whom_it_is_for(
    server: EmbeddedServer, head: bytes, status: int
) -> None:
    async with raw(server) as (reader, writer):
        writer.write(head + b"\r\n")
        assert await status_of(reader) == status


async def test_a_body_in_many_small_chunks_is_taken(server: EmbeddedServer) -> None:
    search = {"taskType": "modelSearch", "taskUUID": new_uuid(), "search": "x" * 200}
    body = msgspec.json.encode([search]).ljust(200_000)
    chunks = b"".join(b"10\r\n" + body[at : at + 16] + b"\r\n" for at in range(0, len(body), 16))
    async with raw(server) as (reader, writer):
        writer.write(
            f"POST /v1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for at in range(0, len(chunks), 10_000):
            writer.write(chunks[at : at + 10_000])
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert await status_of(reader) == 200


async def test_the_body_of_a_request_sent_ahead_has_its_time(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.transport.http._LINGER", 0.1)
    server = start_server()
    async with raw(server) as (reader, writer):
        writer.write(
            "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
            f"POST /v1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Length: 2\r\n\r\n[".encode()
        )
        assert await status_of(reader) == 200
        assert b"healthy" in await reader.readuntil(b"healthy\n")
        await asyncio.sleep(0.4)  # longer than an answered request may linger
        writer.write(b"]")
        assert await status_of(reader) == 200


async def test_endless_chunk_extensions_and_trailers_are_refused(server: EmbeddedServer) -> None:
    head = (
        f"POST /v1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for rest in (b"1;x=" + b"y" * 100_000, b"0\r\nx: " + b"y" * 100_000):
        async with raw(server) as (reader, writer):
            writer.write(head.encode() + rest)
            assert await status_of(reader) in (400, 431)


async def test_thousands_of_requests_sent_ahead_are_refused(server: EmbeddedServer) -> None:
    async with raw(server) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000)
        assert (await ended(reader)).count(b"200 OK") < 100


@pytest.mark.parametrize("authorized", [True, False])
async def test_a_body_that_does_not_arrive_in_time_is_answered_408(
    start_server: StartServer, authorized: bool
) -> None:
    server = start_server(body_timeout=1, auth_timeout=1)
    async with raw(server) as (reader, writer):
        header = f"Authorization: Bearer {KEY}\r\n" if authorized else ""
        writer.write(f"POST /v1 HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 100\r\n\r\n[".encode())
        assert await status_of(reader) == 408
        assert b"bodyTimeout" in await reader.readuntil(b"}")


@pytest.mark.parametrize("key", ["wrong", KEY])
async def test_the_key_of_the_header_is_checked_before_the_body_comes(
    server: EmbeddedServer, key: str
) -> None:
    async with raw(server) as (reader, writer):
        writer.write(
            f"POST /v1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert await status_of(reader) == (100 if key == KEY else 401)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_without_a_header_may_only_be_small(server: EmbeddedServer, chunked: bool) -> None:
    search = {"taskType": "modelSearch", "taskUUID": new_uuid()}
    small = msgspec.json.encode([AUTHENTICATION, search])
    large = small.ljust(70_000)

    async def post(body: bytes, **headers: str) -> int:
        async def parts() -> AsyncIterator[bytes]:
            yield body[:100]
            yield body[100:]

        async with httpcore.AsyncConnectionPool() as pool:
            content = parts() if chunked else body
            return (await pool.request("POST", f"{server.url}/v1", headers=headers, content=content)).status

    assert await post(small) == 200
    assert await post(large) == 413
    assert await post(large, Authorization=f"Bearer {KEY}") == 200


async def test_who_goes_on_sending_after_a_refusal_is_cut_off(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.transport.http._LINGER", 0.3)
    server = start_server()
    async with raw(server) as (reader, writer):
        writer.write(
            b"POST /v1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 1000000\r\n\r\n"
        )
        assert await status_of(reader) == 401
        writer.write(b"x")
        await ended(reader)


async def test_who_does_not_read_an_image_is_cut_off(start_server: StartServer) -> None:
    server = start_server(send_timeout=0.3)
    image = base64.b64encode(noise(1500)).decode()  # 9 MB: more than the systems keep for a reader
    async with connected(server) as peer:
        (uploaded,) = await peer.ask({"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image})
    path = urlsplit(uploaded["imageURL"]).path
    async with raw(server) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert await status_of(reader) == 200  # and no more is read than a StreamReader keeps
        await until(lambda: not server._server.server_state.connections)
    assert (await request(server, "GET", path)).status == 200


def test_every_answer_tells_browsers_what_not_to_do_with_it(server: EmbeddedServer) -> None:
    async def answers() -> dict[str, httpcore.Response]:
        async with connected(server) as peer:
            image = base64.b64encode(make_image()).decode()
            task = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": image}
            (uploaded,) = await peer.ask(task)
        return {
            "image": await request(server, "GET", urlsplit(uploaded["imageURL"]).path),
            "page": await request(server, "GET", "/docs/errors"),
            "nothing": await request(server, "GET", "/nowhere"),
            "health": await request(server, "GET", "/healthz"),
            "tasks": await request(server, "POST", "/v1", b"[]", Authorization=f"Bearer {KEY}"),
            "refusal": await request(server, "POST", "/v1", b"[]", Authorization="Bearer wrong"),
        }

    for name, response in asyncio.run(answers()).items():
        headers = {key.decode().lower(): value.decode() for key, value in response.headers}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == (
            "cross-origin" if name == "image" else "same-origin"
        )
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert ("sandbox" in policy) == (name != "page")
        assert "unsafe" not in policy
        assert "server" not in headers
        assert "strict-transport-security" not in headers
