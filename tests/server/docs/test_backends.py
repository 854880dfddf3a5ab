"""The backends of the documentation that hand out tokens run as written."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpcore
import pytest

from server.serving import EmbeddedServer
from tests.server.docs.test_examples import Example, examples
from tests.server.support.harness import KEY, PATIENCE, connected
from tests.server.support.npm import npm_install


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def backend(server: EmbeddedServer, directory: Path, *command: str, port: int) -> Iterator[str]:
    """Where a backend listens that has the server's key."""
    given = {"TILEWIRE_URL": server.url, "TILEWIRE_API_KEY": KEY, "PORT": str(port)}
    with subprocess.Popen(command, cwd=directory, env=os.environ | given) as running:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()


def ask(url: str) -> str:
    """A token, as soon as the backend listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            response = httpcore.request("POST", f"{url}/tilewire-token", headers={"Content-Length": "0"})
        except httpcore.ConnectError:
            assert time.monotonic() < deadline, "the backend does not start"
            time.sleep(0.05)
            continue
        assert response.status in (200, 201), response.content
        token: str = json.loads(response.content)["token"]
        return token


def only(found: list[Example]) -> str:
    (example,) = found
    return example.code


async def opens(server: EmbeddedServer, token: str) -> None:
    async with connected(server, key=token) as peer:
        await peer.nothing_more()


async def test_the_backend_with_express_makes_tokens(server: EmbeddedServer, tmp_path: Path) -> None:
    npm_install(tmp_path, "express@5")
    (tmp_path / "backend.mjs").write_text(only(examples("javascript", "express")), encoding="utf-8")
    with backend(server, tmp_path, "node", "backend.mjs", port=free_port()) as url:
        await opens(server, ask(url))


async def test_the_backend_with_fastapi_makes_tokens(server: EmbeddedServer, tmp_path: Path) -> None:
    if importlib.util.find_spec("fastapi") is None:
        pytest.skip("FastAPI is not installed")
    (tmp_path / "backend.py").write_text(only(examples("python", "FastAPI")), encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "backend:app", "--port", str(port)]
    with backend(server, tmp_path, *command, port=port) as url:
        await opens(server, ask(url))
