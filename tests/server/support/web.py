"""Somebody else's web server: inputs come from it, results and webhooks go to it."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.server.support.harness import PATIENCE


class Received(NamedTuple):
    """A request. The names of `headers` are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Web:
    """A web server under the control of a test.

    Attributes:
        url: of its root, without a slash at the end.
        files: what a GET answers, by path; anything else answers 404.
        statuses: of the next answers to PUT and POST; then 200.
        retry_after: the header of that name in answers that are no success.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.statuses: deque[int] = deque()
        self.retry_after: str | None = None
        self._received: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self._held: dict[str, threading.Event] = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._take()
                body = web.files.get(self.path)
                self._answer(404 if body is None else 200, body or b"")

            def do_POST(self) -> None:
                self._take()
                self._answer(web.statuses.popleft() if web.statuses else 200, b"")

            do_PUT = do_POST  # noqa: N815 - http.server's names

            def _take(self) -> None:
                web._note(self)
                if self.path in web._held:
                    web._held[self.path].wait(PATIENCE)

            def _answer(self, status: int, body: bytes) -> None:
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    if status >= 400 and web.retry_after is not None:
                        self.send_header("Retry-After", web.retry_after)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # whoever asked is gone

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # a server's connections come all at once

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def hold(self, path: str, body: bytes = b"") -> str:
        """Serve a file, and take what is sent there, but not before `release`; returns the URL."""
        self.files[path] = body
        self._held[path] = threading.Event()
        return f"{self.url}{path}"

    def release(self, path: str) -> None:
        """Answer the requests for a held file, those that wait and those to come."""
        self._held[path].set()

    async def receive(self) -> Received:
        """The next request, in the order in which they came."""
        return await asyncio.to_thread(self._received.get, timeout=PATIENCE)

    def waiting(self) -> int:
        """How many requests came that were not received yet."""
        return self._received.qsize()

    def close(self) -> None:
        for event in self._held.values():
            event.set()
        self.server.shutdown()
        self.server.server_close()

    def _note(self, request: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = request.rfile.read(int(headers.get("content-length", 0)))
        self._received.put(Received(request.command, request.path, headers, body))


@contextmanager
def running_web() -> Iterator[Web]:
    web = Web()
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        web.close()
        thread.join()
