"""Large images over HTTP: sent in chunks, as fast as they are taken and no faster."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore
import obstore
import pytest
from obstore.store import LocalStore

from server.images.store import ImageFile
from server.serving import EmbeddedServer
from server.state.accounts import account_named
from tests.server.conftest import StartServer
from tests.server.support.harness import PATIENCE, new_uuid, until
from tests.server.support.records import keep_result

SIZE = 96 * 2**20 + 12345
DATA = bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251)


class Reads:
    """How many bytes the server reads of its store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.bytes, self.largest = 0, 0, 0
        for name in ("get", "get_range"):
            monkeypatch.setattr(obstore, name, self._counting(getattr(obstore, name)))

    def _counting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(store: Any, name: str, *, start: int = 0, length: int = SIZE) -> Any:
            self.count += 1
            self.bytes += length
            self.largest = max(self.largest, length)
            return real(store, name, start=start, length=length)

        return call


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


async def stored(server: EmbeddedServer) -> str:
    """The path of a large image."""
    account = await server.services.database.run(account_named, new_uuid(), 0.0)
    record = await keep_result(server.services.images, account, ImageFile(DATA, "png", 1, 1), 1000)
    return f"/images/{record.name}"


@asynccontextmanager
async def asking(server: EmbeddedServer, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that has asked for a path, and reads nothing by itself."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**16)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        yield reader
    finally:
        writer.transport.abort()


def running_requests(server: EmbeddedServer) -> int:
    return len(server._server.server_state.tasks)


async def test_a_large_image_is_read_in_chunks_and_arrives_whole(
    start_server: StartServer, reads: Reads
) -> None:
    server = start_server()
    path = await stored(server)
    async with httpcore.AsyncConnectionPool() as pool:
        response = await pool.request("GET", f"{server.url}{path}")
        assert hashlib.sha256(response.content).digest() == hashlib.sha256(DATA).digest()
        assert (reads.bytes, reads.largest) == (SIZE, 2**20)
        response = await pool.request("GET", f"{server.url}{path}", headers={"Range": "bytes=5000-4500000"})
        assert response.content == DATA[5000:4500001]


async def test_head_reads_nothing(start_server: StartServer, reads: Reads) -> None:
    server = start_server()
    path = await stored(server)
    async with httpcore.AsyncConnectionPool() as pool:
        response = await pool.request("HEAD", f"{server.url}{path}")
    assert dict(response.headers)[b"content-length"] == str(SIZE).encode()
    assert reads.count == 0


async def test_no_more_is_read_than_slow_clients_take(start_server: StartServer, reads: Reads) -> None:
    server = start_server()
    path = await stored(server)
    async with asking(server, path) as first, asking(server, path) as second:
        # What the system keeps for a connection is filled first; then other requests are still answered.
        for _ in range(300):
            async with httpcore.AsyncConnectionPool() as pool:
                assert (await pool.request("GET", f"{server.url}/healthz")).status == 200
        await until(lambda: running_requests(server) == 2)  # the last of the others is just ending
        assert reads.bytes < SIZE / 2
        received = [await asyncio.wait_for(reader.readexactly(SIZE), PATIENCE) for reader in (first, second)]
        assert received == [DATA, DATA]


async def test_nothing_more_is_read_for_a_client_that_is_gone(
    start_server: StartServer, reads: Reads
) -> None:
    server = start_server()
    path = await stored(server)
    async with asking(server, path) as reader:
        await reader.readexactly(2**20)

    async def none_runs() -> bool:
        return running_requests(server) == 0

    await until(none_runs)
    assert reads.bytes < SIZE / 2


async def test_an_image_that_vanishes_on_its_way_ends_the_connection_early(
    start_server: StartServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server()
    path = await stored(server)
    async with asking(server, path) as reader:
        (tmp_path / path[1:]).unlink()
        with pytest.raises(asyncio.IncompleteReadError):
            await asyncio.wait_for(reader.readexactly(SIZE), PATIENCE)
    assert not [record for record in caplog.records if record.exc_info]
    assert "an image could not be sent to its end" in caplog.text
    async with httpcore.AsyncConnectionPool() as pool:
        assert (await pool.request("GET", f"{server.url}{path}")).status == 404


def test_a_file_has_its_name_only_when_all_of_it_is_there(tmp_path: Path) -> None:
    """What the records of images rely on: after a crash there is no half of an image."""
    store, file, sizes = LocalStore(tmp_path), tmp_path / "image.png", set()
    for data in (DATA, DATA[: 2**20]):  # in several parts, and in one
        writing = threading.Thread(target=obstore.put, args=(store, file.name, data))
        writing.start()
        while writing.is_alive():
            if file.exists():
                sizes.add(file.stat().st_size)
        writing.join()
        assert file.stat().st_size == len(data)
    assert sizes <= {len(DATA), 2**20}
