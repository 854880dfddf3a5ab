"""Chromium, driven by its DevTools protocol. Tests are skipped where it is not installed."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.server.harness import PATIENCE

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Where Chromium is installed, if it is."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class BrowserPage:
    """An open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> Any:
        """One command of the DevTools protocol; its result."""
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.recv(), PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def until(self, condition: str) -> None:
        """Wait until an expression in JavaScript is true."""
        promise = (
            "new Promise((resolve) => { const look = () => "
            f"({condition}) ? resolve(true) : setTimeout(look, 20); look(); }})"
        )
        await self.call("Runtime.evaluate", expression=promise, awaitPromise=True)

    async def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file as a user would."""
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.call("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


@asynccontextmanager
async def open_page(url: str, profile: Path) -> AsyncIterator[BrowserPage]:
    """A page in a browser of its own, whose state is in `profile`."""
    program = chromium()
    if program is None:
        pytest.skip("pages are not tested: Chromium is not installed")
    process = await asyncio.create_subprocess_exec(
        program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = b""
        async with asyncio.timeout(PATIENCE):
            while not line.startswith(b"DevTools listening on ws://"):
                line = await process.stderr.readline()
                assert line, "the browser did not start"
        reading = asyncio.create_task(process.stderr.read())
        address = line.decode().split("ws://")[1].partition("/")[0]
        response = await asyncio.to_thread(httpcore.request, "GET", f"http://{address}/json/list")
        target = next(one for one in json.loads(response.content) if one["type"] == "page")
        async with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
            page = BrowserPage(socket)
            await page.call("Page.navigate", url=url)
            yield page
    finally:
        process.kill()
        await process.wait()
        await reading
