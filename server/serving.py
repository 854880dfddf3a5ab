"""Runs the application: in the foreground until it is told to stop, or in a thread beside other work."""

import threading
from collections.abc import Callable
from socket import socket
from types import TracebackType

import uvicorn

from server.app import create_app
from server.services import Services
from server.settings import Settings

__all__ = ["EmbeddedServer", "serve"]

Ready = Callable[[str, Services], None]


def serve(settings: Settings, on_ready: Ready) -> bool:
    """Serve until SIGINT or SIGTERM; whether the server could start.

    Args:
        on_ready: called with the address, once the port is open.
    """
    server = _Server(settings, on_ready)
    server.run()
    return server.started


class EmbeddedServer:
    """A server in a thread of its own, for the time of a `with` block.

    Attributes:
        url: what it is reached as, `http://host:port`.
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
            RuntimeError: if it could not start.
        """
        self._thread.start()
        self._started.wait()
        if not self._server.started:
            self._thread.join()
            raise RuntimeError("the server could not start") from self._failure
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
            self._server.run()
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits in __enter__
            self._failure = error
        finally:
            self._started.set()


class _Server(uvicorn.Server):
    """uvicorn, set up for Tilewire, that tells when its port is open."""

    def __init__(self, settings: Settings, on_ready: Ready) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._app = create_app(settings)
        super().__init__(
            uvicorn.Config(
                self._app,
                host=settings.host,
                port=settings.port,
                ws="websockets-sansio",
                ws_max_size=settings.max_frame_bytes,
                ws_per_message_deflate=False,  # images do not compress; it costs 30-45 KB a connection
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
            )
        )

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            name = f"[{host}]" if ":" in host else host
            self._on_ready(f"http://{name}:{port}", self._app.state.services)
