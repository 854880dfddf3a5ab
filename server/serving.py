"""Runs the application: in the foreground until a signal stops it, or in a thread beside other work."""

import asyncio
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

import msgspec
import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from engines import EngineError
from onnx_models import UnknownModelError, one_line
from server.app import create_app
from server.errors import StartError
from server.http.providers import webhook_bodies
from server.http.security import SecurityHeaders
from server.images.bucket import StoreError
from server.limits.memory import Memory
from server.services import Services, running_services
from server.settings import Settings
from server.state.migrations import UnusableDatabaseError
from server.state.words import database_problem
from server.telemetry.telemetry import running_telemetry
from server.transport.config import Config
from server.transport.listeners import ListenError, take_port, taken_unix_socket

__all__ = ["EmbeddedServer", "serve"]

_FAREWELL: Final = 5
"""Seconds that a client may take to close its connection when all is done."""

_SETTLE: Final = 2
"""Seconds that clients may take to confirm the last replies; others are sent again after the next start."""

_KEEP_ALIVE: Final = 15

_OVER_UNIX_SOCKET: Final = "http://localhost"
"""What the URLs begin with that a server sends which has no other address."""

Ready = Callable[[str, Services], None]

_START_FAILURES = (
    EngineError,
    UnknownModelError,
    OSError,
    UnusableDatabaseError,
    StoreError,
)


def serve(settings: Settings, on_ready: Ready) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; a second one ends the process at once.

    SIGHUP that is ignored, as by nohup, stays so.

    Args:
        settings: the effective settings.
        on_ready: called with the address, once the port is open.

    Raises:
        StartError: if the server could not start.
    """
    server = _Server(settings, on_ready)
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn handles them too, but only while it runs
        signal.signal(number, server.handle_exit)
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        signal.signal(hangup, server.handle_exit)
    server.start()


class EmbeddedServer:
    """A server in a thread of its own, for the time of a `with` block.

    Attributes:
        url: what it is reached as, `http://host:port`; without TCP `unix:///path`.
        services: its parts.
    """

    url: str
    services: Services

    def __init__(self, settings: Settings) -> None:
        self._started = threading.Event()
        self._server = _Server(settings, self._ready)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def __enter__(self) -> "EmbeddedServer":
        """Wait until the server is ready.

        Raises:
            StartError: if it could not start.
        """
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop as SIGTERM would, and wait for the end."""
        self._server.should_exit = True
        self._thread.join()

    def _ready(self, url: str, services: Services) -> None:
        self.url, self.services = url, services
        self._started.set()

    def _run(self) -> None:
        try:
            self._server.start()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits in __enter__
            self._failure = error
        finally:
            self._started.set()


class _Server(uvicorn.Server):
    """uvicorn, set up for Tilewire: the port is taken first, opened when all services run."""

    def __init__(self, settings: Settings, on_ready: Ready) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._running = AsyncExitStack()
        self._unix_socket: socket.socket | None = None
        self._app = create_app(settings)
        self._app.state.stopping = lambda: self.should_exit
        memory = self._app.state.memory = Memory(settings)
        super().__init__(
            Config(
                SecurityHeaders(self._app),
                settings,
                memory,
                lifespan="off",
                log_config=None,
                log_level="warning",  # below, requests with their whole paths are logged
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                ssl_context_factory=(lambda *_: _tls_context(settings)) if settings.tls_certificate else None,
                timeout_graceful_shutdown=_FAREWELL,
            )
        )

    def start(self) -> None:
        """Serve until `should_exit`.

        Raises:
            StartError: if the server could not start.
        """
        with ExitStack() as taken:
            try:
                if self._settings.uds is not None:
                    self._unix_socket = taken.enter_context(taken_unix_socket(self._settings))
                ports = take_port(self._settings.host, self._settings.port) if self._settings.tcp else []
            except ListenError as error:
                raise StartError(str(error)) from error
            for port in ports:
                taken.callback(port.close)
            self.run(ports)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        settings, url = self._settings, f"unix://{(self._settings.uds or Path()).absolute()}"
        if sockets:
            host, port = sockets[0].getsockname()[:2]
            name = f"[{host}]" if ":" in host else host
            url = f"{'https' if self.config.is_ssl else 'http'}://{name}:{port}"
            settings = msgspec.structs.replace(settings, port=port)
        base_url = self._app.state.own_url = url if sockets else _OVER_UNIX_SOCKET
        try:
            telemetry = await self._running.enter_async_context(running_telemetry(settings))
        except (OSError, ImportError) as error:
            raise StartError(one_line(error)) from error
        try:
            services = await self._running.enter_async_context(
                running_services(
                    settings, settings.public_url or base_url, telemetry, webhook_bodies(settings.image_ttl)
                )
            )
        except (SQLAlchemyError, ImportError) as error:
            reason = database_problem(error, settings.effective_database_url)
            raise StartError(reason) from error
        except _START_FAILURES as error:
            raise StartError(one_line(error)) from error
        self._app.state.services = services
        await super().startup(sockets)
        if self._unix_socket is not None:
            await self._listen_on(self._unix_socket)
        self._on_ready(url, services)

    async def _listen_on(self, unix_socket: socket.socket) -> None:
        """As uvicorn does on the others; not by TLS, as nobody can listen in."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]  # as in uvicorn
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                _loop=loop,
            )

        backlog = self.config.backlog
        self.servers.append(await loop.create_unix_server(protocol, sock=unix_socket, backlog=backlog))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as uvicorn has it
        if not self.should_exit:
            self.should_exit = True
            return
        # As if the signal had never been handled: a second one does not wait for anything. What was accepted
        # is in the database, as after a crash.
        signal.signal(sig, signal.SIG_DFL)
        signal.raise_signal(sig)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections; let what runs finish, and report it on the open ones; close these."""
        services: Services = self._app.state.services
        for listener in self.servers:
            listener.close()
        deadline = time.monotonic() + self._settings.drain_timeout
        await services.runner.drain(self._settings.drain_timeout)
        await services.runner.stop()  # requests wait for their tasks, and uvicorn for its requests
        await services.webhooks.drain(max(0, deadline - time.monotonic()))
        await services.sessions.settle(_SETTLE)
        await super().shutdown(sockets)
        await self._running.aclose()


def _tls_context(settings: Settings) -> ssl.SSLContext:
    """What TLS is spoken with.

    Raises:
        StartError: if a file cannot be read, or is not what it should be.
    """
    assert settings.tls_certificate is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # With an empty password nobody is asked for one at the terminal.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")
    except OSError as error:
        files = " and ".join(str(file) for file in (settings.tls_certificate, settings.tls_key) if file)
        reason = (
            "they must be a PEM certificate and its key"
            if isinstance(error, ssl.SSLError)
            else error.strerror
        )
        raise StartError(f"tls_certificate, tls_key: {files}: {reason}") from error
    return context
