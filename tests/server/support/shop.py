"""A page of somebody else's, at another origin than the server: all it has is a token."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpcore

from server.serving import EmbeddedServer
from tests.server.support.harness import KEY
from tests.server.support.page import PATIENCE_MS


class Shop:
    """A page in a tab of its own, and the backend that gives it tokens.

    Attributes:
        tab: Playwright's page, or Firefox's tab.
        key: that the backend has.
        wanted: what the backend asks for with each token.
        tokens: that it gave.
    """

    def __init__(self, browser: Any, server: EmbeddedServer, *, address: str | None = None) -> None:
        """Open the page.

        Args:
            browser: Playwright's, or `Firefox`.
            address: what the page reaches the server as; default: its own.
        """
        self.server = server
        self.address = address or server.url
        self._web = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._web.serve_forever, kwargs={"poll_interval": 0.01}).start()
        self.origin = f"http://127.0.0.1:{self._web.server_port}"
        self.wanted: dict[str, Any] = {"allowedOrigins": [self.origin]}
        self.key = KEY
        self.tokens: list[str] = []
        self.files: dict[str, tuple[str, str]] = {"/": ("text/html", "<canvas></canvas>")}
        self.context = browser.new_context()
        self.complaints: list[str] = []
        self.tab = self.open_tab()

    def open_tab(self, path: str = "/") -> Any:
        tab = self.context.new_page()
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.goto(self.origin + path)
        return tab

    def run(self, body: str, given: Any = None) -> Any:
        """What the body of an async function returns, to which the client is known, and `given`.

        `made(width, height)` is a PNG of a smooth picture, `open()` a client with tokens of the backend.
        """
        return self.tab.evaluate(self._script(body), given)

    def begin(self, body: str, given: Any = None) -> None:
        """Run it in the background; `ended` gives what it returns."""
        self.tab.evaluate(f"(given) => {{ window.running = ({self._script(body)})(given); }}", given)

    def ended(self) -> Any:
        return self.tab.evaluate("() => window.running")

    def until(self, condition: str | Callable[[], bool]) -> None:
        """Wait until an expression of the page, or something outside of it, is true."""
        if isinstance(condition, str):
            self.tab.wait_for_function(condition)
            return
        while not condition():
            self.tab.wait_for_timeout(20)

    def _script(self, body: str) -> str:
        return f"""async (given) => {{
            const {{ Tilewire, TilewireError, paint }} = await import("{self.server.url}/client.js");
            const url = "{self.address}";
            const token = async () => (await fetch("/tilewire-token", {{ method: "POST" }})).json();
            const open = (options) => new Tilewire(url, token, options);
            const model = "realesr-animevideov3";
            const made = (width, height, seed = 0) => {{
                const canvas = new OffscreenCanvas(width, height);
                const context = canvas.getContext("2d");
                const gradient = context.createLinearGradient(0, 0, width, height);
                gradient.addColorStop(0, `hsl(${{seed * 40}} 80% 30%)`);
                gradient.addColorStop(1, `hsl(${{seed * 40 + 120}} 80% 70%)`);
                context.fillStyle = gradient;
                context.fillRect(0, 0, width, height);
                return canvas.convertToBlob();
            }};
            const said = (error) => ({{ name: error.name, code: error.code, parameter: error.parameter }});
            {body}
        }}"""

    def close(self) -> None:
        self.context.close()
        self._web.shutdown()
        self._web.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, body = shop.files.get(self.path, ("text/plain", ""))
                self._send(200 if body else 404, kind, body)

            def do_POST(self) -> None:
                self._send(200, "application/json", json.dumps(shop._token()))

            def _send(self, status: int, kind: str, body: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _token(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.key}"}
        body = json.dumps(self.wanted).encode()
        answer = httpcore.request("POST", f"{self.server.url}/v1/tokens", headers=headers, content=body)
        made: dict[str, str] = json.loads(answer.content)
        self.tokens.append(made["token"])
        return made
