"""Ping round trips through the task server against a bare echo on the same stack; memory per idle connection.

    python -m benchmarks.socket

The echo is a Starlette WebSocket route on uvicorn with the same settings. Both run in processes of their own;
the clients are bare asyncio protocols that send a prepared frame and wait for as many bytes as the reply has,
so that the servers, not the clients, are the limit.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import cast

import psutil
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.report import KEY, Report, free_port, median, percentile, tilewire, wait_until_ready

PING = b'[{"taskType":"ping","ping":true}]'
PONG = b'{"data":[{"taskType":"ping","pong":true}]}'
AUTHENTICATION = b'[{"taskType":"authentication","apiKey":"%s"}]' % KEY.encode()
ROUNDS = 7
SECONDS = 1.5
IDLE_CONNECTIONS = 2000


def main() -> None:
    """Measure, print, keep."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    report = Report(
        "socket", "clients", "tilewire/s", "echo/s", "ratio", "p50 ms", "p99 ms", "echo p50", "echo p99"
    )
    with tilewire() as (server, port), bare_echo() as echo_port:
        for clients in (1, 8, 64):
            ours: list[tuple[float, float, float]] = []
            echo: list[tuple[float, float, float]] = []
            for _ in range(ROUNDS):
                ours.append(uvloop.run(round_trips(port, clients, AUTHENTICATION, PING, len(PONG))))
                echo.append(uvloop.run(round_trips(echo_port, clients, None, PING, len(PING))))
            ratio = median([a[0] / b[0] for a, b in zip(ours, echo, strict=True)])
            rate, p50, p99 = (median(column) for column in zip(*ours, strict=True))
            echo_rate, echo_p50, echo_p99 = (median(column) for column in zip(*echo, strict=True))
            report.row(clients, f"{rate:.0f}", f"{echo_rate:.0f}", ratio, p50, p99, echo_p50, echo_p99)
        size = uvloop.run(idle_memory(server, port))
        report.say(f"{IDLE_CONNECTIONS} idle authenticated connections: {size / 1000:.1f} KB each")
    report.say(f"medians of {ROUNDS} alternating rounds of {SECONDS} s; ratio: median of the rounds' ratios")
    report.keep()


class Client(asyncio.Protocol):
    """Sends one frame after the other, each when the reply to the one before is complete."""

    def __init__(self, frame: bytes, reply_size: int) -> None:
        self.latencies: list[float] = []
        self.open = asyncio.get_running_loop().create_future()
        self._frame = masked(frame)
        self._reply_size = 2 + reply_size
        self._missing = 0
        self._sent = 0.0
        self._running = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        if not self._running:
            if not self.open.done() and (b"\r\n\r\n" in data or b"connectionSessionUUID" in data):
                self.open.set_result(None)
            return
        self._missing -= len(data)
        if self._missing <= 0:
            self.latencies.append(time.perf_counter() - self._sent)
            self._ask()

    async def authenticate(self, frame: bytes) -> None:
        self.open = asyncio.get_running_loop().create_future()
        self._transport.write(masked(frame))
        await self.open

    def begin(self) -> None:
        self._running = True
        self._ask()

    def close(self) -> None:
        self._transport.abort()

    def _ask(self) -> None:
        self._missing = self._reply_size
        self._sent = time.perf_counter()
        self._transport.write(self._frame)


def masked(payload: bytes) -> bytes:
    """A text frame of less than 126 bytes with a mask of zeros (RFC 6455 section 5.2)."""
    assert len(payload) < 126
    return bytes((0x81, 0x80 | len(payload), 0, 0, 0, 0)) + payload


async def connect(port: int, authentication: bytes | None, frame: bytes, reply_size: int) -> Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(frame, reply_size), "127.0.0.1", port)
    await client.open
    if authentication is not None:
        await client.authenticate(authentication)
    return client


async def round_trips(
    port: int, clients: int, authentication: bytes | None, frame: bytes, reply_size: int
) -> tuple[float, float, float]:
    """Round trips per second of all clients together; the median and 99th percentile latency in ms."""
    peers = [await connect(port, authentication, frame, reply_size) for _ in range(clients)]
    for peer in peers:
        peer.begin()
    await asyncio.sleep(SECONDS)
    latencies = [latency for peer in peers for latency in peer.latencies]
    for peer in peers:
        peer.close()
    return len(latencies) / SECONDS, 1e3 * median(latencies), 1e3 * percentile(latencies, 0.99)


async def idle_memory(server: Popen[bytes], port: int) -> float:
    """Resident bytes of the server per connection that is open, authenticated and silent."""
    process = psutil.Process(server.pid)
    before = process.memory_info().rss
    peers = [await connect(port, AUTHENTICATION, PING, len(PONG)) for _ in range(IDLE_CONNECTIONS)]
    size = (process.memory_info().rss - before) / len(peers)
    for peer in peers:
        peer.close()
    return size


@contextmanager
def bare_echo() -> Iterator[int]:
    """The echo server in a process of its own; its port."""
    port = free_port()
    process = Popen([sys.executable, "-m", "benchmarks.socket", "echo", str(port)])
    try:
        wait_until_ready(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def serve_echo(port: int) -> None:
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            return

    async def ready(_scope: object, _receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    app = Starlette(routes=[WebSocketRoute("/v1", echo)])
    app.mount("/readyz", ready)  # type: ignore[arg-type]
    uvicorn.run(
        app,
        port=port,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["echo"]:
        serve_echo(int(sys.argv[2]))
    else:
        main()
